"""Cards whose VFs the driver is filling: it takes one after the other, and a look may come in between."""

from __future__ import annotations

from vgpuctl.model.gpu import Gpu
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.snapshot import Snapshot

PATIENCE_S = 10.0
"""A driver that fills no further VF for so long has left the others out."""


class Filling:
    """How far each card was when it was last seen.  Times are of the monotonic clock."""

    def __init__(self) -> None:
        self._seen: dict[GpuAddress, tuple[int, float]] = {}

    def note(self, snapshot: Snapshot, now_s: float) -> frozenset[GpuAddress]:
        """The cards whose other VFs are still to come: what is made there now would take another's VF."""
        before, self._seen = self._seen, {}
        for gpu in snapshot.gpus:
            if (ready := _half_filled(gpu)) is None:
                continue
            count, since_s = before.get(gpu.address, (-1, now_s))
            self._seen[gpu.address] = (ready, since_s if ready == count else now_s)
        return frozenset(gpu for gpu, (_, since_s) in self._seen.items() if now_s - since_s < PATIENCE_S)


def _half_filled(gpu: Gpu) -> int | None:
    """How many VFs are ready, where some are and others have nobody else's driver."""
    ready = sum(each.ready for each in gpu.vfs)
    is_coming = any(not each.ready and each.driver in (None, "nvidia") for each in gpu.vfs)
    return ready if ready and is_coming else None

"""How far the first restore after a start has come, and what is missing when nothing more is to be hoped for.

libvirt's daemons begin after this, and with them the desktops that start by themselves.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from vgpuctl import errors
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.document import Wishes
from vgpuctl.model.gpu import Gpu, GpuState
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.situation import gpu_of, observed_for
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.service import restore

_NVIDIA = 0x10DE
_MAY_YET_COME = frozenset({GpuState.NO_DRIVER, GpuState.NO_TYPES, GpuState.UNREADABLE})
"""What a GPU shows whose driver is still at work; also what one shows that will never come."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """The names (of vGPUs, and keys of Gpu documents) that are not as wished after a start.

    `restoring` are worked on now, `awaited` stand on a GPU that is not ready, `missing` will not come by
    themselves; the latter two with the reason.
    """

    restoring: frozenset[str] = frozenset()
    awaited: Mapping[str, errors.VgpuctlError] = field(default_factory=dict)
    missing: Mapping[str, errors.VgpuctlError] = field(default_factory=dict)

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to wait for."""
        return not self.restoring and not self.awaited

    @property
    def absent(self) -> dict[str, str]:
        """All that is not there, with the reason, by name."""
        restoring = dict.fromkeys(self.restoring, "it is still being restored")
        why = {name: error.message for name, error in {**self.awaited, **self.missing}.items()}
        return dict(sorted({**restoring, **why}.items()))


def outlook(
    wishes: Wishes,
    allocations: Iterable[Allocation],
    snapshot: Snapshot,
    *,
    at_work: Collection[str],
    is_current: Callable[[str], bool],
    coming: Collection[str],
    refused: Mapping[str, errors.VgpuctlError],
) -> Outlook:
    """What can be said after an observation, and after whatever it let begin has begun.

    `at_work` are the names of the operations that go on by themselves; of what is not `is_current`, the
    observation shows how it was before its last change; `refused` says why a name could not be restored,
    of those `coming` not yet.
    """
    places = {each.name: each for each in allocations}
    wished = wishes.vgpus()
    absent = {name for name in wished if not _is_there(places.get(name), snapshot)}
    absent |= restore.missing(wishes, places.values(), snapshot).keys()
    restoring: set[str] = set()
    awaited: dict[str, errors.VgpuctlError] = {}
    missing: dict[str, errors.VgpuctlError] = {}
    for name in absent:
        gpu = gpu_of(places[name], snapshot) if name in places else None
        if name in at_work or not is_current(name):
            restoring.add(name)
        elif name in places and gpu is None:
            where = awaited if _may_appear(places[name]) else missing
            where[name] = errors.NotRestored(f"its GPU {places[name].gpu.address} is not on this host")
        elif gpu is not None and gpu.state in _MAY_YET_COME:
            awaited[name] = errors.NotRestored(f"GPU {gpu.address} is {gpu.state}{_because(gpu)}")
        elif name in coming:
            awaited[name] = refused[name]
        else:
            missing[name] = refused.get(name) or errors.NotRestored("nothing was done for it")
    return Outlook(frozenset(restoring), awaited, missing)


def _is_there(allocation: Allocation | None, snapshot: Snapshot) -> bool:
    return allocation is not None and observed_for(allocation, snapshot) is not None


def _may_appear(allocation: Allocation) -> bool:
    """Whether its GPU may still come: PCI functions are there before us, mdev parents come with a module."""
    is_card = isinstance(allocation.gpu.address, PciAddress) and allocation.gpu.device.vendor == _NVIDIA
    return not is_card


def _because(gpu: Gpu) -> str:
    return f": {gpu.state_reason}" if gpu.state_reason else ""

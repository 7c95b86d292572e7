"""Glimpses: what the kernel alone shows of the GPUs that a domain's start is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from vgpuctl.model.domain import MdevSource
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.gpu import Gpu
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.situation import gpu_of
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.start import NamedVgpu
from vgpuctl.service.messages import Glimpse
from vgpuctl.service.observations import Observations
from vgpuctl.service.turn import Turn


class Glimpses:
    """At most one at a time; each has a number, and shows what was done before it began.

    `last` is what an engine that was given up had: what it began must not pass for ours.
    """

    def __init__(self, turn: Turn, observations: Observations, last: Glimpses | None) -> None:
        self._turn = turn
        self._observations = observations
        self.number: int = last.number if last is not None else 0
        self.under_way = False
        self._boot_id: str = last.boot_id if last is not None else ""

    @property
    def boot_id(self) -> str:
        """The boot that was last seen."""
        return self._boot_id or self._observations.boot_id

    def begin(self, vgpus: Iterable[NamedVgpu]) -> int:
        """Look at the GPUs that those vGPUs are about; the number of the glimpse."""
        gpus: set[GpuAddress] = set()
        for each in vgpus:
            gpus |= self._gpus_of(each)
        self.under_way = True
        self.number += 1
        self._turn.do(Glimpse(self.number, frozenset(gpus)))
        return self.number

    def came_in(self, number: int, snapshot: Snapshot) -> Snapshot | None:
        """What it shows; None for one that nobody here asked for."""
        if number != self.number or not self.under_way:
            return None
        self.under_way = False
        self._boot_id = snapshot.boot_id
        return self._joined(snapshot)

    def _gpus_of(self, vgpu: NamedVgpu) -> set[GpuAddress]:
        """The GPU of its place, and the one that the domain's XML names."""
        latest = self._observations.latest
        gpus: set[GpuAddress] = set()
        allocation = self._turn.ledger.allocations.get(vgpu.vgpu)
        if allocation is not None:
            gpu = gpu_of(allocation, latest) if latest is not None else None
            gpus.add(gpu.address if gpu is not None else allocation.gpu.address)
        if latest is None:
            return gpus
        if isinstance(vgpu.source, MdevSource):
            there = latest.mdev(vgpu.source.uuid)
            return gpus | ({there.gpu} if there is not None else set())
        address = vgpu.source.address
        return gpus | {each.address for each in latest.gpus if any(vf.address == address for vf in each.vfs)}

    def _joined(self, glimpse: Snapshot) -> Snapshot:
        """A glimpse, with what the last observation knows of modes and of the other GPUs."""
        latest = self._observations.latest
        if latest is None or latest.boot_id != glimpse.boot_id:
            return glimpse
        seen = {each.address: each for each in glimpse.gpus}
        before = {each.address: each for each in latest.gpus}
        gpus = [_with_modes(each, before.get(address)) for address, each in seen.items()]
        gpus += [each for address, each in before.items() if address not in seen]
        return replace(glimpse, gpus=tuple(gpus), driver_version=latest.driver_version)


def _with_modes(gpu: Gpu, last: Gpu | None) -> Gpu:
    """A GPU of a glimpse, with what only NVML tells, as it was when it was last asked."""
    if last is None:
        return gpu
    # A glimpse counts only the GPUs that it shows; documents may name one by its number.
    gpu = replace(gpu, index=last.index)
    if last.device != gpu.device or not gpu.is_readable:
        return gpu

    def better(now: Fact[Any], then: Fact[Any]) -> Fact[Any]:
        return then if isinstance(now, Unknown) else now

    types = gpu.types if len(gpu.types) >= len(last.types) else last.types
    return replace(
        gpu,
        uuid=better(gpu.uuid, last.uuid),
        fb_mib=better(gpu.fb_mib, last.fb_mib),
        mig=better(gpu.mig, last.mig),
        mixed_size=better(gpu.mixed_size, last.mixed_size),
        types=types,
    )

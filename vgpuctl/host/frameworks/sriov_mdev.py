"""mdev on VFs: each VF is a parent that carries one vGPU (Ampere and later, before vendor VFIO)."""

from __future__ import annotations

from vgpuctl.errors import Conflict
from vgpuctl.host.frameworks.mdev import MdevFramework
from vgpuctl.host.frameworks.mdev_types import available
from vgpuctl.host.frameworks.parents import mdevs_under, type_directories
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.gpu import FrameworkKind, ObservedVgpu, Vf
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.step import CreateVgpu
from vgpuctl.ports.framework import FrameworkView


class SriovMdevFramework(MdevFramework):
    """vGPUs as mediated devices, one per VF, ever [hardware.md 1.3]."""

    kind = FrameworkKind.SRIOV_MDEV

    def serves(self, gpu: GpuAddress, vfs: tuple[Vf, ...]) -> bool:
        """Whether its first ready VF offers mdev types; all VFs of a GPU have one driver."""
        del gpu
        first = next((vf for vf in vfs if vf.ready), None)
        return first is not None and bool(type_directories(self._kernel, first.address))

    def view(self, gpu: GpuAddress, vfs: tuple[Vf, ...]) -> FrameworkView:
        """The types that every VF offers, the mdevs on the VFs, and what a free VF takes.

        One free VF answers for all: availability is the GPU's, a VF only adds that it is free.
        """
        ready = [vf for vf in vfs if vf.ready and type_directories(self._kernel, vf.address)]
        types = self._memory.of_parent(self._kernel, gpu, ready[0].address) if ready else ()
        vgpus: list[ObservedVgpu] = []
        free: list[Vf] = []
        for vf in vfs:
            try:
                found = self.observed(gpu, vf.address, types)
            except FileNotFoundError:
                continue  # the VF went away meanwhile
            vgpus += found
            if vf in ready and not found:
                free.append(vf)
        creatable: Fact[frozenset[int]] = Unknown("no VF is free that could be asked")
        if free:
            creatable = available(self._kernel, free[0].address)
        return FrameworkView(types=types, creatable=creatable, vgpus=tuple(vgpus))

    def refuse_taken(self, step: CreateVgpu) -> None:
        """Raise Conflict where the VF already has a vGPU: the driver would answer EIO, 0x38."""
        super().refuse_taken(step)
        there = mdevs_under(self._kernel, step.parent)
        if there:
            raise Conflict(
                f"VF {step.parent} already has a vGPU, mdev {there[0]}",
                hint="a VF carries one vGPU; take another VF",
                parent=str(step.parent),
                mdev=str(there[0]),
            )

"""mdev on the PF: T4, V100 and older, and any other mdev parent (i915 GVT-g, mtty ...)."""

from __future__ import annotations

from uuid import UUID

from vgpuctl.model.allocation import Allocation
from vgpuctl.model.domain import Hostdev, MdevSource, alias_for
from vgpuctl.model.gpu import FrameworkKind, Gpu, ObservedVgpu
from vgpuctl.model.pci import GpuAddress

KIND = FrameworkKind.MDEV
ONE_VGPU_PER_PARENT = False


def parents(gpu: Gpu) -> tuple[GpuAddress, ...]:
    """The PF itself."""
    return (gpu.address,)


def hostdev(vgpu_id: UUID, _parent: GpuAddress) -> Hostdev:
    """By UUID: it stays the same whichever parent the mdev is made on."""
    return Hostdev(source=MdevSource(vgpu_id), alias=alias_for(vgpu_id))


def owns(allocation: Allocation, vgpu: ObservedVgpu, _boot_id: str) -> bool:
    """By UUID, across boots: nobody else makes an mdev of our UUID."""
    return vgpu.mdev_uuid == allocation.id

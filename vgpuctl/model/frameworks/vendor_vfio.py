"""Vendor-specific VFIO: a type id written to a VF (kernel 6.8+).  The vGPU has no name but its VF."""

from __future__ import annotations

from uuid import UUID

from vgpuctl.model.allocation import Allocation
from vgpuctl.model.domain import Hostdev, PciSource, alias_for
from vgpuctl.model.fact import known
from vgpuctl.model.gpu import FrameworkKind, Gpu, ObservedVgpu
from vgpuctl.model.pci import GpuAddress, PciAddress

KIND = FrameworkKind.VENDOR_VFIO
ONE_VGPU_PER_PARENT = True


def parents(gpu: Gpu) -> tuple[GpuAddress, ...]:
    """The VFs that the driver has filled, in index order."""
    return tuple(vf.address for vf in sorted(gpu.vfs, key=lambda vf: vf.index) if vf.ready)


def hostdev(vgpu_id: UUID, parent: GpuAddress) -> Hostdev:
    """By VF.  Not managed: unbound from `nvidia`, a VF is lost until the next SR-IOV cycle."""
    return Hostdev(source=PciSource(pci_address(parent)), alias=alias_for(vgpu_id), managed=False)


def owns(allocation: Allocation, vgpu: ObservedVgpu, boot_id: str) -> bool:
    """By VF and type, in the boot in which we made it, until it was seen to be gone: a VF is reused."""
    same_type = (
        known(vgpu.type_id) == allocation.type_id
        if allocation.type_id is not None
        else known(vgpu.type_name) == allocation.type_name
    )
    is_known = allocation.created_boot == boot_id and not allocation.lost
    return vgpu.parent == allocation.parent and same_type and is_known


def pci_address(parent: GpuAddress) -> PciAddress:
    """`parent` as a PCI address; TypeError for an mdev parent that is none."""
    if not isinstance(parent, PciAddress):
        msg = f"a hostdev of type pci needs a PCI address, not {parent}"
        raise TypeError(msg)
    return parent

"""Passthrough without a vGPU type: a whole GPU, or a plain VF of another vendor's SR-IOV GPU.

The two are reserved type names, so that they are asked for, counted and placed as any type is.
"""

from __future__ import annotations

from uuid import UUID

from vgpuctl.model.domain import Hostdev, PciSource, alias_for
from vgpuctl.model.frameworks.vendor_vfio import owns, pci_address
from vgpuctl.model.gpu import FrameworkKind, Gpu
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.types import TypeKind, VgpuType

__all__ = ["KIND", "ONE_VGPU_PER_PARENT", "PLAIN_VF", "WHOLE_GPU", "hostdev", "owns", "parents"]

KIND = FrameworkKind.PASSTHROUGH
ONE_VGPU_PER_PARENT = True

WHOLE_GPU = VgpuType(
    name="whole-gpu",
    raw_name="whole-gpu",
    type_id=0,
    kind=TypeKind.OTHER,
    series="",
    fb_mib=None,
    max_per_gpu=1,
    source="vgpuctl",
)
PLAIN_VF = VgpuType(
    name="plain-vf",
    raw_name="plain-vf",
    type_id=0,
    kind=TypeKind.OTHER,
    series="",
    fb_mib=None,
    source="vgpuctl",
)


def parents(gpu: Gpu) -> tuple[GpuAddress, ...]:
    """The VFs, ready or not (nothing has to fill them), in index order."""
    return tuple(vf.address for vf in sorted(gpu.vfs, key=lambda vf: vf.index))


def hostdev(vgpu_id: UUID, parent: GpuAddress) -> Hostdev:
    """By PCI function.  Managed: libvirt gives it to vfio-pci and back to its driver."""
    return Hostdev(source=PciSource(pci_address(parent)), alias=alias_for(vgpu_id), managed=True)

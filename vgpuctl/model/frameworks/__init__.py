"""The pure half of each framework, and the one place where one is chosen."""

from __future__ import annotations

from uuid import UUID

from vgpuctl.model.domain import Hostdev
from vgpuctl.model.frameworks import mdev, passthrough, sriov_mdev, vendor_vfio
from vgpuctl.model.frameworks.rules import Rules
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import GpuAddress

__all__ = ["Rules", "hostdev", "rules_of"]


def rules_of(kind: FrameworkKind) -> Rules:
    """The rules of a framework."""
    match kind:
        case FrameworkKind.MDEV:
            return mdev
        case FrameworkKind.SRIOV_MDEV:
            return sriov_mdev
        case FrameworkKind.VENDOR_VFIO:
            return vendor_vfio
        case FrameworkKind.PASSTHROUGH:
            return passthrough


def hostdev(kind: FrameworkKind, vgpu_id: UUID, parent: GpuAddress) -> Hostdev:
    """The hostdev of a vGPU of that framework."""
    return rules_of(kind).hostdev(vgpu_id, parent)

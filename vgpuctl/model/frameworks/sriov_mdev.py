"""mdev on VFs: Ampere and later, where the kernel has no vendor framework.  One mdev per VF, ever."""

from __future__ import annotations

from vgpuctl.model.frameworks.mdev import hostdev, owns
from vgpuctl.model.frameworks.vendor_vfio import parents
from vgpuctl.model.gpu import FrameworkKind

__all__ = ["KIND", "ONE_VGPU_PER_PARENT", "hostdev", "owns", "parents"]

KIND = FrameworkKind.SRIOV_MDEV
ONE_VGPU_PER_PARENT = True

"""vGPU frameworks: one class each, found by probing; the executor never asks which one it has."""

from __future__ import annotations

from vgpuctl.host.frameworks.mdev import MdevFramework
from vgpuctl.host.frameworks.mdev_types import TypeMemory
from vgpuctl.host.frameworks.passthrough import PassthroughFramework
from vgpuctl.host.frameworks.sriov_mdev import SriovMdevFramework
from vgpuctl.host.frameworks.vendor_vfio import VendorVfioFramework
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.framework import Framework
from vgpuctl.ports.kernel import Kernel

__all__ = ["TypeMemory", "frameworks"]


def frameworks(kernel: Kernel, clock: Clock, memory: TypeMemory) -> dict[FrameworkKind, Framework]:
    """Every framework, in the order in which a GPU is asked for them."""
    every: tuple[Framework, ...] = (
        MdevFramework(kernel, clock, memory),
        SriovMdevFramework(kernel, clock, memory),
        VendorVfioFramework(kernel, clock, memory),
        PassthroughFramework(kernel),
    )
    return {each.kind: each for each in every}

"""NVML: what the driver says about its GPUs.  Every call is optional."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vgpuctl.model.fact import Fact
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.types import VgpuType


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlGpu:
    """A GPU as NVML describes it; what could not be asked is Unknown and names the call.

    `host_vgpu_mode` is 0 without SR-IOV, 1 with it.  `types` are the supported vGPU types.
    `active` are the vGPUs whose VM runs (an idle vGPU is not listed).
    """

    address: PciAddress
    uuid: Fact[str]
    name: Fact[str]
    fb_mib: Fact[int]
    mig_current: Fact[bool]
    mig_pending: Fact[bool]
    virtualization_mode: Fact[int]
    host_vgpu_mode: Fact[int]
    mixed_size: Fact[bool]
    types: Fact[tuple[VgpuType, ...]]
    active: Fact[tuple[NvmlVgpu, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlVgpu:
    """A vGPU whose VM runs.

    NVML does not say on which VF: its PCI id of a vGPU is the one that the guest sees [hardware.md 5].
    """

    type_id: Fact[int]
    mdev_uuid: Fact[str]
    vm_uuid: Fact[str]
    fb_used_mib: Fact[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlHost:
    """One answer for the whole host."""

    driver_version: Fact[str]
    gpus: tuple[NvmlGpu, ...]


class Nvml(Protocol):
    """NVML, in a process of its own, since its calls can hang and its clients block sriov-manage."""

    def host(self, timeout_s: float) -> Fact[NvmlHost]:
        """Everything in one call; Unknown with the reason when NVML cannot be asked at all."""
        ...

    def release(self) -> None:
        """Let go of every GPU; the next call opens NVML again."""
        ...

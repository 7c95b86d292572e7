"""NVML: what the driver says about its GPUs, and changes of MIG.  Every call is optional."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Union

from vgpuctl.model.fact import NOT_READ, Fact
from vgpuctl.model.giprofile import MigProfile
from vgpuctl.model.gpu import GpuInstance
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.types import VgpuType


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlGpu:
    """A GPU as NVML describes it; what could not be asked is Unknown and names the call.

    `types` are the supported vGPU types.  `gi_profiles` are the GPU-instance profiles with their
    placements, `gpu_instances` what is cut; Unknown without MIG.

    What follows decides nothing and is shown nowhere: it is asked for a capture alone.
    `virtualization_mode` is 3 on a host for vGPUs.  `host_vgpu_mode` is 0 without SR-IOV, 1 with it.
    `active` are the vGPUs whose VM runs (an idle vGPU is not listed).
    """

    address: PciAddress
    uuid: Fact[str]
    name: Fact[str]
    fb_mib: Fact[int]
    mig_current: Fact[bool]
    mig_pending: Fact[bool]
    mixed_size: Fact[bool]
    types: Fact[tuple[VgpuType, ...]]
    gi_profiles: Fact[tuple[MigProfile, ...]] = NOT_READ
    gpu_instances: Fact[tuple[GpuInstance, ...]] = NOT_READ
    virtualization_mode: Fact[int] = NOT_READ
    host_vgpu_mode: Fact[int] = NOT_READ
    active: Fact[tuple[NvmlVgpu, ...]] = NOT_READ


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMode:
    """Turn MIG mode on or off."""

    gpu: PciAddress
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CutInstance:
    """Create a GPU instance at a place."""

    gpu: PciAddress
    profile_id: int
    start: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyInstance:
    """Destroy a GPU instance, if it still has that profile and place."""

    gpu: PciAddress
    instance: int
    profile_id: int
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CutCompute:
    """Create a compute instance of that name in a GPU instance, if that still has its profile and place."""

    gpu: PciAddress
    instance: int
    profile_id: int
    start: int
    compute: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyCompute:
    """Destroy a compute instance, if it still is of that name, and its GPU instance where it was."""

    gpu: PciAddress
    instance: int
    profile_id: int
    start: int
    compute: str
    compute_id: int


NvmlOrder = Union[SetMode, CutInstance, DestroyInstance, CutCompute, DestroyCompute]
"""What NVML is told to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlDone:
    """What came of an order: NVML's code (0 is success) and its words.

    `activation` is the second answer to a change of MIG mode: whether the mode is in force; `instance`
    the id of a GPU instance, or of a compute instance, that was made.
    """

    code: int
    text: str
    activation: int = 0
    instance: int | None = None


class Nvml(Protocol):
    """NVML, in a process of its own, since its calls can hang and its clients block sriov-manage."""

    def host(self, timeout_s: float, *, in_full: bool = False) -> Fact[NvmlHost]:
        """Everything in one call, with `in_full` what only a capture carries too.

        Unknown with the reason when NVML cannot be asked at all.
        """
        ...

    def order(self, order: NvmlOrder, timeout_s: float) -> Fact[NvmlDone]:
        """Change a GPU; Unknown where it is not known what came of it."""
        ...

    def release(self) -> None:
        """Let go of every GPU; the next call opens NVML again."""
        ...

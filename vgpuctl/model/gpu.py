"""GPUs, their VFs, and the vGPUs that stand on them, as they are now."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from vgpuctl.model.fact import NOT_READ, Fact
from vgpuctl.model.giprofile import GiPlace, MigProfile
from vgpuctl.model.pci import GpuAddress, PciAddress
from vgpuctl.model.types import VgpuType


class FrameworkKind(StrEnum):
    """How the kernel offers vGPUs; decided per GPU by probing, never by the model's name."""

    MDEV = "mdev"
    SRIOV_MDEV = "sriov-mdev"
    VENDOR_VFIO = "vendor-vfio"
    PASSTHROUGH = "passthrough"


class GpuState(StrEnum):
    """What can be done with a GPU now."""

    READY = "ready"
    VFS_OFF = "vfs-off"
    """An SR-IOV GPU without VFs: types and framework show only once they are on."""
    NO_TYPES = "no-types"
    """The driver is bound and offers no vGPU type (nvidia-vgpud has not run, or no mdev tree)."""
    NO_DRIVER = "no-driver"
    PARKED = "parked"
    """On pci-pf-stub without VFs: sriov-manage was interrupted [cubecos issue 1459]."""
    PASSED_THROUGH = "passed-through"
    """On vfio-pci: given to a domain as a whole."""
    UNREADABLE = "unreadable"
    """It could not be read, or not in time; nothing is done to it."""


@dataclass(frozen=True, slots=True)
class DeviceId:
    """The PCI ids of a function."""

    vendor: int
    device: int
    subsystem_vendor: int
    subsystem_device: int

    def __str__(self) -> str:
        return f"{self.vendor:04x}:{self.device:04x}/{self.subsystem_vendor:04x}:{self.subsystem_device:04x}"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a vGPU's VFIO device open."""

    pid: int
    command: str
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Vf:
    """A virtual function.  `ready` is false while the driver has not filled it yet."""

    address: PciAddress
    index: int
    driver: str | None
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedVgpu:
    """A vGPU that exists in the kernel, whoever made it.

    `parent` is the VF, or the PF where types stand on the PF.  `mdev_uuid` is None under the vendor
    framework, which has no name for a vGPU but its VF.  `params` is the whole of `vgpu_params`.
    """

    gpu: GpuAddress
    parent: GpuAddress
    framework: FrameworkKind
    type_id: Fact[int | None]
    type_name: Fact[str]
    mdev_uuid: UUID | None
    params: Fact[str] | None = None
    gpu_instance_id: Fact[int] | None = None
    placement_id: Fact[int] | None = None
    holders: Fact[tuple[Holder, ...]] = ()


@dataclass(frozen=True, slots=True)
class ComputeInstance:
    """A compute instance in a GPU instance; `id` counts there, and is None for one that is only planned."""

    id: int | None
    profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInstance:
    """A GPU instance, whoever cut it.

    `id` is None for one that is only planned; `compute_instances` are those that the host has made in it.
    """

    id: int | None
    profile: str
    profile_id: int
    start: int
    size: int
    compute_instances: Fact[tuple[ComputeInstance, ...]] = ()

    @property
    def place(self) -> GiPlace:
        """Where it is, and what."""
        return GiPlace(self.start, self.profile)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A physical GPU, as the kernel and the driver show it.

    `framework` is None where it cannot show yet (VFs off).  `types` are the supported types, which do
    not change with use; `creatable` are the type ids that one more free VF (or the PF) takes now,
    by the hardware's own word, and Unknown where no free VF could be asked.  `gi_profiles` are the
    GPU-instance profiles by the driver's word, `gpu_instances` those that are cut; none with MIG off.
    """

    address: GpuAddress
    index: int
    device: DeviceId
    uuid: Fact[str]
    model: str
    driver: str | None
    numa_node: int | None
    state: GpuState
    state_reason: str = ""
    framework: FrameworkKind | None
    vfs_max: int = 0
    vfs: tuple[Vf, ...] = ()
    fb_mib: Fact[int] = NOT_READ
    mig: Fact[bool] = NOT_READ
    mig_pending: Fact[bool] = NOT_READ
    """The MIG mode after the next reset of the GPU."""
    gi_profiles: Fact[tuple[MigProfile, ...]] = NOT_READ
    gpu_instances: Fact[tuple[GpuInstance, ...]] = NOT_READ
    mixed_size: Fact[bool] = NOT_READ
    types: tuple[VgpuType, ...] = ()
    creatable: Fact[frozenset[int]] = NOT_READ
    vgpus: tuple[ObservedVgpu, ...] = ()
    holders: Fact[tuple[Holder, ...]] = ()
    """Who holds the PF itself open (a driver client, which makes sriov-manage fail)."""
    notes: tuple[str, ...] = field(default=())
    """Disagreements worth showing: hardware against catalogue, a fact without a source."""

    @property
    def is_readable(self) -> bool:
        """Whether this GPU could be observed at all."""
        return self.state is not GpuState.UNREADABLE

    def type_named(self, name: str) -> VgpuType | None:
        """The supported type of that short name."""
        return next((each for each in self.types if each.name == name), None)

    def type_numbered(self, type_id: int) -> VgpuType | None:
        """The supported type of that id."""
        return next((each for each in self.types if each.type_id == type_id), None)

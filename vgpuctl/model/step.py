"""Steps: the closed union of everything that vgpuctl ever does to a host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union
from uuid import UUID

from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.document import Affect
from vgpuctl.model.domain import Hostdev
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import GpuAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVfs:
    """Turn the VFs of an SR-IOV GPU on or off.  Destroys GPU instances and mixed-size mode.

    `destroys` are the instances that it is known to take along; None where there can be none, or where
    an older version planned it.
    """

    gpu: GpuIdentity
    enabled: bool
    destroys: tuple[GiPlace, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMigMode:
    """Turn MIG mode on or off, while VFs are off and nobody has the GPU.

    `resets` says that the GPU is reset for it (before Hopper), `nvswitch` that such a reset takes the
    GPUs beside it along.
    """

    gpu: GpuIdentity
    enabled: bool
    resets: bool = False
    nvswitch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateGpuInstance:
    """Cut a GPU instance at a place on the axis of memory slices."""

    gpu: GpuIdentity
    profile: str
    profile_id: int
    start: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyGpuInstance:
    """Destroy a GPU instance on which nothing stands, if it is still the one at that place."""

    gpu: GpuIdentity
    instance: int
    profile: str
    profile_id: int
    start: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateComputeInstance:
    """Make a compute instance in the GPU instance at that place, so that it has `number` of that profile."""

    gpu: GpuIdentity
    profile: str
    profile_id: int
    start: int
    compute: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyComputeInstance:
    """Destroy a compute instance, if it is still of that profile, in the GPU instance at that place."""

    gpu: GpuIdentity
    instance: int
    profile: str
    profile_id: int
    start: int
    compute: str
    compute_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVgpu:
    """Create a vGPU on an empty parent (VF, or the PF where types stand on the PF).

    `instance` is the GPU instance that it is to stand on, where the driver lets that be chosen, and
    `instance_id` its id, None where that shows only once it is cut.
    """

    vgpu: UUID
    name: str
    gpu: GpuIdentity
    framework: FrameworkKind
    parent: GpuAddress
    type_id: int
    type_name: str
    params: str | None = None
    instance: GiPlace | None = None
    instance_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveVgpu:
    """Remove a vGPU of ours that nobody holds; a parent that shows another type is left alone."""

    vgpu: UUID
    name: str
    gpu: GpuIdentity
    framework: FrameworkKind
    parent: GpuAddress
    type_id: int
    type_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetParams:
    """Write a vGPU's plugin parameters as a whole; `params` '' clears them.

    A parent that shows another type than `type_id` is left alone.  0, in logs of before that field, is none.
    """

    vgpu: UUID
    name: str
    gpu: GpuIdentity
    framework: FrameworkKind
    parent: GpuAddress
    type_id: int = 0
    params: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachHostdev:
    """Put a hostdev into a domain: its config, its running guest, or both."""

    vgpu: UUID
    name: str
    domain: str
    hostdev: Hostdev
    affect: frozenset[Affect]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachHostdev:
    """Take a hostdev out of a domain; done when libvirt's event says that the guest let go."""

    vgpu: UUID
    name: str
    domain: str
    hostdev: Hostdev
    affect: frozenset[Affect]


@dataclass(frozen=True, slots=True, kw_only=True)
class DisableAutostart:
    """Set the mdevctl definition of a vGPU of ours, which libvirt's nodedev shares, to start by hand."""

    vgpu: UUID
    name: str
    gpu: GpuIdentity
    parent: str


GpuWide = Union[
    SetVfs,
    SetMigMode,
    CreateGpuInstance,
    DestroyGpuInstance,
    CreateComputeInstance,
    DestroyComputeInstance,
]
"""Effects on a GPU as a whole: every later step on it waits for them, and they carry no vGPU's name."""

GPU_WIDE = (
    SetVfs,
    SetMigMode,
    CreateGpuInstance,
    DestroyGpuInstance,
    CreateComputeInstance,
    DestroyComputeInstance,
)

Effect = Union[GpuWide, CreateVgpu, RemoveVgpu, SetParams, AttachHostdev, DetachHostdev, DisableAutostart]

Lane = str
"""`gpu/<address>` or `domain/<name>`: steps of one lane run one after the other."""


def lane_of(effect: Effect) -> Lane:
    """The lane in which `effect` has to run."""
    match effect:
        case (
            SetVfs()
            | SetMigMode()
            | CreateGpuInstance()
            | DestroyGpuInstance()
            | CreateComputeInstance()
            | DestroyComputeInstance()
            | CreateVgpu()
            | RemoveVgpu()
            | SetParams()
            | DisableAutostart()
        ):
            return f"gpu/{effect.gpu.address}"
        case AttachHostdev() | DetachHostdev():
            return f"domain/{effect.domain}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One effect in a plan: why it is needed, what has to be done before, whom it touches.

    `needs` are the numbers of the steps that come first; `touches` the domains whose guest notices.
    """

    number: int
    effect: Effect
    reason: str
    needs: tuple[int, ...] = ()
    touches: tuple[str, ...] = ()

    @property
    def lane(self) -> Lane:
        """The lane in which this step runs."""
        return lane_of(self.effect)


def guests_of(effect: AttachHostdev | DetachHostdev) -> tuple[str, ...]:
    """The domains whose running guest notices."""
    return (effect.domain,) if Affect.LIVE in effect.affect else ()


def subjects_of(effect: Effect) -> dict[str, str]:
    """What a log or a query can find it by: `gpu`, `domain`, `vgpu` (its name), as far as it has them."""
    found = {"vgpu": getattr(effect, "name", None), "domain": getattr(effect, "domain", None)}
    if (gpu := getattr(effect, "gpu", None)) is not None:
        found["gpu"] = str(gpu.address)
    return {key: value for key, value in found.items() if value is not None}


def describe(effect: Effect) -> str:
    """One line for people."""
    match effect:
        case SetVfs(gpu=gpu, enabled=enabled):
            return f"turn {'on' if enabled else 'off'} the VFs of GPU {gpu.address}"
        case SetMigMode(gpu=gpu, enabled=enabled, resets=resets):
            how = ", which resets it" if resets else ""
            return f"turn {'on' if enabled else 'off'} MIG mode of GPU {gpu.address}{how}"
        case CreateGpuInstance(gpu=gpu, profile=profile, start=start):
            return f"create GPU instance {profile} at slice {start} of GPU {gpu.address}"
        case DestroyGpuInstance(gpu=gpu, profile=profile, start=start, instance=instance):
            return f"destroy GPU instance {instance} ({profile} at slice {start}) of GPU {gpu.address}"
        case CreateComputeInstance(gpu=gpu, profile=profile, start=start, compute=compute):
            return f"create compute instance {compute} in {profile} at slice {start} of GPU {gpu.address}"
        case DestroyComputeInstance(gpu=gpu, profile=profile, start=start, compute=compute):
            number = effect.compute_id
            return (
                f"destroy compute instance {number} ({compute}) in {profile} at slice {start} "
                f"of GPU {gpu.address}"
            )
        case CreateVgpu():
            return f"create vGPU {effect.name} ({effect.type_name}) on {effect.parent}"
        case RemoveVgpu():
            return f"remove vGPU {effect.name} ({effect.type_name}) from {effect.parent}"
        case SetParams():
            return f"set the parameters of vGPU {effect.name} to {effect.params!r}"
        case DisableAutostart():
            return f"switch off mdevctl's autostart of vGPU {effect.name} on {effect.parent}"
        case AttachHostdev():
            where = " and ".join(sorted(effect.affect))
            return f"attach vGPU {effect.name} to domain {effect.domain} ({where})"
        case DetachHostdev():
            where = " and ".join(sorted(effect.affect))
            return f"detach vGPU {effect.name} from domain {effect.domain} ({where})"

"""Effects on a card: which may be done, and what the card is afterwards."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from vgpuctl import errors
from vgpuctl.errors import (
    Conflict,
    TypeUnknown,
    UnsupportedHere,
    VgpuBusy,
    VgpuctlError,
    VgpuForeign,
    VgpuNotFound,
)
from vgpuctl.model.card.fit import USABLE, listed, refusal, state_refusal
from vgpuctl.model.card.holders import held_refusal, holder_facts, named
from vgpuctl.model.card.instances import (
    create_compute_refusal,
    create_refusal,
    destroy_compute_refusal,
    destroy_refusal,
    mig_mode_refusal,
    with_compute,
    with_instance,
    with_mode,
    without_compute,
    without_instance,
)
from vgpuctl.model.card.occupancy import (
    Card,
    Occupant,
    exists,
    free_parents,
    supported_types,
    type_of,
    with_place,
    without,
)
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.frameworks.passthrough import WHOLE_GPU
from vgpuctl.model.gpu import FrameworkKind, Gpu, GpuState, Holder, ObservedVgpu
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.step import (
    AttachHostdev,
    CreateComputeInstance,
    CreateGpuInstance,
    CreateVgpu,
    DestroyComputeInstance,
    DestroyGpuInstance,
    DetachHostdev,
    DisableAutostart,
    Effect,
    RemoveVgpu,
    SetMigMode,
    SetParams,
    SetVfs,
)
from vgpuctl.model.typename import nearest

_LATER = Unknown("it shows when the plan has come this far")


def allowed(card: Card, effect: Effect) -> VgpuctlError | None:
    """Why `effect` may not be done to this card; None when it may."""
    match effect:
        case CreateVgpu():
            return _create_refusal(card, effect)
        case RemoveVgpu():
            return _remove_refusal(card, effect)
        case SetParams():
            return None if exists(card, effect.vgpu) else _not_there(card, effect)
        case SetVfs(enabled=True):
            return _vfs_on_refusal(card)
        case SetVfs():
            return _vfs_off_refusal(card)
        case SetMigMode():
            return mig_mode_refusal(card, effect)
        case CreateGpuInstance():
            return create_refusal(card, effect)
        case DestroyGpuInstance():
            return destroy_refusal(card, effect)
        case CreateComputeInstance():
            return create_compute_refusal(card, effect)
        case DestroyComputeInstance():
            return destroy_compute_refusal(card, effect)
        case AttachHostdev() | DetachHostdev() | DisableAutostart():
            return None


def after(card: Card, effect: Effect) -> Card:
    """The card when `effect` has been done; what only an observation could tell becomes Unknown."""
    match effect:
        case CreateVgpu():
            vgpu_type = type_of(card, effect.type_id, effect.type_name)
            occupant = Occupant(
                name=effect.name,
                type_name=effect.type_name,
                type_id=effect.type_id,
                fb_mib=vgpu_type.fb_mib if vgpu_type else None,
                parent=effect.parent,
                vgpu=effect.vgpu,
                exists=True,
                instance=effect.instance,
            )
            return with_place(without(card, effect.vgpu), occupant)
        case RemoveVgpu():
            vgpus = tuple(
                each for each in card.gpu.vgpus if not _is(each, effect.vgpu, effect.parent, effect.framework)
            )
            gpu = replace(card.gpu, vgpus=vgpus, creatable=_creatable_without(card, effect.type_id))
            return replace(without(card, effect.vgpu), gpu=gpu)
        case SetVfs(enabled=True) if not card.vfs_on or card.gpu.state is GpuState.PARKED:
            gpu = replace(_emptied(card), mixed_size=False)
            if gpu.state is GpuState.PARKED:
                # sriov-manage brings it back to its driver; framework and VFs show only then.
                gpu = replace(gpu, state=GpuState.VFS_OFF, framework=None, vfs=())
            return replace(card, gpu=gpu, vfs_on=True)
        case SetVfs(enabled=False) if card.vfs_on:
            gpu = replace(_emptied(card), state=GpuState.VFS_OFF, framework=None, vfs=(), mixed_size=False)
            return replace(card, gpu=gpu, vfs_on=False)
        case SetMigMode(enabled=enabled) if card.gpu.mig != enabled:
            return with_mode(card, enabled=enabled)
        case CreateGpuInstance():
            return with_instance(card, effect)
        case DestroyGpuInstance():
            return without_instance(card, effect)
        case CreateComputeInstance():
            return with_compute(card, effect)
        case DestroyComputeInstance():
            return without_compute(card, effect)
        case SetVfs() | SetMigMode() | SetParams() | AttachHostdev() | DetachHostdev() | DisableAutostart():
            return card


def _emptied(card: Card) -> Gpu:
    """The GPU after sriov-manage, which takes GPU instances with it (hardware.md 0.6)."""
    if card.gpu.mig is not True or isinstance(card.gpu.gpu_instances, Unknown):
        return replace(card.gpu, creatable=_LATER)
    return replace(card.gpu, gpu_instances=(), creatable=frozenset[int]())


def _create_refusal(card: Card, effect: CreateVgpu) -> VgpuctlError | None:
    if exists(card, effect.vgpu):
        return Conflict(f"vGPU {effect.name} already exists on GPU {card.gpu.address}")
    card = without(card, effect.vgpu)
    vgpu_type = type_of(card, effect.type_id, effect.type_name)
    if vgpu_type is None:
        return TypeUnknown(
            f"GPU {card.gpu.address} has no vGPU type {effect.type_name}",
            near=list(nearest(effect.type_name, [each.name for each in supported_types(card)])),
        )
    error = refusal(card, vgpu_type)
    if error is not None:
        return error
    places = (card.gpu.address,) if vgpu_type == WHOLE_GPU else free_parents(card)
    if effect.parent in places:
        return None
    holder = next((each for each in card.occupants if each.parent == effect.parent), None)
    why = f"it carries vGPU {holder.name} ({holder.type_name})" if holder else "it is not there, or not ready"
    return Conflict(f"no vGPU can be created on {effect.parent}: {why}", parent=str(effect.parent))


def _remove_refusal(card: Card, effect: RemoveVgpu) -> VgpuctlError | None:
    if card.gpu.state is GpuState.UNREADABLE:
        return state_refusal(card)
    if not exists(card, effect.vgpu):
        return _not_there(card, effect)
    holders = _holders_of(card, effect)
    if isinstance(holders, Unknown):
        return VgpuBusy(
            f"who holds vGPU {effect.name} open could not be read: {holders.reason}", holders=None
        )
    if holders:
        return VgpuBusy(
            f"vGPU {effect.name} is held open by {named(holders)}",
            hint="shut the guest down first",
            holders=holder_facts(holders),
        )
    return None


def _holders_of(card: Card, effect: RemoveVgpu) -> Fact[tuple[Holder, ...]]:
    """Who holds the vGPU open; of a whole GPU that a guest has, who holds the GPU."""
    if effect.parent == card.gpu.address and card.gpu.state is GpuState.PASSED_THROUGH:
        return card.gpu.holders
    for each in card.gpu.vgpus:
        if _is(each, effect.vgpu, effect.parent, effect.framework):
            return each.holders
    return ()


def _vfs_on_refusal(card: Card) -> VgpuctlError | None:
    if card.gpu.state is GpuState.PARKED:
        return held_refusal(card.gpu, "sriov-manage cannot bring it back")
    if card.vfs_on:
        return None
    if not (card.gpu.vfs_max or (card.model is not None and card.model.vfs)) or (
        card.gpu.framework is FrameworkKind.MDEV
    ):
        return UnsupportedHere(f"GPU {card.gpu.address} ({card.gpu.model}) has no VFs")
    if card.gpu.state not in USABLE:
        return state_refusal(card)
    return _compute_refusal(card) or held_refusal(card.gpu, "its VFs cannot be turned on")


def _vfs_off_refusal(card: Card) -> VgpuctlError | None:
    if not card.vfs_on:
        return None
    if card.gpu.state not in USABLE:
        return state_refusal(card)
    standing = [each.name for each in card.occupants if each.exists]
    if standing:
        return errors.InvalidGpuState(
            f"the VFs of GPU {card.gpu.address} carry vGPUs: {listed(standing)}", gpu=str(card.gpu.address)
        )
    return _compute_refusal(card) or held_refusal(card.gpu, "its VFs cannot be turned off")


def _compute_refusal(card: Card) -> VgpuctlError | None:
    """Turning VFs on or off destroys GPU instances: not those with compute instances of somebody's."""
    instances = card.gpu.gpu_instances
    if isinstance(instances, Unknown):
        if card.gpu.mig is False:
            return None
        return errors.FactUnknown(
            f"whether GPU {card.gpu.address} has GPU instances, which sriov-manage would destroy, is not "
            f"known: {instances.reason}"
        )
    used = [each for each in instances if each.compute_instances != ()]
    if not used:
        return None
    places = listed([str(each.place) for each in used])
    numbers = ",".join(str(each.id) for each in used)
    return errors.InvalidGpuState(
        f"GPU {card.gpu.address} has compute instances in {places}, which sriov-manage would destroy",
        hint=f"destroy them first: nvidia-smi mig -dci -gi {numbers} -i {card.gpu.address}",
        gpu=str(card.gpu.address),
    )


def _not_there(card: Card, effect: RemoveVgpu | SetParams) -> VgpuctlError:
    foreign = [each for each in card.occupants if each.exists and each.parent == effect.parent]
    if foreign and effect.framework not in (FrameworkKind.MDEV, FrameworkKind.SRIOV_MDEV):
        return VgpuForeign(
            f"{effect.parent} carries {foreign[0].type_name}, which is not our vGPU {effect.name}",
            parent=str(effect.parent),
        )
    return VgpuNotFound(f"vGPU {effect.name} does not exist on GPU {card.gpu.address}")


def _is(vgpu: ObservedVgpu, vgpu_id: UUID, parent: GpuAddress, framework: FrameworkKind) -> bool:
    if framework in (FrameworkKind.MDEV, FrameworkKind.SRIOV_MDEV):
        return vgpu.mdev_uuid == vgpu_id
    return vgpu.parent == parent


def _creatable_without(card: Card, type_id: int) -> frozenset[int] | Unknown:
    """What is creatable when a vGPU has gone: in MIG mode, what its GPU instance can hold, too."""
    gone = type_of(card, type_id, "")
    if card.gpu.mig is not True or isinstance(card.gpu.creatable, Unknown) or gone is None:
        return _LATER
    again = {
        each.type_id
        for each in supported_types(card)
        if each.gi_profile == gone.gi_profile and each.type_id is not None
    }
    return card.gpu.creatable | again

"""MIG on a card: its mode, and the GPU instances that are cut or planned (hardware.md 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vgpuctl import errors
from vgpuctl.errors import Conflict, FactUnknown, UnsupportedHere, VgpuBusy, VgpuctlError
from vgpuctl.model.card.fit import USABLE, listed, state_refusal
from vgpuctl.model.card.holders import held_refusal
from vgpuctl.model.card.occupancy import Card, supported_types
from vgpuctl.model.catalog import GpuModel
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.gpu import ComputeInstance, Gpu, GpuInstance
from vgpuctl.model.mig.compute import guests_on
from vgpuctl.model.mig.wish import standing_on
from vgpuctl.model.step import (
    CreateComputeInstance,
    CreateGpuInstance,
    DestroyComputeInstance,
    DestroyGpuInstance,
    SetMigMode,
)

FORGETFUL = frozenset({"hopper", "blackwell"})
"""Families whose MIG mode needs no reset, and goes with the driver (hardware.md 3.2.2)."""


def resets(card: Card) -> bool:
    """Whether a change of MIG mode resets the GPU (hardware.md 3.2.1); of an unknown model it may."""
    return not forgets_mode(card.model)


def forgets_mode(model: GpuModel | None) -> bool:
    """Whether MIG mode of that model needs no reset, and goes with the driver."""
    return model is not None and model.family in FORGETFUL


def has_nvswitch(card: Card) -> bool:
    """Whether a reset takes the GPUs beside it along: boards on NVSwitch reset together."""
    return card.model is None or card.model.key.endswith("-sxm")


def no_mig(gpu: Gpu) -> UnsupportedHere:
    """What is said of a card that cannot be cut at all."""
    return UnsupportedHere(f"GPU {gpu.address} ({gpu.model}) has no MIG", gpu=str(gpu.address))


def mig_mode_refusal(card: Card, effect: SetMigMode) -> VgpuctlError | None:
    """Why the mode may not be changed; None when it may, or is that already."""
    gpu = card.gpu
    if isinstance(gpu.mig, Unknown):
        return FactUnknown(f"whether MIG mode is on at GPU {gpu.address} is not known: {gpu.mig.reason}")
    if gpu.mig == effect.enabled:
        return None
    if card.model is not None and not card.model.mig:
        return no_mig(gpu)
    if gpu.state not in USABLE:
        return state_refusal(card)
    word = "on" if effect.enabled else "off"
    there = [each.name for each in card.occupants if each.exists]
    if there:
        return VgpuBusy(
            f"MIG mode of GPU {gpu.address} cannot be turned {word}: it carries {listed(there)}",
            hint="move or delete them first",
            gpu=str(gpu.address),
            vgpus=there,
        )
    if card.vfs_on:
        return errors.InvalidGpuState(f"the VFs of GPU {gpu.address} are on", hint="turn its VFs off first")
    return held_refusal(gpu, f"its MIG mode cannot be turned {word}")


def create_refusal(card: Card, effect: CreateGpuInstance) -> VgpuctlError | None:
    """Why an instance may not be cut there."""
    present = instances_of(card)
    if isinstance(present, VgpuctlError):
        return present
    wanted = set(range(effect.start, effect.start + effect.size))
    for each in present:
        if wanted & set(range(each.start, each.start + each.size)):
            return Conflict(f"{each.place} is where {effect.profile}@{effect.start} would be")
    return None


def destroy_refusal(card: Card, effect: DestroyGpuInstance) -> VgpuctlError | None:
    """Why an instance may not be destroyed: it is another, or somebody stands on it or may."""
    present = instances_of(card)
    if isinstance(present, VgpuctlError):
        return present
    gpu = card.gpu
    found = next((each for each in present if each.id == effect.instance), None)
    if found is None:
        return None
    if (found.profile_id, found.start) != (effect.profile_id, effect.start):
        return Conflict(
            f"GPU instance {effect.instance} of GPU {gpu.address} is {found.place} now, and not "
            f"{effect.profile}@{effect.start}",
            gpu=str(gpu.address),
        )
    (standing,) = standing_on(gpu, [found])
    if standing.held_by is not None:
        return VgpuBusy(
            f"GPU instance {effect.instance} ({found.place}) of GPU {gpu.address} carries {standing.held_by}",
            gpu=str(gpu.address),
            instance=effect.instance,
        )
    return None


def create_compute_refusal(card: Card, effect: CreateComputeInstance) -> VgpuctlError | None:
    """Why a compute instance may not be made there: no such GPU instance, or a guest runs on it."""
    found = _instance_for(card, effect)
    return found if isinstance(found, VgpuctlError) else _guest_refusal(card, found)


def destroy_compute_refusal(card: Card, effect: DestroyComputeInstance) -> VgpuctlError | None:
    """Why a compute instance may not be destroyed: it is another, or a guest runs on its GPU instance."""
    found = _instance_for(card, effect)
    if isinstance(found, VgpuctlError):
        return found
    if isinstance(found.compute_instances, Unknown):
        return FactUnknown(
            f"which compute instances {found.place} of GPU {card.gpu.address} has is not known: "
            f"{found.compute_instances.reason}"
        )
    there = next((each for each in found.compute_instances if each.id == effect.compute_id), None)
    if there is None:
        return None
    if there.profile != effect.compute:
        return Conflict(
            f"compute instance {effect.compute_id} in {found.place} of GPU {card.gpu.address} is "
            f"{there.profile} now, and not {effect.compute}",
            gpu=str(card.gpu.address),
        )
    return _guest_refusal(card, found)


def _instance_for(
    card: Card, effect: CreateComputeInstance | DestroyComputeInstance
) -> GpuInstance | VgpuctlError:
    present = instances_of(card)
    if isinstance(present, VgpuctlError):
        return present
    for each in present:
        if (each.profile_id, each.start) == (effect.profile_id, effect.start):
            return each
    return Conflict(
        f"GPU {card.gpu.address} has no GPU instance {effect.profile}@{effect.start}",
        gpu=str(card.gpu.address),
    )


def _guest_refusal(card: Card, instance: GpuInstance) -> VgpuctlError | None:
    guests = guests_on(card.gpu, instance)
    if not guests:
        return None
    return VgpuBusy(
        f"a guest runs on GPU instance {instance.place} of GPU {card.gpu.address}, or may",
        hint="shut it down first",
        gpu=str(card.gpu.address),
        vgpus=[str(each.mdev_uuid or each.parent) for each in guests],
    )


def instances_of(card: Card) -> tuple[GpuInstance, ...] | VgpuctlError:
    """The instances of a card in MIG mode, or why there is no telling."""
    gpu = card.gpu
    if isinstance(gpu.mig, Unknown):
        return FactUnknown(f"whether MIG mode is on at GPU {gpu.address} is not known: {gpu.mig.reason}")
    if not gpu.mig:
        return errors.InvalidGpuState(f"MIG mode of GPU {gpu.address} is off", gpu=str(gpu.address))
    if isinstance(gpu.gpu_instances, Unknown):
        return FactUnknown(
            f"which GPU instances GPU {gpu.address} has is not known: {gpu.gpu_instances.reason}"
        )
    return gpu.gpu_instances


def with_mode(card: Card, *, enabled: bool) -> Card:
    """The card in the other mode: without instances, and with MIG on nothing creatable."""
    creatable = frozenset[int]() if enabled else Unknown("it shows when VFs are on again")
    gpu = replace(
        card.gpu, mig=enabled, mig_pending=enabled, gpu_instances=(), mixed_size=False, creatable=creatable
    )
    return replace(card, gpu=gpu)


def with_instance(card: Card, effect: CreateGpuInstance) -> Card:
    """The card with one more instance, and the types that it takes."""
    made = GpuInstance(
        id=None,
        profile=effect.profile,
        profile_id=effect.profile_id,
        start=effect.start,
        size=effect.size,
    )
    instances = (*(known(card.gpu.gpu_instances) or ()), made)
    gpu = replace(card.gpu, gpu_instances=instances)
    if not isinstance(gpu.creatable, Unknown):
        gpu = replace(gpu, creatable=gpu.creatable | _types_on(card, effect.profile))
    return replace(card, gpu=gpu)


def without_instance(card: Card, effect: DestroyGpuInstance) -> Card:
    """The card without an instance; what only it took is no longer creatable."""
    instances = tuple(each for each in known(card.gpu.gpu_instances) or () if each.id != effect.instance)
    gpu: Gpu = replace(card.gpu, gpu_instances=instances)
    if not isinstance(gpu.creatable, Unknown) and all(each.profile != effect.profile for each in instances):
        gpu = replace(gpu, creatable=gpu.creatable - _types_on(card, effect.profile))
    return replace(card, gpu=gpu)


def with_compute(card: Card, effect: CreateComputeInstance) -> Card:
    """The card with one more compute instance."""
    return _shared(card, effect, lambda there: (*there, ComputeInstance(None, effect.compute)))


def without_compute(card: Card, effect: DestroyComputeInstance) -> Card:
    """The card without a compute instance."""
    return _shared(card, effect, lambda there: tuple(each for each in there if each.id != effect.compute_id))


def _shared(
    card: Card,
    effect: CreateComputeInstance | DestroyComputeInstance,
    change: Callable[[tuple[ComputeInstance, ...]], tuple[ComputeInstance, ...]],
) -> Card:
    instances = tuple(
        replace(each, compute_instances=change(each.compute_instances))
        if (each.profile_id, each.start) == (effect.profile_id, effect.start)
        and not isinstance(each.compute_instances, Unknown)
        else each
        for each in known(card.gpu.gpu_instances) or ()
    )
    return replace(card, gpu=replace(card.gpu, gpu_instances=instances))


def _types_on(card: Card, profile: str) -> frozenset[int]:
    types = supported_types(card) or (card.model.types if card.model else ())
    return frozenset(
        each.type_id for each in types if each.gi_profile == profile and each.type_id is not None
    )

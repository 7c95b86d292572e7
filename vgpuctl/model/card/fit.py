"""Whether one more vGPU fits on a card.

Our rules hold for vGPUs that are only planned; what the hardware says of those that exist narrows them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from vgpuctl import errors
from vgpuctl.errors import FactUnknown, NoCapacity, VgpuctlError
from vgpuctl.model.card.holders import held_refusal
from vgpuctl.model.card.occupancy import (
    Card,
    Occupant,
    free_parents,
    occupancy,
    supported_types,
    with_place,
)
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.frameworks import rules_of
from vgpuctl.model.frameworks.passthrough import PLAIN_VF, WHOLE_GPU
from vgpuctl.model.gpu import FrameworkKind, GpuInstance, GpuState
from vgpuctl.model.types import TypeKind, VgpuType

RM_MAX_VGPUS = 32
RM_MAX_VGPUS_MIG = 48
"""What NVIDIA's resource manager takes on one GPU [OGKM 595 ctrla081.h]."""

USABLE = (GpuState.READY, GpuState.VFS_OFF)
_GIVE_AWAY = (*USABLE, GpuState.NO_TYPES, GpuState.NO_DRIVER)


def creatable_types(card: Card) -> tuple[VgpuType, ...]:
    """The types of which one more fits now."""
    if "creatable" not in card.memo:
        card.memo["creatable"] = tuple(each for each in supported_types(card) if why_not(card, each) is None)
    found: tuple[VgpuType, ...] = card.memo["creatable"]
    return found


def remaining(card: Card, vgpu_type: VgpuType) -> int:
    """How many more vGPUs of that type fit."""
    if why_not(card, vgpu_type) is not None:
        return 0
    if vgpu_type == WHOLE_GPU:
        return 1
    room = _room(card)
    bound = RM_MAX_VGPUS_MIG if room is None else min(room, RM_MAX_VGPUS_MIG)
    place = _place(vgpu_type)
    count = 0
    while count < bound and _limit_refusal(card, vgpu_type) is None:
        card = with_place(card, place)
        count += 1
    return count


def refusal(card: Card, vgpu_type: VgpuType) -> VgpuctlError | None:
    """Why one more vGPU of that type does not fit; None when it does.

    NoCapacity (what occupies the card, what would fit), InvalidGpuState, or FactUnknown.
    """
    error = why_not(card, vgpu_type)
    if not isinstance(error, NoCapacity):
        return error
    fits = [each.name for each in creatable_types(card)]
    occupied = occupancy(card)
    holds = f"; it holds {occupied}" if occupied else ""
    room = f"; what fits: {listed(fits)}" if fits else "; nothing else fits either"
    return NoCapacity(
        f"GPU {card.gpu.address} ({card.gpu.model}) has no room for {vgpu_type.name}: {error}{holds}{room}",
        hint=error.hint,
        **card_facts(card, error),
    )


def card_facts(card: Card, error: VgpuctlError) -> dict[str, Any]:
    """A refusal for programs: which card, why, what occupies it, what would fit."""
    return {
        "gpu": str(card.gpu.address),
        "model": card.gpu.model,
        "reason": str(error),
        "code": error.code,
        "occupied": [
            {"name": each.name, "type": each.type_name, "fb_mib": each.fb_mib, "exists": each.exists}
            for each in card.occupants
        ],
        "fits": [each.name for each in creatable_types(card)],
    }


def why_not(card: Card, vgpu_type: VgpuType) -> VgpuctlError | None:
    """The first rule that stands against one more, in few words."""
    if vgpu_type == WHOLE_GPU:
        return _whole_gpu_refusal(card)
    state = state_refusal(card)
    if state is not None:
        return state
    if any(each.type_name == WHOLE_GPU.name for each in card.occupants):
        return NoCapacity("it is given away as a whole")
    return _parent_refusal(card) or _limit_refusal(card, vgpu_type)


def _limit_refusal(card: Card, vgpu_type: VgpuType) -> VgpuctlError | None:
    rules = (_mode_refusal, _size_refusal, _count_refusal, _hardware_refusal)
    return next((error for rule in rules if (error := rule(card, vgpu_type)) is not None), None)


def state_refusal(card: Card) -> VgpuctlError | None:
    """Why nothing at all can be created on a card in this state."""
    gpu = card.gpu
    if gpu.state not in USABLE:
        return errors.InvalidGpuState(
            f"GPU {gpu.address} is {gpu.state}" + (f": {gpu.state_reason}" if gpu.state_reason else ""),
            gpu=str(gpu.address),
            state=str(gpu.state),
        )
    if gpu.state is GpuState.VFS_OFF and not card.vfs_on:
        return held_refusal(gpu, "its VFs cannot be turned on")
    return None


def _whole_gpu_refusal(card: Card) -> VgpuctlError | None:
    if card.gpu.state not in _GIVE_AWAY:
        return state_refusal(card)
    if card.occupants:
        return NoCapacity("it has to be empty to be given away as a whole")
    if card.vfs_on:
        # A PF that loses its driver while VFs are on can take the host down [xenopsd PR 689].
        return NoCapacity("its VFs are on", hint="turn its VFs off first")
    return held_refusal(card.gpu, "it cannot be given away")


def _parent_refusal(card: Card) -> VgpuctlError | None:
    room = _room(card)
    if room is None or room > 0:
        return None
    return NoCapacity(f"none of its {len(card.gpu.vfs) or _vfs_to_be(card)} VFs is free and ready")


def _room(card: Card) -> int | None:
    """Parents that nobody has or was promised; None where one carries any number (hardware.md 1.3)."""
    gpu = card.gpu
    if gpu.framework is not None and not rules_of(gpu.framework).ONE_VGPU_PER_PARENT:
        return None
    if "room" not in card.memo:
        addresses = {vf.address for vf in gpu.vfs}
        unplaced = sum(each.parent not in addresses for each in card.occupants)
        card.memo["room"] = (len(free_parents(card)) if gpu.vfs else _vfs_to_be(card)) - unplaced
    room: int = card.memo["room"]
    return room


def _vfs_to_be(card: Card) -> int:
    """The VFs that the card will have when they are on."""
    return card.gpu.vfs_max or (card.model.vfs if card.model else 0)


def _mode_refusal(card: Card, vgpu_type: VgpuType) -> VgpuctlError | None:
    """Time-sliced and MIG-backed exclude each other by MIG mode (hardware.md 3.3.4)."""
    if vgpu_type.kind is TypeKind.OTHER:
        return None
    mig = card.gpu.mig
    if isinstance(mig, Unknown):
        if _has_mig(card) and _hardware_says(card, vgpu_type) is None:
            return FactUnknown(f"whether MIG mode is on at GPU {card.gpu.address} is not known: {mig.reason}")
        return None
    if mig and vgpu_type.kind is TypeKind.TIME_SLICED:
        return NoCapacity("MIG mode is on, and time-sliced types need it off")
    if not mig and vgpu_type.kind is TypeKind.MIG_BACKED:
        return NoCapacity(
            "MIG mode is off, and MIG-backed types need it on",
            hint=f"vgpuctl mig apply --gpu {card.gpu.address} --layout '{vgpu_type.name}:1'",
        )
    if mig and _instances(card) is not None:
        return None
    if mig and not card.gpu.vfs:
        return NoCapacity("turning its VFs on leaves it without GPU instances")
    if mig and isinstance(card.gpu.creatable, Unknown):
        return FactUnknown(
            f"what GPU {card.gpu.address} can create in its GPU instances is not known:"
            f" {card.gpu.creatable.reason}"
        )
    return None


def _size_refusal(card: Card, vgpu_type: VgpuType) -> VgpuctlError | None:
    """Equal frame buffer, whatever the type, until the card is empty again (hardware.md 0.2)."""
    if vgpu_type.kind is not TypeKind.TIME_SLICED or vgpu_type.fb_mib is None:
        return None
    others = {each.fb_mib for each in card.occupants} - {vgpu_type.fb_mib}
    if not others:
        return None
    mixed = _mixed_size(card)
    if mixed is True:
        return None
    if None not in others and mixed is False:
        sizes = " and ".join(_gib(each) for each in sorted(others - {None}, key=lambda mib: mib or 0))
        return NoCapacity(f"while it holds {sizes} vGPUs it takes no {_gib(vgpu_type.fb_mib)} ones")
    # What exists is judged by the hardware; a place that is only kept, it knows nothing of.
    exists = {each.fb_mib for each in card.occupants if each.exists}
    if others <= exists and _hardware_says(card, vgpu_type) is not None:
        return None
    if None in others:
        return FactUnknown(f"the frame buffer of a vGPU on GPU {card.gpu.address} is not known")
    return FactUnknown(f"whether mixed-size mode is on at GPU {card.gpu.address} is not known")


def _count_refusal(card: Card, vgpu_type: VgpuType) -> VgpuctlError | None:
    """At most so many on one GPU."""
    total = len(card.occupants)
    match vgpu_type.kind:
        case TypeKind.OTHER:
            same = sum(each.type_name == vgpu_type.name for each in card.occupants)
            return _over(same, vgpu_type.max_per_gpu, vgpu_type)
        case TypeKind.MIG_BACKED:
            return _over(total, RM_MAX_VGPUS_MIG, vgpu_type) or _gi_refusal(card, vgpu_type)
        case TypeKind.TIME_SLICED:
            if _mixed_size(card) is not True:
                limit = vgpu_type.max_per_gpu
                return _over(total, RM_MAX_VGPUS if limit is None else min(limit, RM_MAX_VGPUS), vgpu_type)
            same = sum(each.fb_mib == vgpu_type.fb_mib for each in card.occupants)
            limit = vgpu_type.max_per_gpu_mixed or vgpu_type.max_per_gpu
            return (
                _over(total, RM_MAX_VGPUS, vgpu_type)
                or _over(same, limit, vgpu_type)
                or _full(card, vgpu_type)
            )


def _gi_refusal(card: Card, vgpu_type: VgpuType) -> VgpuctlError | None:
    """GPU instances of one profile: each holds `max_per_gi` vGPUs of one size (hardware.md 3.4.1)."""
    present = _instances(card) if vgpu_type.gi_profile is not None else None
    if present is None and vgpu_type.max_per_gpu is None:
        return None
    per_gi: dict[int | None, int] = {vgpu_type.fb_mib: vgpu_type.max_per_gi or 1}
    sizes = Counter([vgpu_type.fb_mib])
    types = {each.name: each for each in supported_types(card)}
    for each in card.occupants:
        found = types.get(each.type_name)
        if (
            found is not None
            and found.gi_profile == vgpu_type.gi_profile
            and found.kind is TypeKind.MIG_BACKED
        ):
            per_gi.setdefault(found.fb_mib, found.max_per_gi or 1)
            sizes[found.fb_mib] += 1
    if present is None:
        instances = (vgpu_type.max_per_gpu or 0) // (vgpu_type.max_per_gi or 1)
    else:
        instances = sum(each.profile == vgpu_type.gi_profile for each in present)
    needed = sum(-(-count // per_gi[size]) for size, count in sizes.items())
    if needed <= instances:
        return None
    if present is not None and not instances:
        return NoCapacity(
            f"it has no GPU instance {vgpu_type.gi_profile}",
            hint=f"what it takes to cut one: vgpuctl mig plan --gpu {card.gpu.address} --layout "
            f"'{vgpu_type.name}:1'; mig apply does it",
        )
    return NoCapacity(f"its {instances} GPU instances for {vgpu_type.name} are full")


def _instances(card: Card) -> tuple[GpuInstance, ...] | None:
    """The GPU instances of a card in MIG mode; none while VFs have yet to be turned on.

    None where the driver was not asked or did not say.
    """
    if isinstance(card.gpu.gpu_instances, Unknown):
        return None
    return card.gpu.gpu_instances if card.vfs_on else ()


def _full(card: Card, vgpu_type: VgpuType) -> VgpuctlError | None:
    """In mixed-size mode the sizes have to add up to what one size alone can fill."""
    fillable = max(
        (each.fb_mib or 0) * (each.max_per_gpu or 0) for each in (vgpu_type, *supported_types(card))
    )
    used = sum(each.fb_mib or 0 for each in card.occupants)
    if used + (vgpu_type.fb_mib or 0) <= fillable:
        return None
    return NoCapacity(f"{_gib(used)} of its {_gib(fillable)} are taken")


def _hardware_refusal(card: Card, vgpu_type: VgpuType) -> VgpuctlError | None:
    if _hardware_says(card, vgpu_type) is not False:
        return None
    creatable = known(card.gpu.creatable) or frozenset()
    names = [each.name for each in supported_types(card) if each.type_id in creatable]
    return NoCapacity(f"the driver takes {'only ' + listed(names) if names else 'no type'} now")


def _hardware_says(card: Card, vgpu_type: VgpuType) -> bool | None:
    """The hardware's own word on one more, given what exists; None where it was not asked."""
    if (
        isinstance(card.gpu.creatable, Unknown)
        or vgpu_type.type_id is None
        or vgpu_type in (PLAIN_VF, WHOLE_GPU)
    ):
        return None
    return vgpu_type.type_id in card.gpu.creatable


def _mixed_size(card: Card) -> bool | None:
    """Whether mixed-size mode is on; None where that is not known.  SR-IOV only (hardware.md 3.4.3)."""
    if not isinstance(card.gpu.mixed_size, Unknown):
        return card.gpu.mixed_size
    if card.gpu.framework is FrameworkKind.MDEV or (card.model is not None and not card.model.mixed_size):
        return False
    exists = {each.fb_mib for each in card.occupants if each.exists}
    return True if len(exists - {None}) > 1 else None


def _has_mig(card: Card) -> bool:
    if card.model is not None:
        return card.model.mig
    return any(each.kind is TypeKind.MIG_BACKED for each in supported_types(card))


def _place(vgpu_type: VgpuType) -> Occupant:
    return Occupant(
        name="",
        type_name=vgpu_type.name,
        type_id=vgpu_type.type_id,
        fb_mib=vgpu_type.fb_mib,
        parent=None,
        vgpu=None,
        exists=False,
    )


def _over(count: int, limit: int | None, vgpu_type: VgpuType) -> VgpuctlError | None:
    if limit is None or count < limit:
        return None
    return NoCapacity(f"it takes at most {limit} of {vgpu_type.name}")


def listed(names: list[str], at_most: int = 6) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {more} more" if more > 0 else "")


def _gib(mib: int | None) -> str:
    if mib is None:
        return "unknown"
    return f"{mib} MiB" if mib % 1024 else f"{mib // 1024} GiB"

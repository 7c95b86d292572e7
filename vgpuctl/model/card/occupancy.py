"""What has a place on a card: the vGPUs that exist, and the places kept for others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from vgpuctl.model.allocation import Allocation, GpuIdentity
from vgpuctl.model.catalog import NVIDIA, GpuModel
from vgpuctl.model.fact import known
from vgpuctl.model.frameworks import rules_of
from vgpuctl.model.frameworks.passthrough import PLAIN_VF, WHOLE_GPU
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import FrameworkKind, Gpu, GpuState, ObservedVgpu
from vgpuctl.model.pci import GpuAddress, PciAddress
from vgpuctl.model.types import VgpuType


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """A vGPU that exists on a card, or (`exists` false) a place that is kept for one.

    `vgpu` is our allocation's id, None for somebody else's.  `parent` is None for a place on a card
    whose VFs were off when it was chosen.  `instance` is the GPU instance that it is on, or is to be on;
    None where nobody tells.
    """

    name: str
    type_name: str
    type_id: int | None
    fb_mib: int | None
    parent: GpuAddress | None
    vgpu: UUID | None
    exists: bool
    instance: GiPlace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A GPU with everything that has a place on it.

    `vfs_on` says whether its VFs are on, or will be when a plan has come this far; only a fresh
    observation knows which VFs those are.
    """

    gpu: Gpu
    model: GpuModel | None
    occupants: tuple[Occupant, ...]
    vfs_on: bool
    memo: dict[str, Any] = field(init=False, default_factory=dict, compare=False, repr=False)
    """Answers already worked out; a changed card begins with none."""


def card_of(gpu: Gpu, model: GpuModel | None, allocations: Iterable[Allocation], boot_id: str) -> Card:
    """The card at `gpu`: the vGPUs that exist, and the places kept on it for others."""
    known_allocations = tuple(allocations)
    card = Card(gpu=gpu, model=model, occupants=(), vfs_on=bool(gpu.vfs))
    owned: set[UUID] = set()
    occupants = []
    for vgpu in gpu.vgpus:
        owns = rules_of(vgpu.framework).owns
        owner = next((each for each in known_allocations if owns(each, vgpu, boot_id)), None)
        if owner is not None:
            owned.add(owner.id)
        occupants.append(_occupant_of(card, vgpu, owner))
    occupants += [
        Occupant(
            name=each.name,
            type_name=each.type_name,
            type_id=each.type_id,
            fb_mib=each.fb_mib,
            parent=each.parent,
            vgpu=each.id,
            # Passthrough leaves no trace in the kernel: what was given away in this boot is there.
            exists=each.framework is FrameworkKind.PASSTHROUGH and each.created_boot == boot_id,
            instance=each.instance,
        )
        for each in known_allocations
        if each.id not in owned and stands_on(each.gpu, gpu)
    ]
    return replace(card, occupants=tuple(occupants))


def stands_on(identity: GpuIdentity, gpu: Gpu) -> bool:
    """Whether `identity` means this GPU: by UUID where both are known, else by address and ids."""
    uuid = known(gpu.uuid)
    if uuid is not None and identity.uuid is not None:
        return uuid == identity.uuid
    return identity.address == gpu.address and identity.device == gpu.device


def supported_types(card: Card) -> tuple[VgpuType, ...]:
    """The types of a card whatever stands on it: the hardware's; the catalogue's while VFs are off."""
    if card.gpu.types:
        return card.gpu.types
    if card.gpu.state is GpuState.VFS_OFF and card.model is not None:
        return card.model.types
    if card.gpu.framework is FrameworkKind.PASSTHROUGH or _offers_plain_vfs(card.gpu):
        return (PLAIN_VF,)
    return ()


def type_named(card: Card, name: str) -> VgpuType | None:
    """The type of that name on this card, in any case; `whole-gpu` is one on every PCI GPU.

    A card that shows no types now (no driver, parked) has the catalogue's, so that a refusal can say
    what is wrong with the card.
    """
    folded = name.casefold()
    if folded == WHOLE_GPU.name and isinstance(card.gpu.address, PciAddress):
        return WHOLE_GPU
    types = supported_types(card) or (card.model.types if card.model else ())
    return next((each for each in types if each.name.casefold() == folded), None)


def type_of(card: Card, type_id: int | None, type_name: str) -> VgpuType | None:
    """The type of that id, else of that name; the catalogue is asked after the hardware."""
    types = (*supported_types(card), *(card.model.types if card.model else ()))
    by_id = next((each for each in types if type_id is not None and each.type_id == type_id), None)
    if by_id is not None and type_id != WHOLE_GPU.type_id:
        return by_id
    if type_name == WHOLE_GPU.name:
        return type_named(card, type_name)
    return next((each for each in types if each.name == type_name), None)


def free_parents(card: Card) -> tuple[GpuAddress, ...]:
    """Where a vGPU could stand: the PF, or each ready VF without one; none while VFs are off."""
    if card.gpu.framework is None:
        return ()
    rules = rules_of(card.gpu.framework)
    if not rules.ONE_VGPU_PER_PARENT:
        return rules.parents(card.gpu)
    if "free" not in card.memo:
        taken = {each.parent for each in card.occupants}
        card.memo["free"] = tuple(each for each in rules.parents(card.gpu) if each not in taken)
    found: tuple[GpuAddress, ...] = card.memo["free"]
    return found


def occupancy(card: Card) -> str:
    """`3 x L40S-8Q (1 of them reserved)`, for people; '' for an empty card."""
    counts = Counter(each.type_name for each in card.occupants)
    reserved = Counter(each.type_name for each in card.occupants if not each.exists)
    return ", ".join(
        f"{count} x {name}" + (f" ({reserved[name]} of them reserved)" if reserved[name] else "")
        for name, count in sorted(counts.items())
    )


def exists(card: Card, vgpu_id: UUID) -> bool:
    """Whether our vGPU of that id exists on the card."""
    return any(each.vgpu == vgpu_id and each.exists for each in card.occupants)


def with_place(card: Card, occupant: Occupant) -> Card:
    """The card with one more place taken."""
    return replace(card, occupants=(*card.occupants, occupant))


def placed(card: Card, allocation: Allocation) -> Card:
    """The card with a place kept for an allocation."""
    occupant = Occupant(
        name=allocation.name,
        type_name=allocation.type_name,
        type_id=allocation.type_id,
        fb_mib=allocation.fb_mib,
        parent=allocation.parent,
        vgpu=allocation.id,
        exists=False,
        instance=allocation.instance,
    )
    return with_place(card, occupant)


def without(card: Card, vgpu_id: UUID) -> Card:
    """The card without our vGPU of that id, or the place kept for it."""
    return replace(card, occupants=tuple(each for each in card.occupants if each.vgpu != vgpu_id))


def instance_of(vgpu: ObservedVgpu, gpu: Gpu) -> GiPlace | None:
    """The GPU instance that a vGPU stands on, as its VF tells; None where nobody does."""
    number = vgpu.gpu_instance_id
    for each in known(gpu.gpu_instances) or ():
        if isinstance(number, int) and each.id == number:
            return each.place
    return None


def _occupant_of(card: Card, vgpu: ObservedVgpu, owner: Allocation | None) -> Occupant:
    type_id, type_name = known(vgpu.type_id), known(vgpu.type_name)
    vgpu_type = type_of(card, type_id, type_name or "")
    return Occupant(
        name=owner.name if owner else str(vgpu.mdev_uuid or vgpu.parent),
        type_name=type_name or (vgpu_type.name if vgpu_type else "a vGPU of unknown type"),
        type_id=type_id,
        fb_mib=vgpu_type.fb_mib if vgpu_type else (owner.fb_mib if owner else None),
        parent=vgpu.parent,
        vgpu=owner.id if owner else None,
        exists=True,
        instance=instance_of(vgpu, card.gpu),
    )


def _offers_plain_vfs(gpu: Gpu) -> bool:
    return gpu.device.vendor != NVIDIA and gpu.vfs_max > 0

"""What a document's MIG wish comes to on a card: the change of mode, and the effects on its GPU instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Union

from vgpuctl import errors
from vgpuctl.model.card import Card, supported_types
from vgpuctl.model.card.instances import has_nvswitch, instances_of, no_mig, resets
from vgpuctl.model.catalog import NVIDIA, Catalog
from vgpuctl.model.document import ComputeWish, MigWish
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import ComputeInstance, Gpu, GpuInstance
from vgpuctl.model.mig.compute import checked, is_ours, sharing
from vgpuctl.model.mig.geometry import Geometry
from vgpuctl.model.mig.solver import Layout
from vgpuctl.model.mig.wish import layout_for, standing_on
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.plan import GpuLayout
from vgpuctl.model.situation import Situation, identity_of
from vgpuctl.model.step import (
    CreateComputeInstance,
    CreateGpuInstance,
    DestroyComputeInstance,
    DestroyGpuInstance,
    SetMigMode,
)

MigEffect = Union[DestroyComputeInstance, DestroyGpuInstance, CreateGpuInstance, CreateComputeInstance]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The way from the instances that stand to those that are wished."""

    layout: Layout
    geometry: Geometry
    from_hardware: bool
    effects: tuple[MigEffect, ...]
    compute: tuple[ComputeWish, ...] = ()

    def told(self, gpu: Gpu, *, later: bool) -> GpuLayout:
        """The layout as a plan shows it; `later`, what stands goes on the way there."""
        layout = self.layout
        if later:
            gone = tuple(sorted(each.place for each in known(gpu.gpu_instances) or ()))
            layout = Layout(destroyed=gone, created=layout.places)
        return GpuLayout(
            gpu=gpu.address,
            slices=self.geometry.memory_slices,
            layout=layout,
            from_hardware=self.from_hardware,
            compute=self.compute,
        )


def mode_change(
    situation: Situation, cards: Mapping[GpuAddress, Card], address: GpuAddress, *, enabled: bool
) -> SetMigMode:
    """The change of a card's MIG mode; raises what is against it, with the desktops on the card."""
    card = cards[address]
    gpu = card.gpu
    effect = SetMigMode(
        gpu=identity_of(gpu),
        enabled=enabled,
        resets=resets(card),
        nvswitch=resets(card) and has_nvswitch(card),
    )
    if isinstance(gpu.mig, Unknown):
        raise errors.FactUnknown(
            f"whether MIG mode is on at GPU {gpu.address} is not known: {gpu.mig.reason}"
        )
    if card.model is not None and not card.model.mig:
        raise no_mig(gpu)
    word = "on" if enabled else "off"
    there = [each.name for each in card.occupants if each.exists]
    if there:
        told = named(situation, card)
        wished = situation.wishes.vgpus()
        domains = {wished[name].domain for name in there if name in wished}
        carried = ", ".join(told[name] for name in there)
        raise errors.VgpuBusy(
            f"MIG mode of GPU {gpu.address} cannot be turned {word}: it carries {carried}",
            hint="move them to another GPU or delete them first",
            gpu=str(gpu.address),
            vgpus=there,
            domains=sorted(domain for domain in domains if domain),
        )
    if effect.nvswitch:
        _refuse_neighbours(card, cards)
    return effect


def named(situation: Situation, card: Card) -> dict[str, str]:
    """Every occupant of a card by name, with its domain, for people."""
    wished = situation.wishes.vgpus()
    users = {name: wish.domain for name, wish in wished.items() if wish.domain is not None}
    names = [each.name for each in card.occupants]
    return {name: f"{name} (domain {users[name]})" if name in users else name for name in names}


def cutting(situation: Situation, card: Card, wish: MigWish) -> Cut:
    """The least change of a card's instances to those that are wished; raises where there is none."""
    gpu = card.gpu
    instances = instances_of(card)
    if isinstance(instances, errors.VgpuctlError):
        raise instances
    geometry, from_hardware = geometry_of(card, situation.catalog)
    ours = situation.compute_of(gpu)
    wished = checked(gpu, wish.compute, geometry)
    told = named(situation, card)
    names = {each.parent: told[each.name] for each in card.occupants if each.parent is not None}
    types = (*supported_types(card), *(card.model.types if card.model else ()))
    # Compute instances of ours go first, and hold nothing up.
    bare = [replace(each, compute_instances=()) if is_ours(each, ours) else each for each in instances]
    layout = layout_for(gpu, wish, geometry, types, standing_on(gpu, bare, names))
    if from_hardware and not layout.destroyed and instances == known(gpu.gpu_instances):
        _check_remaining(gpu, geometry, layout)
    by_place = {each.place: each for each in instances}
    former = situation.compute_before(gpu)
    shares = [
        (each, sharing(gpu, each, None, ours, is_new_wish=True))
        for each in (by_place[place] for place in layout.destroyed)
    ]
    shares += [
        (
            each,
            sharing(gpu, each, wished.get(place), ours, is_new_wish=wished.get(place) != former.get(place)),
        )
        for place in layout.kept
        for each in (by_place[place],)
    ]
    effects: list[MigEffect] = [
        _destroy_compute(gpu, instance, each) for instance, share in shares for each in share.destroyed
    ]
    effects += [_destroy(gpu, by_place[each]) for each in layout.destroyed]
    effects += [_create(gpu, geometry, each) for each in layout.created]
    effects += [
        _create_compute(gpu, instance.place, instance.profile_id, profile, number)
        for instance, share in shares
        for profile, number in share.created
    ]
    for place in layout.created:
        new = planned_instance(geometry, place)
        share = sharing(gpu, new, wished.get(place), ours, is_new_wish=True)
        effects += [
            _create_compute(gpu, place, new.profile_id, profile, number) for profile, number in share.created
        ]
    return Cut(
        layout=layout,
        geometry=geometry,
        from_hardware=from_hardware,
        effects=tuple(effects),
        compute=wish.compute,
    )


def clearing(situation: Situation, card: Card) -> tuple[DestroyComputeInstance, ...]:
    """What has to go before the GPU instances do as a whole: every compute instance that is ours.

    Raises VgpuBusy where a guest runs on one.  Those of others are left, and stand in the way.
    """
    instances = instances_of(card)
    if isinstance(instances, errors.VgpuctlError):
        return ()
    ours = situation.compute_of(card.gpu)
    found = []
    for each in instances:
        if is_ours(each, ours):
            share = sharing(card.gpu, each, Counter(), ours, is_new_wish=True)
            found += [_destroy_compute(card.gpu, each, gone) for gone in share.destroyed]
    return tuple(found)


def emptying(card: Card) -> tuple[DestroyGpuInstance, ...]:
    """Every GPU instance that is left when VFs are off: the mode is refused with one (hardware.md 3.3.7)."""
    instances = instances_of(card)
    if isinstance(instances, errors.VgpuctlError):
        return ()
    return tuple(_destroy(card.gpu, each) for each in instances)


def geometry_of(card: Card, catalog: Catalog) -> tuple[Geometry, bool]:
    """The placements by the driver's word (True), else by the catalogue's; raises UnsupportedHere."""
    said = Geometry.of(known(card.gpu.gi_profiles) or ())
    if said.profiles:
        return said, True
    listed = Geometry.of(catalog.mig_profiles(card.model) if card.model is not None else ())
    if not listed.profiles:
        raise errors.UnsupportedHere(
            f"which GPU instances GPU {card.gpu.address} ({card.gpu.model}) can have is not known",
            hint="turn MIG mode on first: the driver says it then",
            gpu=str(card.gpu.address),
        )
    return listed, False


def _check_remaining(gpu: Gpu, geometry: Geometry, layout: Layout) -> None:
    """The driver's own count of what still fits wins over ours."""
    for name, count in Counter(each.profile for each in layout.created).items():
        profile = geometry.profile(name)
        remaining = profile.remaining if profile is not None else None
        if remaining is not None and count > remaining:
            raise errors.NoCapacity(
                f"GPU {gpu.address}: the driver has room for {remaining} more {name}, not for {count}",
                gpu=str(gpu.address),
            )


def _refuse_neighbours(card: Card, cards: Mapping[GpuAddress, Card]) -> None:
    """GPUs on NVSwitch are reset together: the host has to be drained."""
    busy = [
        str(other.gpu.address)
        for other in cards.values()
        if other.gpu.address != card.gpu.address
        and other.gpu.device.vendor == NVIDIA
        and (other.gpu.vgpus or other.gpu.holders != () or not other.gpu.is_readable)
    ]
    if busy:
        raise errors.InvalidGpuState(
            f"MIG mode of GPU {card.gpu.address} needs a reset, which takes the GPUs beside it along: "
            f"{', '.join(busy)} are in use",
            hint="stop every desktop of this host first",
            gpu=str(card.gpu.address),
            busy=busy,
        )


def _destroy(gpu: Gpu, instance: GpuInstance) -> DestroyGpuInstance:
    assert instance.id is not None, "only what was observed is destroyed"
    return DestroyGpuInstance(
        gpu=identity_of(gpu),
        instance=instance.id,
        profile=instance.profile,
        profile_id=instance.profile_id,
        start=instance.start,
        size=instance.size,
    )


def planned_instance(geometry: Geometry, place: GiPlace) -> GpuInstance:
    """A GPU instance that is to be."""
    profile = geometry.profile(place.profile)
    assert profile is not None
    return GpuInstance(
        id=None,
        profile=profile.name,
        profile_id=profile.gi_profile_id,
        start=place.start,
        size=profile.size or 0,
    )


def _create(gpu: Gpu, geometry: Geometry, place: GiPlace) -> CreateGpuInstance:
    new = planned_instance(geometry, place)
    return CreateGpuInstance(
        gpu=identity_of(gpu), profile=new.profile, profile_id=new.profile_id, start=new.start, size=new.size
    )


def _create_compute(
    gpu: Gpu, place: GiPlace, profile_id: int, compute: str, number: int
) -> CreateComputeInstance:
    return CreateComputeInstance(
        gpu=identity_of(gpu),
        profile=place.profile,
        profile_id=profile_id,
        start=place.start,
        compute=compute,
        number=number,
    )


def _destroy_compute(gpu: Gpu, instance: GpuInstance, compute: ComputeInstance) -> DestroyComputeInstance:
    assert instance.id is not None, "only what was observed is destroyed"
    assert compute.id is not None, "only what was observed is destroyed"
    return DestroyComputeInstance(
        gpu=identity_of(gpu),
        instance=instance.id,
        profile=instance.profile,
        profile_id=instance.profile_id,
        start=instance.start,
        compute=compute.profile,
        compute_id=compute.id,
    )

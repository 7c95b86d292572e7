"""Compute instances: shares of a GPU instance's compute slices, made only where a document asks for them.

For vGPUs the guest's driver makes its own; those of the host are for layouts that are shared out in
advance.  Under a running guest they are the guest's affair (hardware.md 3.3.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vgpuctl import errors
from vgpuctl.model.document import ComputeWish, GpuDocument, MigWish
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.giprofile import GiPlace, compute_slices
from vgpuctl.model.gpu import ComputeInstance, Gpu, GpuInstance, ObservedVgpu
from vgpuctl.model.mig.geometry import Geometry

Ours = Mapping[GiPlace, Counter[str]]
"""What may be destroyed: at most so many compute instances of each profile, by GPU instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How those of one GPU instance change; `created` are profiles, each with its number afterwards."""

    destroyed: tuple[ComputeInstance, ...] = ()
    created: tuple[tuple[str, int], ...] = ()


def asked_for(documents: Iterable[GpuDocument]) -> dict[GiPlace, Counter[str]]:
    """What these documents ask for, the most of each where several do."""
    found: dict[GiPlace, Counter[str]] = {}
    for document in documents:
        for each in document.mig.compute if document.mig is not None else ():
            found[each.place] = found.get(each.place, Counter()) | Counter(dict(each.counts))
    return found


def may_stand_on(vgpu: ObservedVgpu, instance: GpuInstance, profiles: Mapping[int, str | None]) -> bool:
    """Whether a vGPU stands on an instance, as its VF tells; where that does not, whether it may.

    `profiles` are the GPU-instance profiles of the types, by their id.
    """
    if isinstance(vgpu.gpu_instance_id, int):
        return vgpu.gpu_instance_id == instance.id
    type_id = known(vgpu.type_id)
    profile = profiles.get(type_id) if type_id is not None else None
    return profile in (None, instance.profile)


def guests_on(gpu: Gpu, instance: GpuInstance) -> tuple[ObservedVgpu, ...]:
    """The vGPUs on an instance, or perhaps on it, that somebody has open, or may have."""
    profiles = {each.type_id: each.gi_profile for each in gpu.types if each.type_id is not None}
    return tuple(each for each in gpu.vgpus if each.holders != () and may_stand_on(each, instance, profiles))


def computes_as_wished(gpu: Gpu, wish: MigWish) -> bool:
    """Whether the compute instances are as wished; unreadable ones, and a running guest's, count as it."""
    wished = {each.place: Counter(dict(each.counts)) for each in wish.compute}
    return all(
        isinstance(each.compute_instances, Unknown)
        or each.place not in wished
        or +wished[each.place] == profiles_of(each)
        or bool(guests_on(gpu, each))
        for each in known(gpu.gpu_instances) or ()
    )


def profiles_of(instance: GpuInstance) -> Counter[str]:
    """How many compute instances of each profile it has; none where that cannot be read."""
    return Counter(each.profile for each in known(instance.compute_instances) or ())


def is_ours(instance: GpuInstance, ours: Ours) -> bool:
    """Whether all its compute instances are known, and ours."""
    if isinstance(instance.compute_instances, Unknown):
        return False
    return profiles_of(instance) <= ours.get(instance.place, Counter())


def checked(gpu: Gpu, wishes: Iterable[ComputeWish], geometry: Geometry) -> dict[GiPlace, Counter[str]]:
    """The wishes by place, with the profiles as the GPU calls them; InvalidInput for what cannot be."""
    found: dict[GiPlace, Counter[str]] = {}
    for wish in wishes:
        profile = geometry.profile(wish.place.profile)
        if profile is None:
            continue  # the layout says what is wrong with it
        place = GiPlace(wish.place.start, profile.name)
        taken = 0
        counts: Counter[str] = Counter()
        for name, count in wish.counts:
            folded = name.lower()
            slices = compute_slices(folded, profile.name, profile.slices)
            if slices is None:
                parts = ", ".join(f"{number}c.{profile.name}" for number in range(1, profile.slices))
                raise errors.InvalidInput(
                    f"{place} of GPU {gpu.address} has no compute-instance profile {name}",
                    hint=f"{profile.name} is shared out into {parts + ', or ' if parts else ''}"
                    f"{profile.name} as a whole",
                )
            counts[folded] += count
            taken += slices * count
        if taken > profile.slices:
            raise errors.NoCapacity(
                f"{place} of GPU {gpu.address} has {profile.slices} compute slices, and {taken} are wished",
                gpu=str(gpu.address),
            )
        found[place] = +counts
    return found


def shared_out(
    gpu: Gpu, wanted: Iterable[tuple[str, int]], geometry: Geometry
) -> list[tuple[str, tuple[tuple[str, int], ...]]]:
    """The fewest GPU instances that have room for these compute instances: each with its profile and shares.

    The largest go first into the first that has room.  Raises InvalidInput for what the GPU does not have.
    """
    found: list[tuple[str, int, Counter[str]]] = []
    sizes = []
    for name, count in wanted:
        profile = geometry.profile(name.partition("c.")[2])
        slices = compute_slices(name.lower(), profile.name, profile.slices) if profile is not None else None
        if profile is None or slices is None:
            raise errors.InvalidInput(
                f"GPU {gpu.address} ({gpu.model}) has no compute-instance profile {name}",
                hint=f"its GPU instances are {', '.join(each.name for each in geometry.profiles)}",
            )
        sizes += [(profile, slices, name.lower())] * count
    for profile, slices, name in sorted(sizes, key=lambda each: -each[1]):
        for index, (parent, room, shares) in enumerate(found):
            if parent == profile.name and room >= slices:
                shares[name] += 1
                found[index] = (parent, room - slices, shares)
                break
        else:
            found.append((profile.name, profile.slices - slices, Counter({name: 1})))
    return [(parent, tuple(sorted(shares.items()))) for parent, _, shares in found]


def sharing(
    gpu: Gpu, instance: GpuInstance, wanted: Counter[str] | None, ours: Ours, *, is_new_wish: bool
) -> Sharing:
    """The least change of an instance's compute instances; `wanted` None asks for none, and of nobody's.

    Raises FactUnknown, VgpuForeign where somebody else's would have to go, and VgpuBusy under a
    guest, unless the wish is an old one: then what the guest made of it stays.
    """
    where = f"GPU instance {instance.place} of GPU {gpu.address}"
    if isinstance(instance.compute_instances, Unknown):
        if wanted is None:
            return Sharing()
        raise errors.FactUnknown(
            f"which compute instances {where} has is not known: {instance.compute_instances.reason}"
        )
    have, mine = profiles_of(instance), ours.get(instance.place, Counter())
    surplus = have - (wanted or Counter())
    others = surplus - mine
    surplus -= others
    missing = (wanted or Counter()) - have
    if not surplus and not missing and not (wanted is not None and others):
        return Sharing()
    if guests := guests_on(gpu, instance):
        if wanted is None or not is_new_wish:
            return Sharing()
        raise errors.VgpuBusy(
            f"the compute instances of {where} cannot be changed: a guest runs on it, or may",
            hint="shut it down first; it can cut its share by itself, too",
            gpu=str(gpu.address),
            vgpus=[str(each.mdev_uuid or each.parent) for each in guests],
        )
    if wanted is not None and others:
        raise errors.VgpuForeign(
            f"{where} has compute instances that vgpuctl did not make: {', '.join(sorted(others))}",
            hint=f"ask for them in its document too, or destroy them: "
            f"nvidia-smi mig -dci -gi {instance.id} -i {gpu.address}",
            gpu=str(gpu.address),
        )
    going = []
    for each in reversed(instance.compute_instances):
        if surplus[each.profile] > 0:
            surplus[each.profile] -= 1
            going.append(each)
    left = have - Counter(each.profile for each in going)
    created = [
        (name, left[name] + number + 1) for name, count in sorted(missing.items()) for number in range(count)
    ]
    # The large ones first: the driver places them, and small ones could be in their way.
    created.sort(key=lambda each: -compute_size(each[0], instance))
    return Sharing(destroyed=tuple(going), created=tuple(created))


def compute_size(name: str, instance: GpuInstance) -> int:
    """An order of compute-instance profiles by size; the whole is the largest."""
    number, is_part, _ = name.partition("c.")
    return int(number) if is_part and name != instance.profile else 99

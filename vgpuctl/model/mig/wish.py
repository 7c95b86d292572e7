"""From what a document says of MIG to a layout of GPU instances; what is wrong with it, in one message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from vgpuctl import errors
from vgpuctl.model.document import MigWish
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import Gpu, GpuInstance
from vgpuctl.model.mig.compute import computes_as_wished
from vgpuctl.model.mig.geometry import Geometry
from vgpuctl.model.mig.solver import Impossible, Layout, Standing, solve, solve_places
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.typename import nearest
from vgpuctl.model.types import TypeKind, VgpuType


def layout_for(
    gpu: Gpu, wish: MigWish, geometry: Geometry, types: Sequence[VgpuType], standing: Sequence[Standing]
) -> Layout:
    """The layout that `wish` comes to, with the least change of what stands.

    Raises InvalidInput for what cannot be meant, TypeUnknown for a type that the GPU does not have,
    and NoCapacity where it has no room, with what fits and what is in the way.
    """
    found: Layout | Impossible
    if wish.instances is not None:
        places = _places(gpu, wish.instances, geometry)
        found = solve_places(geometry, places, standing)
        wanted = Counter(each.profile for each in places)
    else:
        if wish.profiles is not None:
            wanted = Counter({_profile(gpu, name, geometry): count for name, count in wish.profiles})
        else:
            wanted = instances_for(gpu, wish.vgpus or (), types)
            for name in wanted:
                _profile(gpu, name, geometry)
        found = solve(geometry, wanted, standing, keep_more=wish.vgpus is not None)
    if isinstance(found, Impossible):
        asked = told(Counter(dict(wish.vgpus or ())))
        raise _impossible(gpu, wanted, found, f"{asked}, which take {told(wanted)}" if wish.vgpus else None)
    return found


def instances_for(gpu: Gpu, vgpus: Iterable[tuple[str, int]], types: Sequence[VgpuType]) -> Counter[str]:
    """How many instances of each profile it takes for these vGPUs.

    Several share one where it is time-sliced, if their frame buffers have one size (hardware.md 3.4.1).
    """
    sizes: Counter[tuple[str, int | None]] = Counter()
    per_instance: dict[tuple[str, int | None], int] = {}
    for name, count in vgpus:
        vgpu_type = _type(gpu, name, types)
        if vgpu_type.gi_profile is None:
            raise errors.FactUnknown(f"which GPU-instance profile {vgpu_type.name} needs is not known")
        key = (vgpu_type.gi_profile, vgpu_type.fb_mib)
        sizes[key] += count
        most = vgpu_type.max_per_gi or 1
        per_instance[key] = min(per_instance.get(key, most), most)
    found: Counter[str] = Counter()
    for key, count in sizes.items():
        found[key[0]] += -(-count // per_instance[key])
    return found


def is_met(wish: MigWish, gpu: Gpu) -> bool:
    """Whether the card is as wished, as far as it can be read; what cannot be read counts as met."""
    if isinstance(gpu.mig, Unknown):
        return True
    if gpu.mig != wish.enabled:
        return False
    instances = known(gpu.gpu_instances)
    if not wish.enabled or instances is None:
        return True
    have = Counter(each.profile for each in instances)
    if wish.instances is not None:
        return {each.place for each in instances} == set(wish.instances) and computes_as_wished(gpu, wish)
    if wish.profiles is not None:
        return have == Counter({name: count for name, count in wish.profiles if count})
    try:
        return instances_for(gpu, wish.vgpus or (), gpu.types) <= have
    except errors.VgpuctlError:
        return True


def has_unwished(wish: MigWish, gpu: Gpu) -> bool:
    """Whether instances stand there that the layout does not have; one for vGPUs keeps what is more.

    Compute instances that are not as wished may have to go: then there are some.
    """
    instances = known(gpu.gpu_instances) or ()
    if wish.instances is not None:
        places = {each.place for each in instances}
        is_cut = places == set(wish.instances)
        return not places <= set(wish.instances) or (
            is_cut and any(known(e.compute_instances) for e in instances)
        )
    if wish.profiles is not None:
        return not Counter(each.profile for each in instances) <= Counter(dict(wish.profiles))
    return False


def standing_on(
    gpu: Gpu, instances: Sequence[GpuInstance], names: Mapping[GpuAddress, str] | None = None
) -> list[Standing]:
    """The instances, each with whoever stands on it; `names` are vGPUs by their parent.

    A vGPU whose instance cannot be read may stand on any of its profile, or of all.
    """
    profiles = {each.type_id: each.gi_profile for each in gpu.types if each.type_id is not None}
    holders: dict[int | None, str] = {}
    anywhere: list[tuple[str | None, str]] = []
    for vgpu in gpu.vgpus:
        text = f"vGPU {(names or {}).get(vgpu.parent) or vgpu.mdev_uuid or vgpu.parent}"
        if isinstance(vgpu.gpu_instance_id, int):
            holders.setdefault(vgpu.gpu_instance_id, text)
        else:
            type_id = known(vgpu.type_id)
            anywhere.append((profiles.get(type_id) if type_id is not None else None, f"perhaps {text}"))
    found = []
    for each in instances:
        held_by = holders.get(each.id) if each.id is not None else None
        if held_by is None and isinstance(each.compute_instances, Unknown):
            held_by = f"perhaps a compute instance ({each.compute_instances.reason})"
        elif held_by is None and each.compute_instances:
            held_by = "compute instances that vgpuctl did not make"
        if held_by is None:
            held_by = next((text for profile, text in anywhere if profile in (None, each.profile)), None)
        found.append(Standing(each.place, held_by))
    return found


def _places(gpu: Gpu, wished: Iterable[GiPlace], geometry: Geometry) -> list[GiPlace]:
    """Wished places, checked one by one and against each other."""
    places = []
    for each in wished:
        name = _profile(gpu, each.profile, geometry)
        profile = geometry.profile(name)
        assert profile is not None
        if each.start not in profile.starts:
            where = ", ".join(str(start) for start in profile.starts)
            raise errors.InvalidInput(
                f"{name} cannot lie at slice {each.start} of GPU {gpu.address}", hint=f"it can lie at {where}"
            )
        places.append(GiPlace(each.start, name))
    for one, other in combinations(places, 2):
        if geometry.mask(one) & geometry.mask(other):
            raise errors.InvalidInput(f"{one} and {other} overlap on GPU {gpu.address}")
    counts = Counter(each.profile for each in places)
    if not geometry.admits(counts):
        raise errors.NoCapacity(f"GPU {gpu.address} ({gpu.model}) does not take {told(counts)} together")
    return places


def _profile(gpu: Gpu, name: str, geometry: Geometry) -> str:
    profile = geometry.profile(name)
    if profile is not None:
        return profile.name
    names = [each.name for each in geometry.profiles]
    near = nearest(name, names)
    raise errors.InvalidInput(
        f"GPU {gpu.address} ({gpu.model}) has no GPU-instance profile {name}",
        hint=(f"did you mean {' or '.join(near)}? " if near else "") + f"It has {', '.join(names)}",
        near=list(near),
    )


def _type(gpu: Gpu, name: str, types: Sequence[VgpuType]) -> VgpuType:
    folded = name.casefold()
    found = next((each for each in types if each.name.casefold() == folded), None)
    backed = list(dict.fromkeys(each.name for each in types if each.kind is TypeKind.MIG_BACKED))
    if found is None:
        near = nearest(name, backed)
        raise errors.TypeUnknown(
            f"GPU {gpu.address} ({gpu.model}) has no vGPU type {name}",
            hint=f"did you mean {' or '.join(near)}?"
            if near
            else f"its MIG-backed types are {_some(backed)}",
            near=list(near),
        )
    if found.kind is not TypeKind.MIG_BACKED:
        raise errors.InvalidInput(
            f"{found.name} is not MIG-backed: it takes no GPU instance",
            hint=f"such are {_some(backed)}",
        )
    return found


def _some(names: list[str], most: int = 8) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _impossible(gpu: Gpu, wanted: Counter[str], found: Impossible, asked: str | None) -> errors.NoCapacity:
    if found.unwished and sum(dict(found.largest).values()) == wanted.total():
        held = ", ".join(f"{each.place} ({each.held_by})" for each in found.unwished)
        return errors.NoCapacity(
            f"GPU {gpu.address} ({gpu.model}): the layout leaves out {held}, which is in use",
            hint="add it to the layout, or free it first",
            gpu=str(gpu.address),
            largest=dict(found.largest),
            in_the_way=_facts(found.unwished),
        )
    fits = (
        f"; at most {told(Counter(dict(found.largest)))} of it fits" if found.largest else "; none of it fits"
    )
    if found.in_the_way:
        fits += " beside what is in use"
    hint = None
    moving = tuple(dict.fromkeys((*found.unwished, *found.in_the_way)))
    if moving:
        hint = "in the way: " + ", ".join(f"{each.place} ({each.held_by})" for each in moving)
    return errors.NoCapacity(
        f"GPU {gpu.address} ({gpu.model}) has no room for {asked or told(wanted)}{fits}",
        hint=hint,
        gpu=str(gpu.address),
        largest=dict(found.largest),
        in_the_way=_facts(moving),
    )


def _facts(standing: Iterable[Standing]) -> list[dict[str, object]]:
    return [
        {"profile": each.place.profile, "start": each.place.start, "held_by": each.held_by}
        for each in standing
    ]


def told(counts: Counter[str]) -> str:
    """`2 x 2g.20gb and 3 x 1g.10gb`, for people."""
    return " and ".join(f"{count} x {name}" for name, count in sorted(counts.items()) if count) or "nothing"

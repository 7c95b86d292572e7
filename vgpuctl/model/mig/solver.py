"""From one layout of GPU instances to another, with the fewest destroyed.

The axis has at most eight slices, so everything is tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product

from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.mig.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Standing:
    """A GPU instance that exists; `held_by` says who stands on it, None where nobody does.

    One that somebody stands on is never destroyed.
    """

    place: GiPlace
    held_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What stays, what goes and what comes."""

    kept: tuple[GiPlace, ...] = ()
    destroyed: tuple[GiPlace, ...] = ()
    created: tuple[GiPlace, ...] = ()

    @property
    def places(self) -> tuple[GiPlace, ...]:
        """Every instance afterwards."""
        return tuple(sorted((*self.kept, *self.created)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Impossible:
    """Why a layout cannot be had.

    `largest` is the largest part of the wish that fits beside what must stay; `in_the_way` are the
    fewest instances that would have to go for all of it, empty where even an empty card has no room.
    `unwished` are instances that somebody stands on and that the layout does not have.
    """

    largest: tuple[tuple[str, int], ...]
    in_the_way: tuple[Standing, ...] = ()
    unwished: tuple[Standing, ...] = ()


def solve(
    geometry: Geometry, wanted: Mapping[str, int], standing: Sequence[Standing], *, keep_more: bool = False
) -> Layout | Impossible:
    """The layout with so many instances of each profile, and the fewest of those standing destroyed.

    With `keep_more` instances beyond `wanted` stay unless they are in the way.
    """
    wish = {name: count for name, count in wanted.items() if count}
    held = [each for each in standing if each.held_by is not None]
    unwished = () if keep_more else _beyond(wish, held)
    if not unwished:
        free = [each.place for each in standing if each.held_by is None]
        found = _least(geometry, wish, [each.place for each in held], free, keep_more=keep_more)
        if found is not None:
            return found
    return Impossible(
        largest=_largest(geometry, wish, held, keep_more=keep_more),
        in_the_way=_in_the_way(geometry, wish, held, keep_more=keep_more),
        unwished=unwished,
    )


def solve_places(
    geometry: Geometry, wanted: Iterable[GiPlace], standing: Sequence[Standing]
) -> Layout | Impossible:
    """The layout with exactly these instances, at these places.

    `wanted` fits together on an empty card.
    """
    wish = set(wanted)
    there = {each.place for each in standing}
    unwished = tuple(each for each in standing if each.held_by is not None and each.place not in wish)
    if unwished:
        taken = geometry.taken(each.place for each in unwished)
        fits = Counter(each.profile for each in wish if not geometry.mask(each) & taken)
        in_the_way = tuple(
            each for each in unwished if any(geometry.mask(each.place) & geometry.mask(one) for one in wish)
        )
        return Impossible(largest=tuple(sorted(fits.items())), in_the_way=in_the_way, unwished=unwished)
    return Layout(
        kept=tuple(sorted(there & wish)),
        destroyed=tuple(sorted(there - wish)),
        created=tuple(sorted(wish - there)),
    )


def _least(
    geometry: Geometry, wish: Mapping[str, int], held: list[GiPlace], free: list[GiPlace], *, keep_more: bool
) -> Layout | None:
    """Keep as many of `free` as possible; of equal choices the one that leaves the most room."""
    there = Counter(each.profile for each in free)
    surplus = 0 if keep_more else sum((there - Counter(wish)).values())
    for gone in range(surplus, len(free) + 1):
        found: list[tuple[int, Layout]] = []
        for destroyed in combinations(sorted(free), gone):
            kept = [*held, *(each for each in free if each not in destroyed)]
            have = Counter(each.profile for each in kept)
            if not keep_more and any(count > wish.get(name, 0) for name, count in have.items()):
                continue
            rest = {name: count - have[name] for name, count in wish.items() if count > have[name]}
            if not geometry.admits(have + Counter(rest)):
                continue
            created = _placed(geometry, tuple(sorted(rest.items())), geometry.taken(kept))
            if created is not None:
                room = geometry.room(geometry.taken([*kept, *created]))
                layout = Layout(kept=tuple(sorted(kept)), destroyed=destroyed, created=tuple(sorted(created)))
                found.append((room, layout))
        if found:
            return max(found, key=lambda each: each[0])[1]
    return None


@cache
def _placed(geometry: Geometry, rest: tuple[tuple[str, int], ...], taken: int) -> tuple[GiPlace, ...] | None:
    """Places for these, beside the slices that are taken; those that leave the most room."""
    return max(
        _placings(geometry, _largest_first(geometry, rest), taken),
        key=lambda each: geometry.room(taken | geometry.taken(each)),
        default=None,
    )


def _largest_first(geometry: Geometry, counts: tuple[tuple[str, int], ...]) -> list[str]:
    names = sorted(counts, key=lambda each: (-geometry.size(each[0]), each[0]))
    return [name for name, count in names for _ in range(count)]


def _placings(
    geometry: Geometry, names: list[str], taken: int, start: int = 0
) -> Iterator[tuple[GiPlace, ...]]:
    """Every way to lay them down; like ones in ascending order, so that each way comes once."""
    if not names:
        yield ()
        return
    name, rest = names[0], names[1:]
    profile = geometry.profile(name)
    for each in profile.starts if profile is not None else ():
        place = GiPlace(each, name)
        mask = geometry.mask(place)
        if each < start or mask & taken:
            continue
        following = each + 1 if rest and rest[0] == name else 0
        for others in _placings(geometry, rest, taken | mask, following):
            yield (place, *others)


def _largest(
    geometry: Geometry, wish: Mapping[str, int], held: Sequence[Standing], *, keep_more: bool
) -> tuple[tuple[str, int], ...]:
    """The largest part of the wish, by instances and then by slices, beside those that are held."""
    names = [name for name in wish if geometry.profile(name) is not None]
    limits = []
    for name in names:
        profile = geometry.profile(name)
        limits.append(range(min(wish[name], profile.max if profile else 0) + 1))
    parts = sorted(
        product(*limits),
        key=lambda part: (
            -sum(part),
            -sum(n * geometry.size(name) for n, name in zip(part, names, strict=True)),
        ),
    )
    places = [each.place for each in held]
    have = Counter(each.profile for each in places)
    for part in parts:
        counts = dict(zip(names, part, strict=True))
        rest = {name: count - have[name] for name, count in counts.items() if count > have[name]}
        if not keep_more and any(counts.get(name, 0) < have[name] for name in have if name in wish):
            continue
        if not geometry.admits(have + Counter(rest)):
            continue
        if _placed(geometry, tuple(sorted(rest.items())), geometry.taken(places)) is not None:
            return tuple(sorted((name, count) for name, count in counts.items() if count))
    return ()


def _in_the_way(
    geometry: Geometry, wish: Mapping[str, int], held: Sequence[Standing], *, keep_more: bool
) -> tuple[Standing, ...]:
    """The fewest of those held without which the whole wish fits."""
    for count in range(1, len(held) + 1):
        for going in combinations(held, count):
            stay = [each.place for each in held if each not in going]
            if _beyond(wish, [each for each in held if each not in going]) and not keep_more:
                continue
            if _least(geometry, wish, stay, [], keep_more=keep_more) is not None:
                return going
    return ()


def _beyond(wish: Mapping[str, int], held: Sequence[Standing]) -> tuple[Standing, ...]:
    """Those held that are more than the wish has of their profile."""
    left = Counter(wish)
    found = []
    for each in held:
        left[each.place.profile] -= 1
        if left[each.place.profile] < 0:
            found.append(each)
    return tuple(found)

"""Layouts of GPU instances: every one that the geometry has, and the least change between any two."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from functools import cache

import pytest

from tests.support.marks import thorough
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.mig import Geometry, Impossible, Layout, Standing, solve, solve_places

CATALOG = Catalog()
FAMILIES = ("a30", "a100-40", "a100-80", "h100", "h100-94", "h200", "b200", "rtx-pro-6000")


@cache
def geometry(key: str) -> Geometry:
    return Geometry.of(CATALOG.mig_profiles(CATALOG.keyed(key)))


@cache
def layouts(key: str) -> dict[frozenset[tuple[str, int]], list[frozenset[GiPlace]]]:
    """Every set of places of that model, by its multiset; independent of the solver's own walk."""
    shape = geometry(key)
    places = [
        (GiPlace(start, each.name), frozenset(range(start, start + (each.size or 0))), each.slices)
        for each in shape.profiles
        for start in each.starts
    ]
    limits = {each.name: each.max for each in shape.profiles}
    most = max(each.slices for each in shape.profiles)
    found: dict[frozenset[tuple[str, int]], list[frozenset[GiPlace]]] = defaultdict(list)

    def walk(index: int, chosen: list[GiPlace], used: frozenset[int], slices: int) -> None:
        counts = Counter(each.profile for each in chosen)
        media = [name for name in counts.elements() if "+me" in name]
        all_media = [name for name in media if name.endswith("+me.all")]
        others = [name for name in counts if not name.endswith("-me") and name not in all_media]
        if len(media) <= 1 and not (all_media and others):
            found[frozenset(counts.items())].append(frozenset(chosen))
        for number in range(index, len(places)):
            place, covers, takes = places[number]
            if covers & used or slices + takes > most or counts[place.profile] == limits[place.profile]:
                continue
            walk(number + 1, [*chosen, place], used | covers, slices + takes)

    walk(0, [], frozenset(), 0)
    return found


def fewest_destroyed(key: str, start: frozenset[GiPlace], wanted: frozenset[tuple[str, int]]) -> int:
    return min(len(start - each) for each in layouts(key)[wanted])


def check(key: str, layout: Layout | Impossible, start: frozenset[GiPlace], wanted: frozenset) -> None:
    assert isinstance(layout, Layout), (start, wanted)
    assert frozenset(layout.places) in layouts(key)[wanted]
    assert frozenset(layout.kept) | frozenset(layout.destroyed) == start
    assert not frozenset(layout.created) & start
    assert len(layout.destroyed) == fewest_destroyed(key, start, wanted), (start, wanted)


@pytest.mark.parametrize("key", FAMILIES)
def test_every_multiset_is_laid_out_from_empty(key):
    for wanted in layouts(key):
        check(key, solve(geometry(key), dict(wanted), []), frozenset(), wanted)


@pytest.mark.parametrize("key", ["a30", "a100-80"])
def test_what_no_placement_has_is_impossible_and_its_largest_part_is_one_that_fits(key):
    shape = geometry(key)
    names = [each.name for each in shape.profiles]
    dice = random.Random(7)
    for _ in range(200):
        counts = Counter(dice.choices(names, k=dice.randint(1, 8)))
        wanted = frozenset(counts.items())
        found = solve(shape, counts, [])
        assert isinstance(found, Layout) == (wanted in layouts(key)), counts
        if isinstance(found, Impossible):
            assert frozenset(found.largest) in layouts(key)
            most = max(
                sum(count for _, count in each)
                for each in layouts(key)
                if all(count <= counts[name] for name, count in each)
            )
            assert sum(count for _, count in found.largest) == most


@pytest.mark.parametrize("key", ["a30", "rtx-pro-6000"])
def test_the_fewest_are_destroyed_between_any_two_layouts_of_four_slices(key):
    dice = random.Random(3)
    starts = [each for every in layouts(key).values() for each in every]
    for start in starts if key == "a30" else dice.sample(starts, 120):
        standing = [Standing(each) for each in start]
        for wanted in layouts(key):
            check(key, solve(geometry(key), dict(wanted), standing), start, wanted)


def test_the_fewest_are_destroyed_between_layouts_of_seven_slices():
    dice = random.Random(5)
    wishes = list(layouts("a100-80"))
    starts = [each for every in layouts("a100-80").values() for each in every]
    for start in dice.sample(starts, 60):
        standing = [Standing(each) for each in start]
        for wanted in dice.sample(wishes, 60):
            check("a100-80", solve(geometry("a100-80"), dict(wanted), standing), start, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("key", [thorough("a100-80"), "rtx-pro-6000"])
def test_the_fewest_are_destroyed_from_every_layout_to_every_multiset(key):
    """The geometry of seven slices is that of every large card but its names."""
    for start in (each for every in layouts(key).values() for each in every):
        standing = [Standing(each) for each in start]
        for wanted in layouts(key):
            check(key, solve(geometry(key), dict(wanted), standing), start, wanted)


def test_an_instance_that_somebody_stands_on_is_never_destroyed_and_others_no_more_than_needed():
    dice = random.Random(13)
    wishes = list(layouts("a100-80"))
    starts = [each for every in layouts("a100-80").values() for each in every if each]
    for _ in range(800):
        start, wanted = dice.choice(starts), dice.choice(wishes)
        held = frozenset(each for each in start if dice.random() < 0.4)
        standing = [Standing(each, "vGPU x" if each in held else None) for each in start]
        found = solve(geometry("a100-80"), dict(wanted), standing)
        possible = [each for each in layouts("a100-80")[wanted] if held <= each]
        assert isinstance(found, Layout) == bool(possible), (start, held, wanted)
        if isinstance(found, Layout):
            assert held <= frozenset(found.kept)
            assert frozenset(found.places) in possible
            assert len(found.destroyed) == min(len(start - each) for each in possible)


def test_one_that_is_in_the_way_is_named_and_what_fits_beside_it():
    shape = geometry("a100-80")
    found = solve(
        shape, {"1g.10gb": 1, "4g.40gb": 1}, [Standing(GiPlace(1, "1g.10gb"), "vGPU cad-1 (domain win11)")]
    )
    assert isinstance(found, Impossible)
    assert [each.place for each in found.in_the_way] == [GiPlace(1, "1g.10gb")]
    assert dict(found.largest) == {"1g.10gb": 1}


def test_one_that_the_wish_does_not_have_and_somebody_stands_on_is_named():
    found = solve(geometry("a30"), {"2g.12gb": 1}, [Standing(GiPlace(0, "1g.6gb"), "vGPU cad-1")])
    assert isinstance(found, Impossible)
    assert [each.place for each in found.unwished] == [GiPlace(0, "1g.6gb")]


def test_more_than_is_wished_stays_where_it_is_not_in_the_way():
    shape = geometry("a100-80")
    standing = [Standing(GiPlace(0, "2g.20gb")), Standing(GiPlace(6, "1g.10gb"))]
    beside = solve(shape, {"3g.40gb": 1}, [standing[0]], keep_more=True)
    assert isinstance(beside, Layout)
    assert (beside.kept, beside.created) == ((GiPlace(0, "2g.20gb"),), (GiPlace(4, "3g.40gb"),))
    whole = solve(shape, {"7g.80gb": 1}, standing, keep_more=True)
    assert isinstance(whole, Layout)
    assert len(whole.destroyed) == 2


def test_instances_leave_the_most_room_for_others():
    layout = solve(geometry("a100-80"), {"1g.10gb": 1}, [])
    assert isinstance(layout, Layout)
    assert layout.created == (GiPlace(6, "1g.10gb"),), "beside it a 4g and a 2g still fit"


def test_exact_places_destroy_whatever_is_not_among_them():
    wanted = (GiPlace(0, "3g.40gb"), GiPlace(4, "3g.40gb"))
    found = solve_places(
        geometry("a100-80"),
        wanted,
        [Standing(GiPlace(4, "3g.40gb"), "vGPU a"), Standing(GiPlace(0, "2g.20gb"))],
    )
    assert found == Layout(
        kept=(GiPlace(4, "3g.40gb"),), destroyed=(GiPlace(0, "2g.20gb"),), created=(GiPlace(0, "3g.40gb"),)
    )
    held = solve_places(geometry("a100-80"), wanted, [Standing(GiPlace(2, "2g.20gb"), "vGPU a")])
    assert isinstance(held, Impossible)
    assert (dict(held.largest), len(held.in_the_way)) == ({"3g.40gb": 1}, 1)


def test_the_media_engines_are_given_away_once():
    """hardware.md 3.1.7, 3.1.8."""
    rtx = geometry("rtx-pro-6000")
    assert isinstance(solve(rtx, {"1g.24gb+me.all": 1, "1g.24gb-me": 3}, []), Layout)
    assert isinstance(solve(rtx, {"1g.24gb+me.all": 1, "1g.24gb": 1}, []), Impossible)
    assert isinstance(solve(geometry("a30"), {"1g.6gb+me": 1, "2g.12gb+me": 1}, []), Impossible)

"""Which card a vGPU is put on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.cards import CATALOG, card, creation, pf, t4, the_type, vf, vfs_off
from vgpuctl.errors import FactUnknown, InvalidGpuState, NoCapacity, TypeUnknown
from vgpuctl.model.card import after, free_parents, refusal
from vgpuctl.model.document import NumaPolicy, Placement, PlacementPolicy
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import FrameworkKind, GpuState, Holder
from vgpuctl.model.placement import Choice, choose

PACK, SPREAD = Placement(PlacementPolicy.PACK), Placement(PlacementPolicy.SPREAD)


def l40s(bus, *names, **facts):
    made = card("l40s", bus=bus, **facts)
    for number, name in enumerate(names):
        made = after(made, creation(made, name, f"{bus}-{number}", free_parents(made)[0]))
    return made


def place(cards, *types, policy=PACK, **how):
    """Bus of the chosen card, the type and the parent."""
    choice = choose(cards, types, policy, **how)
    assert isinstance(choice, Choice), choice
    return choice.card.gpu.address.bus, choice.vgpu_type.name, choice.parent


def no_place(kind, cards, *types, policy=PACK, **how):
    error = choose(cards, types, policy, **how)
    assert type(error) is kind, error
    return error


def test_pack_takes_the_fullest_and_spread_the_emptiest():
    cards = [l40s(0x21), l40s(0x41, "L40S-8Q"), l40s(0x61, "L40S-8Q", "L40S-8Q")]
    assert place(cards, "L40S-8Q") == (0x61, "L40S-8Q", vf(2, 0x61))
    assert place(cards, "L40S-8Q", policy=SPREAD) == (0x21, "L40S-8Q", vf(0, 0x21))


def test_pack_prefers_a_card_of_that_size_over_a_fuller_one():
    """An empty card is kept whole for another size."""
    mixed = [l40s(0x21, "L40S-24Q", mixed_size=True), l40s(0x41, "L40S-8Q", mixed_size=True)]
    assert place(mixed, "L40S-8Q")[0] == 0x41
    assert place(mixed, "L40S-12Q")[0] == 0x21


def test_ties_go_to_the_lower_address():
    assert place([l40s(0x61), l40s(0x41)], "L40S-8Q")[0] == 0x41


def test_the_first_type_that_fits_anywhere_is_taken():
    cards = [l40s(0x41, "L40S-48Q"), t4()]
    types = ("L40S-8Q", "A40-8Q", "T4-8Q")
    assert place([t4(), l40s(0x61)], *types)[1] == "L40S-8Q"
    assert place(cards, *types)[1:] == ("T4-8Q", pf())


def test_type_names_are_taken_in_any_case():
    assert place([l40s(0x41)], "l40s-8q")[1] == "L40S-8Q"


def test_a_ready_gpu_comes_before_one_whose_vfs_are_off():
    off, ready = vfs_off(bus=0x21), l40s(0x61)
    assert place([off, ready], "L40S-8Q")[0] == 0x61
    assert place([off, ready], "L40S-8Q", policy=SPREAD)[0] == 0x61
    assert place([off, l40s(0x61, "L40S-24Q")], "L40S-8Q") == (0x21, "L40S-8Q", None)


def test_numa_prefer_and_require():
    near, far = l40s(0x61, numa_node=1), l40s(0x41, "L40S-8Q", numa_node=0)
    prefer, require = Placement(numa=NumaPolicy.PREFER), Placement(numa=NumaPolicy.REQUIRE)
    assert place([near, far], "L40S-8Q", numa_node=1)[0] == 0x41
    assert place([near, far], "L40S-8Q", policy=prefer, numa_node=1)[0] == 0x61
    assert place([near, far], "L40S-8Q", policy=prefer)[0] == 0x41
    assert place([near, far], "L40S-8Q", policy=require, numa_node=1)[0] == 0x61
    assert "NUMA node 0" in str(no_place(NoCapacity, [far], "L40S-8Q", policy=require, numa_node=1))
    assert place([l40s(0x41, numa_node=None)], "L40S-8Q", policy=require, numa_node=1)[0] == 0x41


def test_what_just_failed_is_avoided():
    one, two = l40s(0x41), l40s(0x61)
    assert place([one, two], "L40S-8Q", avoid=frozenset({pf(0x41)}))[0] == 0x61
    assert place([one], "L40S-8Q", avoid=frozenset({vf(0), vf(1)}))[2] == vf(2)
    everything = frozenset(free_parents(one))
    assert place([one, two], "L40S-8Q", avoid=everything)[0] == 0x61
    no_place(NoCapacity, [one], "L40S-8Q", avoid=everything)
    no_place(NoCapacity, [t4()], "T4-8Q", avoid=frozenset({pf()}))


def test_no_capacity_says_per_card_what_occupies_it_and_what_fits():
    error = no_place(NoCapacity, [l40s(0x41, "L40S-48Q"), l40s(0x61, "L40S-24Q")], "L40S-8Q")
    assert "1 x L40S-48Q" in str(error)
    assert "fits: L40S-24A" in str(error)
    assert [each["gpu"] for each in error.facts["gpus"]] == ["0000:41:00.0", "0000:61:00.0"]
    assert error.facts["gpus"][1]["fits"] == ["L40S-24A", "L40S-24C", "L40S-24Q"]
    assert error.facts["gpus"][0]["occupied"][0]["type"] == "L40S-48Q"


def test_where_all_cards_agree_the_refusal_is_theirs():
    down = [card(bus=bus, state=GpuState.NO_DRIVER, types=()) for bus in (0x41, 0x61)]
    assert "no-driver" in str(no_place(InvalidGpuState, down, "L40S-8Q"))
    no_place(InvalidGpuState, down[:1], "L40S-8Q")
    held = [vfs_off(bus=bus, holders=Unknown("unreadable")) for bus in (0x41, 0x61)]
    no_place(FactUnknown, held, "L40S-8Q")
    no_place(NoCapacity, [down[0], l40s(0x21, "L40S-48Q")], "L40S-8Q")
    no_place(InvalidGpuState, [vfs_off(holders=(Holder(pid=1, command="dcgm"),))], "L40S-8Q")


def test_an_unknown_type_names_near_ones():
    error = no_place(TypeUnknown, [l40s(0x41)], "L40S-9Q", catalog=CATALOG)
    assert "L40S-8Q" in error.hint
    assert "T4-16Q" in no_place(TypeUnknown, [l40s(0x41)], "T4-15Q", catalog=CATALOG).facts["near"]
    no_place(TypeUnknown, [], "L40S-8Q")


def test_a_type_of_a_gpu_that_is_not_here_is_no_unknown_type():
    error = no_place(NoCapacity, [l40s(0x41)], "T4-16Q", catalog=CATALOG)
    assert "T4-16Q is a type of Tesla T4" in str(error)
    assert "L40S-1A" in error.hint


def test_a_whole_gpu_stands_on_the_pf():
    off = vfs_off()
    assert place([l40s(0x21), off], "whole-gpu") == (0x41, "whole-gpu", pf())
    amd = replace(card(types=(), vfs_max=2), model=None)
    amd = replace(amd, gpu=replace(amd.gpu, framework=FrameworkKind.PASSTHROUGH, vfs=amd.gpu.vfs[:2]))
    assert place([amd], "plain-vf")[2] == vf(0)


buses = st.lists(st.sampled_from([0x21, 0x41, 0x61, 0x81]), unique=True, min_size=1, max_size=4)
fillings = st.lists(st.sampled_from(["L40S-8Q", "L40S-24Q", "L40S-8A", "L40S-2B"]), max_size=3)


@given(buses, st.lists(fillings, min_size=4, max_size=4), st.sampled_from([PACK, SPREAD]), st.randoms())
@settings(max_examples=30, deadline=None)
def test_a_choice_fits_is_deterministic_and_is_missed_only_where_nothing_fits(where, fill, policy, random):
    cards = []
    for bus, names in zip(where, fill, strict=False):
        made = l40s(bus)
        for number, name in enumerate(names):
            if refusal(made, the_type(made, name)) is None:
                made = after(made, creation(made, name, f"{bus}-{number}", free_parents(made)[0]))
        cards.append(made)
    choice = choose(cards, ("L40S-8Q", "L40S-24Q"), policy)
    shuffled = list(cards)
    random.shuffle(shuffled)
    again = choose(shuffled, ("L40S-8Q", "L40S-24Q"), policy)
    fits = [
        (each, name)
        for name in ("L40S-8Q", "L40S-24Q")
        for each in cards
        if refusal(each, the_type(each, name)) is None
    ]
    if not fits:
        assert isinstance(choice, NoCapacity)
        return
    assert choice == again
    assert choice.vgpu_type.name == fits[0][1]
    assert (choice.card, choice.vgpu_type.name) in fits
    assert choice.parent in free_parents(choice.card)


@pytest.mark.parametrize("policy", [PACK, SPREAD])
def test_a_whole_host_is_filled_to_its_capacity(policy):
    cards = {bus: l40s(bus) for bus in (0x41, 0x61)}
    for number in range(12):
        bus, name, parent = place(list(cards.values()), "L40S-8Q", policy=policy)
        cards[bus] = after(cards[bus], creation(cards[bus], name, f"n{number}", parent))
    no_place(NoCapacity, list(cards.values()), "L40S-8Q", policy=policy)

"""Whether one more vGPU fits: each rule of the hardware, and what holds for all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.cards import (
    BOOT,
    CATALOG,
    allocation,
    card,
    creation,
    gpu_of,
    observed,
    removal,
    t4,
    the_type,
    vf,
    vfs_off,
    vgpu_id,
)
from vgpuctl.errors import FactUnknown, InvalidGpuState, NoCapacity
from vgpuctl.model.card import (
    after,
    allowed,
    card_of,
    creatable_types,
    free_parents,
    refusal,
    remaining,
    supported_types,
    type_named,
)
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import DeviceId, FrameworkKind, GpuState, Holder, ObservedVgpu, Vf
from vgpuctl.model.pci import ParentName
from vgpuctl.model.types import TypeKind, VgpuType

VENDOR, SRIOV, MDEV = FrameworkKind.VENDOR_VFIO, FrameworkKind.SRIOV_MDEV, FrameworkKind.MDEV


def filled(start, *names):
    """`start` with a vGPU of each type, on the first free parents."""
    for name in names:
        start = after(start, creation(start, name, f"v{len(start.occupants)}", free_parents(start)[0]))
    return start


def no(start, name, kind=NoCapacity):
    """The refusal of one more `name`, which must be of that kind."""
    error = refusal(start, the_type(start, name))
    assert type(error) is kind, error
    return error


def yes(start, name):
    assert refusal(start, the_type(start, name)) is None


# Sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [card("l40s", VENDOR), card("l40s", SRIOV), card("rtx-8000", MDEV)])
def test_equal_size_is_by_frame_buffer_not_by_type(start):
    """hardware.md 0.2: after the first vGPU only the same profileSize; A, B and Q of one size mix."""
    board = start.model.board
    one = filled(start, f"{board}-2Q")
    yes(one, f"{board}-2Q")
    yes(one, f"{board}-2B")
    yes(one, f"{board}-2A")
    error = no(one, f"{board}-4Q")
    assert "2 GiB" in str(error)
    assert error.facts["occupied"] == [{"name": "v0", "type": f"{board}-2Q", "fb_mib": 2048, "exists": True}]
    assert f"{board}-2B" in error.facts["fits"]
    assert f"{board}-4Q" not in error.facts["fits"]


def test_the_size_is_free_again_when_the_count_is_zero():
    """hardware.md 0.2: it resets only when the created count returns to 0."""
    start = card()
    steps = [creation(start, "L40S-8Q", name, vf(index)) for index, name in enumerate("ab")]
    for step in steps:
        start = after(start, step)
    start = after(start, removal(steps[0]))
    no(start, "L40S-24Q")
    start = after(start, removal(steps[1]))
    yes(start, "L40S-24Q")


def test_a_place_that_is_only_reserved_fixes_the_size_too():
    """The hardware still takes every size, but the place was promised."""
    gpu = gpu_of("l40s")
    every = frozenset(each.type_id for each in gpu.types)
    start = card_of(replace(gpu, creatable=every), CATALOG.keyed("l40s"), [allocation(gpu, "L40S-8Q")], BOOT)
    no(start, "L40S-24Q")
    yes(start, "L40S-8Q")


def test_a_foreign_vgpu_counts():
    gpu = gpu_of("l40s")
    start = card_of(replace(gpu, vgpus=(observed(gpu, "L40S-48Q", vf(3)),)), CATALOG.keyed("l40s"), [], BOOT)
    assert start.occupants[0].vgpu is None
    assert "at most 1" in str(no(start, "L40S-48Q"))
    no(start, "L40S-8Q")


def test_mixed_size_mode_lets_sizes_differ_up_to_its_own_limit():
    """hardware.md 2.14: 16 GB types on a 48 GB GPU: 3 of equal size, 2 in mixed-size mode."""
    start = card(mixed_size=True)
    two = filled(start, "L40S-16Q", "L40S-16Q")
    no(two, "L40S-16Q")
    yes(two, "L40S-8Q")
    yes(filled(card(), "L40S-16Q", "L40S-16Q"), "L40S-16Q")


def test_mixed_sizes_must_fit_the_frame_buffer():
    start = filled(card(mixed_size=True), "L40S-24Q", "L40S-16Q")
    assert "40 GiB of its 48 GiB" in str(no(start, "L40S-12Q"))
    yes(start, "L40S-8Q")


def test_unknown_mixed_size_mode_is_unknown_and_not_off():
    """UNKNOWN is neither on nor off, unless the GPU has no such mode or the hardware answers."""
    unknown = Unknown("no NVML")
    start = filled(card(mixed_size=unknown), "L40S-8Q")
    no(start, "L40S-24Q", FactUnknown)
    yes(start, "L40S-8Q")
    no(filled(card("rtx-8000", MDEV, mixed_size=unknown), "RTX8000-8Q"), "RTX8000-24Q", NoCapacity)
    old = filled(replace(card("rtx-8000", MDEV, mixed_size=unknown), model=None), "RTX8000-8Q")
    no(old, "RTX8000-24Q", NoCapacity)


def test_two_sizes_side_by_side_prove_mixed_size_mode():
    yes(filled(card(mixed_size=True), "L40S-8Q", "L40S-16Q"), "L40S-12Q")
    both = filled(card(mixed_size=True), "L40S-8Q", "L40S-16Q")
    yes(replace(both, gpu=replace(both.gpu, mixed_size=Unknown("no NVML"))), "L40S-12Q")


def test_the_hardware_says_whether_another_size_fits_beside_what_exists():
    gpu = gpu_of("l40s", mixed_size=Unknown("no NVML"))
    gpu = replace(gpu, vgpus=(observed(gpu, "L40S-8Q", vf(0)),))
    big = gpu.type_named("L40S-24Q").type_id
    small = gpu.type_named("L40S-8Q").type_id
    yes(card_of(replace(gpu, creatable=frozenset({big, small})), CATALOG.keyed("l40s"), [], BOOT), "L40S-24Q")
    no(card_of(replace(gpu, creatable=frozenset({small})), CATALOG.keyed("l40s"), [], BOOT), "L40S-24Q")


def test_the_hardware_knows_nothing_of_a_place_that_is_only_reserved():
    gpu = gpu_of("l40s", mixed_size=Unknown("no NVML"))
    gpu = replace(gpu, creatable=frozenset({gpu.type_named("L40S-24Q").type_id}))
    no(card_of(gpu, CATALOG.keyed("l40s"), [allocation(gpu, "L40S-8Q")], BOOT), "L40S-24Q", FactUnknown)


def test_a_vgpu_of_unknown_type_makes_the_size_unknown_unless_the_hardware_answers():
    gpu = gpu_of("l40s")
    mystery = ObservedVgpu(
        gpu=gpu.address,
        parent=vf(0),
        framework=VENDOR,
        type_id=Unknown("unreadable"),
        type_name=Unknown("unreadable"),
        mdev_uuid=None,
    )
    start = card_of(replace(gpu, vgpus=(mystery,)), CATALOG.keyed("l40s"), [], BOOT)
    no(start, "L40S-8Q", FactUnknown)
    said = replace(start, gpu=replace(start.gpu, creatable=frozenset({gpu.type_named("L40S-8Q").type_id})))
    yes(said, "L40S-8Q")
    no(said, "L40S-24Q")


# Counts and parents ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["L40S-48Q", "L40S-24Q", "L40S-16Q", "L40S-8Q", "L40S-2Q", "L40S-1Q"])
def test_remaining_on_an_empty_card_is_the_documented_maximum(name):
    """hardware.md 2.8, 2.14: maxima per GPU."""
    start = card()
    assert remaining(start, the_type(start, name)) == the_type(start, name).max_per_gpu


def test_mdev_on_the_pf_needs_no_vf():
    """hardware.md T19: T4 shows totalvfs 16 but has no VFs."""
    start = t4()
    assert free_parents(start) == (start.gpu.address,)
    assert remaining(start, the_type(start, "T4-4Q")) == 4
    four = filled(start, *["T4-4Q"] * 4)
    assert free_parents(four) == (start.gpu.address,)
    assert "at most 4" in str(no(four, "T4-4Q"))


def test_one_vgpu_per_vf():
    """hardware.md 1.3.3: one mdev per VF, ever."""
    start = filled(card("l40s", SRIOV), "L40S-8Q")
    assert vf(0) not in free_parents(start)
    assert free_parents(start)[0] == vf(1)


def test_free_parents_are_ready_and_in_index_order():
    """hardware.md 1.3.1, T18: function order is not text order; VFs appear late."""
    vfs = tuple(
        Vf(address=vf(index), index=index, driver="nvidia", ready=index != 1) for index in (12, 2, 1, 0)
    )
    assert free_parents(card(vfs=vfs)) == (vf(0), vf(2), vf(12))


def test_vfs_run_out_before_the_frame_buffer_does():
    vfs = tuple(Vf(address=vf(index), index=index, driver="nvidia", ready=index < 2) for index in range(3))
    start = card(vfs=vfs)
    assert remaining(start, the_type(start, "L40S-8Q")) == 2
    assert "VF" in str(no(filled(start, "L40S-8Q", "L40S-8Q"), "L40S-8Q"))


def test_a_place_without_a_vf_still_needs_one():
    gpu = gpu_of("l40s")
    gpu = replace(gpu, vfs=gpu.vfs[:2])
    kept = [allocation(gpu, "L40S-8Q", "a"), allocation(gpu, "L40S-8Q", "b", parent=vf(9))]
    start = card_of(gpu, CATALOG.keyed("l40s"), kept, BOOT)
    assert "VF" in str(no(start, "L40S-8Q"))


def test_the_resource_managers_limit_holds_where_no_type_sets_one():
    """hardware.md 2.9: 32 vGPUs per GPU without MIG, 48 with it."""
    gpu = gpu_of("rtx-pro-6000")
    gpu = replace(gpu, types=tuple(replace(each, max_per_gpu=None) for each in gpu.types))
    start = card_of(gpu, CATALOG.keyed("rtx-pro-6000"), [], BOOT)
    assert remaining(start, gpu.type_named("DC-2B")) == 32
    every = frozenset(each.type_id for each in gpu.types)
    start = replace(start, gpu=replace(gpu, mig=True, creatable=every))
    assert remaining(start, gpu.type_named("DC-1-2Q")) == 48


# MIG ------------------------------------------------------------------------------------------------


def mig_card(*names, **facts):
    gpu = gpu_of("a100-80", mig=True)
    creatable = frozenset(gpu.type_named(name).type_id for name in names)
    return card("a100-80", **({"mig": True, "creatable": creatable} | facts))


def test_time_sliced_and_mig_backed_exclude_each_other():
    """hardware.md 3.3.4: with MIG on, time-sliced types are never creatable, and vice versa."""
    assert "MIG mode is off" in str(no(card("a100-80"), "A100D-1-10C"))
    assert "MIG mode is on" in str(no(mig_card("A100D-1-10C"), "A100D-10C"))
    yes(card("a100-80"), "A100D-10C")
    yes(mig_card("A100D-1-10C"), "A100D-1-10C")


def test_with_mig_on_only_what_the_hardware_names():
    """hardware.md 3.3.4: no GPU instance, nothing creatable."""
    no(mig_card("A100D-1-10C"), "A100D-2-20C")
    no(mig_card(), "A100D-1-10C")
    no(mig_card(creatable=Unknown("no VF could be asked")), "A100D-1-10C", FactUnknown)


def test_unknown_mig_mode_matters_only_where_there_is_mig():
    unknown = Unknown("no NVML")
    no(card("a100-80", mig=unknown), "A100D-10C", FactUnknown)
    yes(card("l40s", mig=unknown), "L40S-8Q")
    named = card("a100-80", mig=unknown)
    named = replace(
        named, gpu=replace(named.gpu, creatable=frozenset({the_type(named, "A100D-10C").type_id}))
    )
    yes(named, "A100D-10C")
    no(named, "A100D-1-10C")


def test_turning_vfs_on_leaves_a_mig_card_without_instances():
    """hardware.md 0.6, T3: sriov-manage destroys every MIG GPU instance."""
    no(vfs_off("a100-80", mig=True), "A100D-1-10C")
    yes(vfs_off("a100-80", mig=False), "A100D-10C")


def test_vgpus_of_one_size_share_a_gpu_instance():
    """hardware.md 3.4.1: GIs needed = sum over sizes of ceil(count / max per GI)."""
    gpu = gpu_of("rtx-pro-6000")
    names = ("DC-1-2Q", "DC-1-12Q", "DC-1-24Q")
    every = frozenset(gpu.type_named(name).type_id for name in names)
    start = card("rtx-pro-6000", mig=True, creatable=every)
    assert [remaining(start, the_type(start, name)) for name in names] == [48, 8, 4]
    # One 2 GB vGPU takes a GPU instance of its own from the 24 GB ones, twelve take no more.
    assert remaining(filled(start, "DC-1-2Q"), the_type(start, "DC-1-24Q")) == 3
    twelve = filled(start, *["DC-1-2Q"] * 12)
    assert remaining(twelve, the_type(start, "DC-1-24Q")) == 3
    assert remaining(filled(twelve, "DC-1-2Q"), the_type(start, "DC-1-24Q")) == 2


def test_a_mig_vgpu_that_goes_makes_room_for_another():
    start = mig_card("A100D-1-10C")
    step = creation(start, "A100D-1-10C", "a", vf(0))
    gone = after(after(start, step), removal(step))
    yes(gone, "A100D-1-10C")
    no(gone, "A100D-3-40C")


# The hardware's word --------------------------------------------------------------------------------


def test_the_hardwares_word_narrows_ours():
    start = card()
    only = the_type(start, "L40S-8Q")
    start = replace(start, gpu=replace(start.gpu, creatable=frozenset({only.type_id})))
    assert [each.name for each in creatable_types(start)] == ["L40S-8Q"]
    assert "only L40S-8Q" in str(no(start, "L40S-24Q"))
    start = replace(start, gpu=replace(start.gpu, creatable=frozenset()))
    assert creatable_types(start) == ()
    assert "no type" in str(no(start, "L40S-8Q"))


def test_the_hardwares_word_is_void_once_the_plan_removes_something():
    gpu = gpu_of("l40s")
    gpu = replace(gpu, vgpus=(observed(gpu, "L40S-48Q", vf(0)),), creatable=frozenset())
    mine = allocation(gpu, "L40S-48Q", parent=vf(0), created_boot=BOOT)
    start = card_of(gpu, CATALOG.keyed("l40s"), [mine], BOOT)
    no(start, "L40S-48Q")
    step = removal(creation(start, "L40S-48Q", "desk", vf(0)))
    yes(after(start, step), "L40S-48Q")
    yes(after(start, step), "L40S-8Q")


# States ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", set(GpuState) - {GpuState.READY, GpuState.VFS_OFF})
def test_a_card_in_a_bad_state_is_refused_with_its_reason(state):
    error = no(card(state=state, state_reason="it is odd"), "L40S-8Q", InvalidGpuState)
    assert "it is odd" in str(error)
    assert error.facts["state"] == str(state)


def test_vfs_that_are_off_are_turned_on_first():
    start = vfs_off()
    assert supported_types(start) == start.model.types
    assert free_parents(start) == ()
    assert remaining(start, the_type(start, "L40S-8Q")) == 6


def test_a_held_pf_keeps_its_vfs_off():
    """hardware.md 1.5.6, T21: unbindLock is granted only when the usage count is 0."""
    held = vfs_off(holders=(Holder(pid=42, command="dcgm"),))
    assert "dcgm (pid 42)" in str(no(held, "L40S-8Q", InvalidGpuState))
    no(vfs_off(holders=Unknown("permission denied")), "L40S-8Q", FactUnknown)
    yes(card(holders=(Holder(pid=42, command="dcgm"),)), "L40S-8Q")


def test_a_refusal_says_who_is_there_and_what_fits():
    gpu = gpu_of("l40s")
    gpu = replace(gpu, vgpus=(observed(gpu, "L40S-8Q", vf(0)),))
    start = card_of(gpu, CATALOG.keyed("l40s"), [allocation(gpu, "L40S-8Q")], BOOT)
    error = no(start, "L40S-24Q")
    assert str(start.gpu.address) in str(error)
    assert "2 x L40S-8Q (1 of them reserved)" in str(error)
    assert error.facts["fits"] == ["L40S-8A", "L40S-8C", "L40S-8Q"]


# Other vendors and whole GPUs -----------------------------------------------------------------------


def other_type(name, number, limit=None):
    return VgpuType(
        name=name,
        raw_name=name,
        type_id=number,
        kind=TypeKind.OTHER,
        series="",
        fb_mib=None,
        max_per_gpu=limit,
    )


def test_other_vendors_types_have_no_size_rule():
    """mtty, GVT-g: only the hardware's word and a limit, where it gives one."""
    gpu = replace(
        gpu_of("t4", MDEV, types=(other_type("one-port", 1), other_type("two-ports", 2, limit=1))),
        address=ParentName("mtty"),
        creatable=frozenset({1, 2}),
    )
    start = card_of(gpu, None, [], BOOT)
    both = filled(start, "one-port", "two-ports")
    yes(both, "one-port")
    no(both, "two-ports")
    no(replace(both, gpu=replace(gpu, creatable=frozenset())), "one-port")


def amd(**facts):
    gpu = gpu_of("l40s", VENDOR, types=(), vfs_max=4)
    gpu = replace(
        gpu,
        framework=FrameworkKind.PASSTHROUGH,
        device=DeviceId(0x1002, 0x74A1, 0, 0),
        vfs=gpu.vfs[:4],
        **facts,
    )
    return card_of(gpu, None, [], BOOT)


def test_plain_vfs_of_another_vendor():
    start = amd()
    plain = type_named(start, "plain-vf")
    assert supported_types(start) == (plain,)
    assert remaining(start, plain) == 4
    off = card_of(replace(start.gpu, vfs=(), state=GpuState.VFS_OFF, framework=None), None, [], BOOT)
    assert remaining(off, type_named(off, "PLAIN-VF")) == 4
    assert type_named(card(), "plain-vf") is None


def test_a_whole_gpu_is_given_only_when_empty_unheld_and_without_vfs():
    """hardware.md 1.5.4: no PF changes its driver while it has VFs."""
    off = vfs_off()
    whole = type_named(off, "whole-gpu")
    assert refusal(off, whole) is None
    assert remaining(off, whole) == 1
    assert isinstance(refusal(card(), whole), NoCapacity)
    assert refusal(t4(state=GpuState.NO_TYPES), whole) is None
    assert isinstance(refusal(filled(t4(), "T4-4Q"), whole), NoCapacity)
    assert isinstance(refusal(vfs_off(holders=(Holder(pid=1, command="x"),)), whole), InvalidGpuState)
    assert isinstance(refusal(t4(state=GpuState.PASSED_THROUGH), whole), InvalidGpuState)
    assert whole not in supported_types(off)


def test_nothing_fits_beside_a_whole_gpu():
    gpu = gpu_of("t4", MDEV)
    mine = allocation(gpu, "whole-gpu", type_id=0, framework=FrameworkKind.PASSTHROUGH, parent=gpu.address)
    start = card_of(gpu, CATALOG.keyed("t4"), [mine], BOOT)
    assert "as a whole" in str(no(start, "T4-4Q"))
    assert isinstance(refusal(start, type_named(start, "whole-gpu")), NoCapacity)


# What holds for every history ----------------------------------------------------------------------

BOARDS = {
    "l40s": ("L40S", VENDOR),
    "a16": ("A16", SRIOV),
    "t4": ("T4", MDEV),
    "a100-80": ("A100D", VENDOR),
    "rtx-pro-6000": ("DC", VENDOR),
}

histories = st.lists(st.tuples(st.sampled_from("+-"), st.integers(0, 40)), max_size=30)


@given(st.sampled_from(sorted(BOARDS)), st.booleans(), histories)
@settings(max_examples=60, deadline=None)
def test_every_history_keeps_the_rules(key, mixed, history):
    """hardware.md 0.2, 0.3, 2.8: one size unless mixed, never above a maximum, one vGPU per VF."""
    start = card(key, BOARDS[key][1], mixed_size=mixed and key != "t4")
    state, made = start, []
    types = [each for each in start.gpu.types if each.kind is TypeKind.TIME_SLICED]
    for number, (sign, pick) in enumerate(history):
        if sign == "+":
            chosen, parents = types[pick % len(types)], free_parents(state)
            step = creation(state, chosen.name, f"v{number}", parents[pick % len(parents)])
            refused = refusal(state, chosen)
            assert (allowed(state, step) is None) == (refused is None)
            assert (remaining(state, chosen) == 0) == (refused is not None)
            if refused is not None:
                continue
            made.append(step)
        elif made:
            step = removal(made.pop(pick % len(made)))
            assert allowed(state, step) is None
        else:
            continue
        state = after(state, step)
        held = [(each, the_type(start, each.type_name)) for each in state.occupants]
        sizes = {of.fb_mib for _each, of in held}
        assert {each.vgpu for each in state.occupants} == {each.vgpu for each in made}
        if not (mixed and key != "t4"):
            assert len(sizes) <= 1
            assert all(len(held) <= of.max_per_gpu for _each, of in held)
        assert sum(of.fb_mib for _each, of in held) <= start.model.fb_mib * 1.001
        assert len(held) <= 32
        if BOARDS[key][1] is not MDEV:
            parents = [each.parent for each in state.occupants]
            assert len(set(parents)) == len(parents)


@given(
    st.sampled_from(sorted(BOARDS)),
    st.booleans(),
    st.lists(st.integers(0, 40), max_size=3),
    st.integers(0, 40),
)
@settings(max_examples=40, deadline=None)
def test_remaining_is_how_many_creations_succeed(key, mixed, before, pick):
    state = card(key, BOARDS[key][1], mixed_size=mixed and key != "t4")
    types = [each for each in state.gpu.types if each.kind is TypeKind.TIME_SLICED]
    for number, each in enumerate(before):
        if refusal(state, types[each % len(types)]) is None:
            name = types[each % len(types)].name
            state = after(state, creation(state, name, f"b{number}", free_parents(state)[0]))
    chosen = types[pick % len(types)]
    expected, count = remaining(state, chosen), 0
    while True:
        parent = next(iter(free_parents(state)), state.gpu.address)
        step = creation(state, chosen.name, f"n{count}", parent)
        if allowed(state, step) is not None:
            break
        state = after(state, step)
        count += 1
    assert count == expected
    assert vgpu_id("n0") in {each.vgpu for each in state.occupants} or expected == 0

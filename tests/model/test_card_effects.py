"""What has a place on a card, and which effects may be done to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.cards import (
    BOOT,
    CATALOG,
    allocation,
    card,
    creation,
    gpu_of,
    identity,
    observed,
    pf,
    removal,
    t4,
    vf,
    vfs_off,
    vgpu_id,
)
from vgpuctl.errors import (
    Conflict,
    FactUnknown,
    InvalidGpuState,
    NoCapacity,
    TypeUnknown,
    UnsupportedHere,
    VgpuBusy,
    VgpuForeign,
    VgpuNotFound,
)
from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.card import after, allowed, card_of, stands_on, type_named
from vgpuctl.model.document import Affect
from vgpuctl.model.domain import Hostdev, PciSource
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import FrameworkKind, GpuState, Holder
from vgpuctl.model.step import AttachHostdev, DetachHostdev, SetParams, SetVfs

L40S = CATALOG.keyed("l40s")


def standing(gpu, *vgpus, allocations=(), boot=BOOT):
    return card_of(replace(gpu, vgpus=vgpus), L40S, allocations, boot)


# Occupants ------------------------------------------------------------------------------------------


def test_an_mdev_is_ours_by_uuid_in_any_boot():
    gpu = gpu_of("l40s", FrameworkKind.SRIOV_MDEV)
    mine = allocation(gpu, "L40S-8Q", parent=vf(0), created_boot="an earlier boot")
    made = observed(gpu, "L40S-8Q", vf(5), mdev_uuid=mine.id)
    (occupant,) = standing(gpu, made, allocations=[mine]).occupants
    assert (occupant.vgpu, occupant.name, occupant.parent, occupant.exists) == (mine.id, "desk", vf(5), True)


def test_a_vendor_vgpu_is_ours_by_vf_type_and_boot():
    """hardware.md 1.4.13, T11: a VF path is reused between owners."""
    gpu = gpu_of("l40s")
    there = observed(gpu, "L40S-8Q", vf(0))
    mine = allocation(gpu, "L40S-8Q", parent=vf(0), created_boot=BOOT)
    assert [each.vgpu for each in standing(gpu, there, allocations=[mine]).occupants] == [mine.id]
    for other in (
        replace(mine, created_boot="an earlier boot"),
        replace(mine, created_boot=None),
        replace(mine, parent=vf(1)),
        replace(mine, type_name="L40S-8A", type_id=gpu.type_named("L40S-8A").type_id),
    ):
        occupants = standing(gpu, there, allocations=[other]).occupants
        assert [(each.vgpu, each.exists) for each in occupants] == [(None, True), (mine.id, False)]


def test_one_vgpu_is_not_owned_twice():
    gpu = gpu_of("l40s")
    twins = [allocation(gpu, "L40S-8Q", name, parent=vf(0), created_boot=BOOT) for name in "ab"]
    occupants = standing(gpu, observed(gpu, "L40S-8Q", vf(0)), allocations=twins).occupants
    assert [(each.name, each.exists) for each in occupants] == [("a", True), ("b", False)]


def test_places_of_other_gpus_do_not_count():
    gpu, other = gpu_of("l40s"), gpu_of("l40s", bus=0x61)
    assert standing(gpu, allocations=[allocation(other, "L40S-8Q")]).occupants == ()


def test_a_gpu_is_known_by_uuid_and_where_that_cannot_be_read_by_place():
    """An address is where, not who; a card parked on pci-pf-stub shows no UUID."""
    gpu = gpu_of("l40s")
    me = identity(gpu)
    assert stands_on(replace(me, address=pf(0x99)), gpu)
    assert not stands_on(replace(me, uuid="GPU-other"), gpu)
    unread = replace(gpu, uuid=Unknown("parked"))
    assert stands_on(me, unread)
    assert not stands_on(replace(me, address=pf(0x99)), unread)
    assert not stands_on(GpuIdentity(gpu.address, replace(gpu.device, device=1), None), gpu)


def test_passthrough_exists_by_our_own_record():
    """Passthrough leaves no trace in the kernel."""
    gpu = gpu_of("t4", FrameworkKind.MDEV)
    mine = allocation(
        gpu,
        "whole-gpu",
        type_id=0,
        framework=FrameworkKind.PASSTHROUGH,
        parent=gpu.address,
        created_boot=BOOT,
    )
    (occupant,) = card_of(gpu, None, [mine], BOOT).occupants
    assert occupant.exists
    (occupant,) = card_of(gpu, None, [mine], "the next boot").occupants
    assert not occupant.exists


def test_a_card_without_types_still_knows_them_by_name():
    parked = card(state=GpuState.PARKED, types=())
    assert type_named(parked, "l40s-8q").name == "L40S-8Q"


# Creating and removing ------------------------------------------------------------------------------


def test_a_creation_takes_the_place_that_was_kept_for_it():
    gpu = gpu_of("l40s")
    start = standing(gpu, allocations=[allocation(gpu, "L40S-48Q", "desk")])
    step = creation(start, "L40S-48Q", "desk", vf(0))
    assert allowed(start, step) is None
    (occupant,) = after(start, step).occupants
    assert (occupant.exists, occupant.parent, occupant.fb_mib) == (True, vf(0), 49152)
    assert isinstance(allowed(start, creation(start, "L40S-48Q", "another", vf(0))), NoCapacity)


def test_a_creation_needs_an_empty_parent_that_is_there():
    """hardware.md 1.3.5: a second create on the same VF is refused."""
    start = card()
    start = after(start, creation(start, "L40S-8Q", "a", vf(0)))
    error = allowed(start, creation(start, "L40S-8Q", "b", vf(0)))
    assert isinstance(error, Conflict)
    assert "a (L40S-8Q)" in str(error)
    assert isinstance(allowed(start, creation(start, "L40S-8Q", "b", vf(99))), Conflict)
    assert isinstance(allowed(start, creation(start, "L40S-8Q", "a", vf(1))), Conflict)
    assert allowed(start, creation(start, "L40S-8Q", "b", vf(1))) is None


def test_a_creation_of_an_unknown_type_names_near_ones():
    start = card()
    step = replace(creation(start, "L40S-8Q", "a", vf(0)), type_id=1, type_name="L40S-9Q")
    error = allowed(start, step)
    assert isinstance(error, TypeUnknown)
    assert "L40S-8Q" in error.facts["near"]


@pytest.mark.parametrize("framework", [FrameworkKind.VENDOR_VFIO, FrameworkKind.SRIOV_MDEV])
def test_a_held_vgpu_is_not_removed(framework):
    """hardware.md 1.6.1, T9: removal of a held mdev waits without limit."""
    gpu = gpu_of("l40s", framework)
    mine = allocation(gpu, "L40S-8Q", parent=vf(0), created_boot=BOOT)
    step = removal(creation(card("l40s", framework), "L40S-8Q", "desk", vf(0)))
    there = observed(
        gpu, "L40S-8Q", vf(0), mdev_uuid=mine.id if framework is FrameworkKind.SRIOV_MDEV else None
    )
    assert allowed(standing(gpu, there, allocations=[mine]), step) is None
    held = replace(there, holders=(Holder(pid=7, command="qemu", domain="win"),))
    error = allowed(standing(gpu, held, allocations=[mine]), step)
    assert isinstance(error, VgpuBusy)
    assert "qemu (pid 7, domain win)" in str(error)
    assert error.facts["holders"] == [{"pid": 7, "command": "qemu", "domain": "win"}]
    unread = replace(there, holders=Unknown("permission denied"))
    assert isinstance(allowed(standing(gpu, unread, allocations=[mine]), step), VgpuBusy)


def test_what_is_not_ours_is_not_removed():
    """hardware.md T14: devices that somebody else made are left alone."""
    gpu = gpu_of("l40s")
    step = removal(creation(card(), "L40S-8Q", "desk", vf(0)))
    assert isinstance(allowed(standing(gpu, observed(gpu, "L40S-8Q", vf(0))), step), VgpuForeign)
    assert isinstance(allowed(standing(gpu), step), VgpuNotFound)
    unreadable = card(state=GpuState.UNREADABLE)
    assert isinstance(allowed(unreadable, step), InvalidGpuState)


def test_a_whole_gpu_in_a_guest_is_held_by_whoever_holds_the_gpu():
    gpu = gpu_of(
        "t4", FrameworkKind.MDEV, state=GpuState.PASSED_THROUGH, holders=(Holder(pid=7, command="qemu"),)
    )
    mine = allocation(
        gpu,
        "whole-gpu",
        type_id=0,
        framework=FrameworkKind.PASSTHROUGH,
        parent=gpu.address,
        created_boot=BOOT,
    )
    start = card_of(gpu, CATALOG.keyed("t4"), [mine], BOOT)
    step = replace(removal(creation(t4(), "T4-4Q", "desk", pf())), framework=FrameworkKind.PASSTHROUGH)
    assert isinstance(allowed(start, step), VgpuBusy)
    assert allowed(replace(start, gpu=replace(gpu, holders=())), step) is None


def test_removal_forgets_what_was_observed():
    gpu = gpu_of("l40s")
    mine = allocation(gpu, "L40S-8Q", parent=vf(0), created_boot=BOOT)
    start = standing(
        gpu, observed(gpu, "L40S-8Q", vf(0)), observed(gpu, "L40S-8A", vf(1)), allocations=[mine]
    )
    gone = after(start, removal(creation(start, "L40S-8Q", "desk", vf(0))))
    assert [each.parent for each in gone.occupants] == [vf(1)]
    assert [each.parent for each in gone.gpu.vgpus] == [vf(1)]
    assert isinstance(gone.gpu.creatable, Unknown)


def test_params_are_written_to_what_exists():
    start = card()
    step = creation(start, "L40S-8Q", "a", vf(0))
    params = SetParams(
        vgpu=step.vgpu,
        name="a",
        gpu=step.gpu,
        framework=step.framework,
        parent=vf(0),
        type_id=step.type_id,
        params="frame_rate_limiter=0",
    )
    assert isinstance(allowed(start, params), VgpuNotFound)
    made = after(start, step)
    assert allowed(made, params) is None
    assert after(made, params) is made


# VFs ------------------------------------------------------------------------------------------------


def set_vfs(on, *, enabled):
    return SetVfs(gpu=identity(on.gpu), enabled=enabled)


def test_vfs_go_on_when_nobody_holds_the_pf():
    """hardware.md 1.5.6: any open client makes sriov-manage fail."""
    start = vfs_off()
    step = set_vfs(start, enabled=True)
    assert allowed(start, step) is None
    assert isinstance(allowed(vfs_off(holders=(Holder(pid=1, command="dcgm"),)), step), InvalidGpuState)
    assert isinstance(allowed(vfs_off(holders=Unknown("unreadable")), step), FactUnknown)
    assert isinstance(allowed(vfs_off(state=GpuState.NO_DRIVER), step), InvalidGpuState)
    parked = vfs_off(state=GpuState.PARKED, types=())
    assert allowed(parked, step) is None, "hardware.md 1.5.5: sriov-manage brings it back"
    assert (after(parked, step).gpu.state, after(parked, step).vfs_on) == (GpuState.VFS_OFF, True)
    assert isinstance(allowed(t4(), step), UnsupportedHere)
    assert allowed(card(holders=(Holder(pid=1, command="dcgm"),)), step) is None


def test_vfs_do_not_go_off_under_a_vgpu():
    """hardware.md 1.5.8: -d clears every vGPU."""
    start = card()
    step = set_vfs(start, enabled=False)
    assert allowed(start, step) is None
    made = after(start, creation(start, "L40S-8Q", "a", vf(0)))
    assert "a" in str(allowed(made, step))
    gpu = gpu_of("l40s")
    assert isinstance(allowed(standing(gpu, observed(gpu, "L40S-8Q", vf(0))), step), InvalidGpuState)
    assert allowed(standing(gpu, allocations=[allocation(gpu, "L40S-8Q")]), step) is None
    assert isinstance(allowed(card(holders=Unknown("unreadable")), step), FactUnknown)
    assert allowed(vfs_off(), step) is None


def test_turning_vfs_takes_mixed_size_mode_with_it():
    """hardware.md 0.6: sriov-manage clears heterogeneous mode."""
    on = after(vfs_off(mixed_size=True), set_vfs(card(), enabled=True))
    assert (on.vfs_on, on.gpu.mixed_size) == (True, False)
    off = after(card(mixed_size=True), set_vfs(card(), enabled=False))
    assert (off.vfs_on, off.gpu.state) == (False, GpuState.VFS_OFF)
    assert (off.gpu.mixed_size, off.gpu.vfs) == (False, ())


def test_turning_vfs_the_way_they_are_changes_nothing():
    """hardware.md 1.5.3: -e on an enabled GPU is a no-op that succeeds."""
    start = card(mixed_size=True)
    assert after(start, set_vfs(start, enabled=True)) is start


def test_hostdevs_are_no_business_of_the_card():
    start = card()
    hostdev = Hostdev(source=PciSource(vf(0)))
    for kind in (AttachHostdev, DetachHostdev):
        step = kind(
            vgpu=vgpu_id("a"), name="a", domain="win", hostdev=hostdev, affect=frozenset({Affect.CONFIG})
        )
        assert allowed(start, step) is None
        assert after(start, step) is start

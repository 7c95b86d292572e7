"""The planner: every plan from a picture of a host and the wishes, without a host."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from tests.support.builders import (
    NOW,
    created,
    desktop,
    make_domain,
    make_gpu,
    make_snapshot,
    make_wishes,
    plan_of,
    situation,
    vgpu,
    with_vgpu,
)
from vgpuctl.model import planner
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.document import Affect, DesktopDocument, DesktopVgpu, GpuDocument, ProfileDocument
from vgpuctl.model.domain import Hostdev, MdevSource, PciSource, alias_for
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import FrameworkKind, GpuState, Holder
from vgpuctl.model.plan import Plan, Verdict
from vgpuctl.model.situation import identity_of
from vgpuctl.model.step import AttachHostdev, CreateVgpu, DetachHostdev, RemoveVgpu, SetParams, SetVfs

ALL = (FrameworkKind.SRIOV_MDEV, FrameworkKind.VENDOR_VFIO)


def effects(plan: Plan) -> list[type]:
    return [type(step.effect) for step in plan.steps]


def made_for(plan: Plan, gpu):
    """The GPU and the allocations after the plan's creations."""
    for allocation in plan.allocate:
        parent = next(n for n, vf in enumerate(gpu.vfs) if vf.address == allocation.parent)
        gpu = with_vgpu(gpu, allocation.type_name, parent=parent, uuid=allocation.id)
    return gpu, tuple(created(each) for each in plan.allocate)


@pytest.mark.parametrize("framework", ALL)
def test_a_wish_becomes_an_allocation_and_a_creation(framework):
    gpu = make_gpu(framework=framework)
    plan = plan_of(make_snapshot(gpu), make_wishes(vgpu("a", "L40S-8Q")))
    assert effects(plan) == [CreateVgpu]
    assert plan.problems == ()
    (allocation,) = plan.allocate
    assert allocation.parent == gpu.vfs[0].address
    assert allocation.framework is framework
    assert plan.verdict is Verdict.DRIFT


@pytest.mark.parametrize("framework", ALL)
def test_what_is_as_wished_needs_nothing(framework):
    gpu = make_gpu(framework=framework)
    wishes = make_wishes(vgpu("a", "L40S-8Q"), vgpu("b", "L40S-8Q"))
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), wishes), gpu)
    again = plan_of(make_snapshot(gpu), wishes, allocations)
    assert (again.steps, again.allocate, again.problems) == ((), (), ())
    assert again.verdict is Verdict.MATCH


def test_a_vendor_vfio_vgpu_of_another_boot_is_not_taken_for_ours():
    gpu = make_gpu(framework=FrameworkKind.VENDOR_VFIO)
    wishes = make_wishes(vgpu("a", "L40S-8Q"))
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), wishes), gpu)
    later = plan_of(make_snapshot(gpu, boot_id="boot-2"), wishes, allocations)
    assert effects(later) == [CreateVgpu]
    assert later.steps[0].effect.parent == gpu.vfs[1].address


def test_a_desktop_is_attached_after_its_vgpu_is_made():
    plan = plan_of(
        make_snapshot(make_gpu(), domains=(make_domain("win"),)), make_wishes(desktop("win", "L40S-8Q"))
    )
    assert effects(plan) == [CreateVgpu, AttachHostdev]
    create, attach = plan.steps
    assert attach.needs == (create.number,)
    assert attach.effect.affect == {Affect.CONFIG}
    assert plan.touches == ()


def test_a_running_desktop_is_attached_in_both_definitions():
    host = make_snapshot(make_gpu(), domains=(make_domain("win", running=True),))
    plan = plan_of(host, make_wishes(desktop("win", "L40S-8Q")))
    assert plan.steps[-1].effect.affect == {Affect.CONFIG, Affect.LIVE}
    assert plan.touches == ("win",)


def test_config_only_leaves_the_running_guest_alone():
    entry = DesktopVgpu(name="win", type="L40S-8Q", affect=frozenset({Affect.CONFIG}))
    host = make_snapshot(make_gpu(), domains=(make_domain("win", running=True),))
    plan = plan_of(host, make_wishes(DesktopDocument(name="win", vgpus=(entry,))))
    assert plan.steps[-1].effect.affect == {Affect.CONFIG}


def test_vfs_are_turned_on_first_and_the_rest_is_planned_after():
    gpu = make_gpu(vfs=0)
    plan = plan_of(make_snapshot(gpu), make_wishes(vgpu("a", "L40S-8Q"), vgpu("b", "L40S-8Q")))
    assert effects(plan) == [SetVfs]
    assert plan.incomplete
    assert [each.parent for each in plan.allocate] == [None, None]


def test_places_reserved_while_vfs_are_off_count():
    """Two 48 GB wishes do not both get the one card whose VFs are still off."""
    plan = plan_of(make_snapshot(make_gpu(vfs=0)), make_wishes(vgpu("a", "L40S-48Q"), vgpu("b", "L40S-48Q")))
    assert [each.name for each in plan.allocate] == ["a"]
    assert [each.subject for each in plan.problems] == ["b"]
    assert plan.problems[0].error.code == "no-capacity"


def test_a_dropped_wish_is_detached_then_removed():
    gpu = make_gpu()
    domain = make_domain("win")
    wishes = make_wishes(desktop("win", "L40S-8Q"))
    gpu, allocations = made_for(plan_of(make_snapshot(gpu, domains=(domain,)), wishes), gpu)
    hostdev = Hostdev(MdevSource(allocations[0].id), alias_for(allocations[0].id))
    host = make_snapshot(gpu, domains=(make_domain("win", config=(hostdev,)),))
    assert plan_of(host, wishes, allocations).verdict is Verdict.MATCH
    plan = plan_of(host, make_wishes(), allocations)
    assert effects(plan) == [DetachHostdev, RemoveVgpu]
    assert plan.steps[1].needs == (1,)


def test_what_somebody_else_attached_is_not_removed():
    gpu = make_gpu()
    wishes = make_wishes(vgpu("a", "L40S-8Q"))
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), wishes), gpu)
    by_hand = Hostdev(MdevSource(allocations[0].id))
    host = make_snapshot(gpu, domains=(make_domain("other", config=(by_hand,)),))
    plan = plan_of(host, make_wishes(), allocations)
    assert plan.steps == ()
    assert plan.problems[0].error.code == "vgpu-attached"


def test_a_held_vgpu_is_not_removed_and_the_holder_is_named():
    gpu = make_gpu()
    wishes = make_wishes(vgpu("a", "L40S-8Q"))
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), wishes), gpu)
    held = replace(gpu.vgpus[0], holders=(Holder(4711, "qemu-system-x86", "win"),))
    plan = plan_of(make_snapshot(replace(gpu, vgpus=(held,))), make_wishes(), allocations)
    assert plan.steps == ()
    assert plan.problems[0].error.code == "vgpu-busy"
    assert "4711" in plan.problems[0].error.message


def test_unreadable_holders_are_busy():
    """DESIGN: an unreadable /proc/PID/fd counts as busy."""
    gpu = make_gpu()
    wishes = make_wishes(vgpu("a", "L40S-8Q"))
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), wishes), gpu)
    dark = replace(gpu.vgpus[0], holders=Unknown("/proc/7/fd: permission denied"))
    plan = plan_of(make_snapshot(replace(gpu, vgpus=(dark,))), make_wishes(), allocations)
    assert plan.steps == ()
    assert len(plan.problems) == 1


def test_libvirt_away_blocks_removal_and_not_creation():
    """UNKNOWN among the facts that a step depends on blocks it; elsewhere it does not."""
    gpu = make_gpu()
    wishes = make_wishes(vgpu("a", "L40S-8Q"))
    host = replace(make_snapshot(gpu), domains=Unknown("no answer"), hypervisor=Unknown("no answer"))
    plan = plan_of(host, wishes)
    assert effects(plan) == [CreateVgpu]
    gpu, allocations = made_for(plan, gpu)
    host = replace(host, gpus=(gpu,))
    assert plan_of(host, wishes, allocations).verdict is Verdict.MATCH
    gone = plan_of(host, make_wishes(), allocations)
    assert gone.steps == ()
    assert gone.verdict is Verdict.UNKNOWN


def test_an_unreadable_gpu_keeps_its_allocations():
    gpu = make_gpu()
    wishes = make_wishes(vgpu("a", "L40S-8Q"))
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), wishes), gpu)
    dark = replace(gpu, state=GpuState.UNREADABLE, state_reason="timed out", vgpus=(), vfs=())
    kept = plan_of(make_snapshot(dark), wishes, allocations)
    assert (kept.steps, kept.release, kept.verdict) == ((), (), Verdict.UNKNOWN)
    dropped = plan_of(make_snapshot(dark), make_wishes(), allocations)
    assert (dropped.steps, dropped.release, dropped.verdict) == ((), (), Verdict.UNKNOWN)


def test_another_card_at_the_same_address_stops_it():
    gpu = make_gpu()
    wishes = make_wishes(vgpu("a", "L40S-8Q"))
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), wishes), gpu)
    plan = plan_of(make_snapshot(make_gpu(uuid="GPU-another")), wishes, allocations)
    assert plan.steps == ()
    assert plan.problems[0].error.code == "card-changed"


def test_a_card_in_another_slot_is_followed():
    gpu = make_gpu()
    wishes = make_wishes(vgpu("a", "L40S-8Q"))
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), wishes), gpu)
    moved = make_gpu(index=3, uuid=allocations[0].gpu.uuid)
    plan = plan_of(make_snapshot(moved), wishes, allocations)
    assert effects(plan) == [CreateVgpu]
    assert plan.steps[0].effect.gpu.address == moved.address
    assert plan.allocate[0].id == allocations[0].id


def test_foreign_vgpus_count_and_stay():
    gpu = with_vgpu(make_gpu(), "L40S-48Q")
    plan = plan_of(make_snapshot(gpu), make_wishes(vgpu("a", "L40S-48Q")))
    assert plan.steps == ()
    assert plan.problems[0].error.code == "no-capacity"


def test_scope_leaves_everything_else_alone():
    gpu = make_gpu()
    wishes = make_wishes(vgpu("a", "L40S-8Q"), vgpu("b", "L40S-8Q"))
    plan = plan_of(make_snapshot(gpu), wishes, scope=frozenset({"b"}))
    assert [each.name for each in plan.allocate] == ["b"]


def test_a_profile_that_changes_type_replaces_the_vgpu_in_order():
    gpu = make_gpu()
    before = make_wishes(vgpu("a", "L40S-48Q"))
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), before), gpu)
    plan = plan_of(make_snapshot(gpu), make_wishes(vgpu("a", "L40S-24Q")), allocations)
    assert effects(plan) == [RemoveVgpu, CreateVgpu]
    assert plan.steps[1].needs == (1,)
    assert plan.allocate[0].id != allocations[0].id


def test_parameters_that_differ_are_written():
    profile = ProfileDocument(name="p", types=("L40S-8Q",), params=(("frame_rate_limiter", "0"),))
    wish = replace(vgpu("a", ""), type=None, profile="p")
    gpu = make_gpu()
    wishes = make_wishes(wish, profiles=(profile,))
    plan = plan_of(make_snapshot(gpu), wishes)
    assert plan.steps[0].effect.params == "frame_rate_limiter=0"
    gpu, allocations = made_for(plan, gpu)
    cleared = replace(gpu, vgpus=(replace(gpu.vgpus[0], params=" "),))
    again = plan_of(make_snapshot(cleared), wishes, allocations)
    assert effects(again) == [SetParams]
    assert again.steps[0].effect.params == "frame_rate_limiter=0"
    assert again.steps[0].effect.type_id == gpu.vgpus[0].type_id


def test_a_profile_that_is_gone_keeps_what_there_is():
    profile = ProfileDocument(name="p", types=("L40S-8Q",))
    wish = replace(vgpu("a", ""), type=None, profile="p")
    gpu = make_gpu()
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), make_wishes(wish, profiles=(profile,))), gpu)
    plan = plan_of(make_snapshot(gpu), make_wishes(wish), allocations)
    assert (plan.steps, plan.release, plan.problems) == ((), (), ())


def test_libvirt_that_cannot_take_vendor_vfio_is_told_before():
    gpu = make_gpu(framework=FrameworkKind.VENDOR_VFIO)
    host = make_snapshot(gpu, domains=(make_domain("win"),))
    host = replace(host, hypervisor=replace(host.hypervisor, vendor_vfio_refusal="libvirt 9.0 refuses it"))
    plan = plan_of(host, make_wishes(desktop("win", "L40S-8Q")))
    assert plan.problems[0].error.code == "unsupported-here"
    assert "libvirt 9.0" in plan.problems[0].error.message


def test_gpu_document_turns_vfs_on_and_off():
    off = make_gpu(vfs=0)
    on = plan_of(make_snapshot(off), make_wishes(GpuDocument(name=str(off.address))))
    assert [each.effect.enabled for each in on.steps] == [True]
    gpu = make_gpu()
    down = plan_of(make_snapshot(gpu), make_wishes(GpuDocument(name="0", vfs=False)))
    assert [each.effect.enabled for each in down.steps] == [False]
    used = plan_of(make_snapshot(with_vgpu(gpu, "L40S-8Q")), make_wishes(GpuDocument(name="0", vfs=False)))
    assert used.steps == ()
    assert len(used.problems) == 1


def test_a_whole_gpu_is_given_away_with_its_vfs_off():
    gpu = make_gpu(vfs=0)
    plan = plan_of(make_snapshot(gpu), make_wishes(vgpu("a", "whole-gpu")))
    assert effects(plan) == [CreateVgpu]
    (allocation,) = plan.allocate
    assert (allocation.framework, allocation.parent) == (FrameworkKind.PASSTHROUGH, gpu.address)
    again = plan_of(make_snapshot(gpu), make_wishes(vgpu("a", "whole-gpu")), (created(allocation),))
    assert again.verdict is Verdict.MATCH
    other = plan_of(
        make_snapshot(gpu), make_wishes(vgpu("a", "whole-gpu"), vgpu("b", "L40S-8Q")), (created(allocation),)
    )
    assert [each.subject for each in other.problems] == ["b"]


def test_of_two_places_of_one_name_the_one_that_exists_is_kept():
    """What an operation could not undo must not cost a desktop the vGPU that it has."""
    profile = ProfileDocument(name="p", types=("L40S-8Q", "L40S-8C"))
    wish = replace(vgpu("a", ""), type=None, profile="p")
    gpu = make_gpu()
    wishes = make_wishes(wish, profiles=(profile,))
    gpu, (made,) = made_for(plan_of(make_snapshot(gpu), wishes), gpu)
    for other in (UUID(int=0), UUID(int=2**128 - 1)):
        absent = replace(made, id=other, parent=gpu.vfs[5].address, type_name="L40S-8C", created_boot=None)
        plan = plan_of(make_snapshot(gpu), wishes, (absent, made))
        assert plan.steps == ()
        assert [each.id for each in plan.release] == [other]


def test_a_type_in_another_case_is_still_the_same():
    """Types are found in any case; a vGPU must not be replaced by itself for ever."""
    profile = ProfileDocument(name="p", types=("l40s-8q",))
    wishes = make_wishes(replace(vgpu("a", ""), type=None, profile="p"), profiles=(profile,))
    gpu = make_gpu()
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), wishes), gpu)
    assert plan_of(make_snapshot(gpu), wishes, allocations).verdict is Verdict.MATCH


def test_a_vgpu_pinned_to_a_card_follows_it_to_another_slot():
    gpu = make_gpu()
    wishes = make_wishes(vgpu("a", "L40S-8Q", gpu=gpu.uuid))
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), wishes), gpu)
    moved = make_gpu(index=3, uuid=allocations[0].gpu.uuid)
    plan = plan_of(make_snapshot(moved), wishes, allocations)
    assert effects(plan) == [CreateVgpu]
    assert plan.allocate[0].id == allocations[0].id


def test_the_old_hostdev_leaves_a_guest_before_the_new_one_comes():
    """One ramfb per VM; the new vGPU may stand on another GPU, whose lane waits for nothing."""
    first, second = make_gpu(index=0), make_gpu("a40", index=1)
    before = make_wishes(desktop("win", "L40S-8Q"))
    domain = make_domain("win", running=True)
    first, (made,) = made_for(plan_of(make_snapshot(first, domains=(domain,)), before), first)
    hostdev = Hostdev(MdevSource(made.id), alias_for(made.id))
    domain = make_domain("win", running=True, config=(hostdev,), live=(hostdev,))
    plan = plan_of(
        make_snapshot(first, second, domains=(domain,)), make_wishes(desktop("win", "A40-8Q")), (made,)
    )
    detach = next(each for each in plan.steps if isinstance(each.effect, DetachHostdev))
    attach = next(each for each in plan.steps if isinstance(each.effect, AttachHostdev))
    assert detach.number in attach.needs
    assert plan.touches == ("win",)


def test_every_old_hostdev_leaves_a_domain_before_a_new_one_comes():
    """A new card in front shifts the others: the VF that one vGPU gets is the one that another had."""
    kind = FrameworkKind.VENDOR_VFIO
    both = DesktopDocument(
        name="win",
        vgpus=(DesktopVgpu(name="one", type="L40S-8Q"), DesktopVgpu(name="two", type="L40S-8Q")),
    )
    cards = [make_gpu(framework=kind, index=index) for index in (0, 1)]
    places = [
        created(
            Allocation(
                id=UUID(int=number + 1, version=4),
                name=name,
                type_name="L40S-8Q",
                type_id=card.type_named("L40S-8Q").type_id,
                fb_mib=8192,
                gpu=identity_of(card),
                framework=kind,
                parent=card.vfs[0].address,
                params=None,
                created_at=NOW,
            )
        )
        for number, (name, card) in enumerate(zip(("one", "two"), cards, strict=True))
    ]
    hostdevs = tuple(Hostdev(PciSource(each.parent), alias_for(each.id)) for each in places)
    shifted = [make_gpu(framework=kind, index=each.index + 1, uuid=each.uuid) for each in cards]
    snapshot = make_snapshot(*shifted, domains=(make_domain("win", config=hostdevs),), boot_id="next")
    plan = plan_of(snapshot, make_wishes(both), tuple(places))
    detached = {each.number for each in plan.steps if isinstance(each.effect, DetachHostdev)}
    attached = [each for each in plan.steps if isinstance(each.effect, AttachHostdev)]
    assert (len(detached), len(attached)) == (2, 2)
    assert all(detached <= set(each.needs) for each in attached)


def test_a_running_guest_may_hold_what_is_to_be_unplugged():
    """The holder in the plan's way is the guest that lets go first; the blast radius names it."""
    gpu = make_gpu()
    domain = make_domain("win", running=True)
    gpu, (made,) = made_for(
        plan_of(make_snapshot(gpu, domains=(domain,)), make_wishes(desktop("win", "L40S-8Q"))), gpu
    )
    held = replace(gpu, vgpus=(replace(gpu.vgpus[0], holders=(Holder(7, "qemu-system-x86", "win"),)),))
    hostdev = Hostdev(MdevSource(made.id), alias_for(made.id))
    domain = make_domain("win", running=True, config=(hostdev,), live=(hostdev,))
    plan = plan_of(make_snapshot(held, domains=(domain,)), make_wishes(), (made,))
    assert effects(plan) == [DetachHostdev, RemoveVgpu]
    assert plan.touches == ("win",)
    assert plan.problems == ()


def test_a_managed_save_image_keeps_its_vgpu():
    gpu = make_gpu()
    domain = make_domain("win")
    gpu, (made,) = made_for(
        plan_of(make_snapshot(gpu, domains=(domain,)), make_wishes(desktop("win", "L40S-8Q"))), gpu
    )
    hostdev = Hostdev(MdevSource(made.id), alias_for(made.id))
    domain = replace(make_domain("win", config=(hostdev,)), managed_save=True)
    plan = plan_of(make_snapshot(gpu, domains=(domain,)), make_wishes(), (made,))
    assert plan.steps == ()
    assert [each.error.code for each in plan.problems] == ["domain-state"]
    assert "managedsave" in plan.problems[0].error.hint


@pytest.mark.parametrize(
    ("framework", "same_place"), [(FrameworkKind.SRIOV_MDEV, True), (FrameworkKind.VENDOR_VFIO, False)]
)
def test_at_boot_vgpus_come_before_libvirt(framework: FrameworkKind, same_place: bool):
    """DESIGN: restore runs before libvirtd.  Only where the XML names the VF, it has to be the same VF."""
    away = Unknown("not up yet")
    gpu = make_gpu(framework=framework)
    wishes = make_wishes(desktop("win", "L40S-8Q"))
    (made,) = plan_of(make_snapshot(gpu, domains=(make_domain("win"),)), wishes).allocate
    boot = replace(make_snapshot(gpu, boot_id="boot-2"), domains=away, hypervisor=away)
    plan = plan_of(boot, wishes, (created(made),))
    assert effects(plan) == [CreateVgpu]
    assert plan.steps[0].effect.parent == made.parent
    assert [each.error.code for each in plan.problems] == ["libvirt-unreachable"]
    taken = with_vgpu(gpu, "L40S-8Q", parent=0)
    elsewhere = plan_of(replace(boot, gpus=(taken,)), wishes, (created(made),))
    assert bool(elsewhere.steps) is same_place


def test_vfs_that_were_off_come_back_with_the_same_vgpus_on_them():
    """Allocations are sticky: after a boot the VF that the XML names is the vGPU's again."""
    gpu = make_gpu(framework=FrameworkKind.VENDOR_VFIO)
    both = make_wishes(vgpu("a", "L40S-8Q"), vgpu("b", "L40S-8Q"))
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), both), gpu)
    b = next(each for each in allocations if each.name == "b")
    off = make_gpu(framework=FrameworkKind.VENDOR_VFIO, vfs=0)
    wishes = make_wishes(vgpu("b", "L40S-8Q"))
    first = plan_of(make_snapshot(off, boot_id="boot-2"), wishes, (b,))
    assert effects(first) == [SetVfs]
    (kept,) = first.allocate
    empty = make_gpu(framework=FrameworkKind.VENDOR_VFIO)
    second = plan_of(make_snapshot(empty, boot_id="boot-2"), wishes, (kept,))
    assert second.steps[0].effect.parent == b.parent != empty.vfs[0].address


def test_libvirt_away_hides_what_a_desktop_gave_back():
    """UNKNOWN is not "nowhere": the hostdev of a vGPU that was in a domain may still be there."""
    gpu = make_gpu()
    gpu, allocations = made_for(plan_of(make_snapshot(gpu), make_wishes(vgpu("a", "L40S-8Q"))), gpu)
    host = replace(make_snapshot(gpu), domains=Unknown("no answer"), hypervisor=Unknown("no answer"))
    made = situation(host, make_wishes(vgpu("a", "L40S-8Q")), allocations, frozenset({"a"}))
    assert planner.plan(made).verdict is Verdict.MATCH
    assert planner.plan(replace(made, desktops_change=True)).verdict is Verdict.UNKNOWN


def test_vfs_that_a_document_keeps_off_stay_off():
    gpu, other = make_gpu(vfs=0), make_gpu(vfs=0, index=1)
    off = GpuDocument(name=str(gpu.address), vfs=False)
    plan = plan_of(make_snapshot(gpu), make_wishes(off, vgpu("a", "L40S-8Q")))
    assert plan.steps == ()
    assert plan.problems[0].error.code == "gpu-state"
    plan = plan_of(make_snapshot(gpu, other), make_wishes(off, vgpu("a", "L40S-8Q")))
    assert [each.effect.gpu.address for each in plan.steps] == [other.address]

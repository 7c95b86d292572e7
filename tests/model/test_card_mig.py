"""MIG by the rules of a card: what may be done to its mode and instances, and what it is afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.cards import card, gpu_of, pf, vf
from vgpuctl import errors
from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.card import after, allowed, why_not
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.gpu import (
    ComputeInstance,
    FrameworkKind,
    GpuInstance,
    GpuState,
    Holder,
    ObservedVgpu,
)
from vgpuctl.model.step import (
    CreateComputeInstance,
    CreateGpuInstance,
    DestroyComputeInstance,
    DestroyGpuInstance,
    SetMigMode,
    SetVfs,
)

GPU = GpuIdentity(address=pf(), device=gpu_of("a100-80").device, uuid="GPU-41")
ON, OFF = SetMigMode(gpu=GPU, enabled=True), SetMigMode(gpu=GPU, enabled=False)
CUT = CreateGpuInstance(gpu=GPU, profile="2g.20gb", profile_id=14, start=0, size=2)
GONE = DestroyGpuInstance(gpu=GPU, instance=3, profile="2g.20gb", profile_id=14, start=0, size=2)
SHARED = (ComputeInstance(0, "1c.2g.20gb"),)
SHARE = CreateComputeInstance(
    gpu=GPU, profile="2g.20gb", profile_id=14, start=0, compute="1c.2g.20gb", number=1
)
UNSHARE = DestroyComputeInstance(
    gpu=GPU, instance=3, profile="2g.20gb", profile_id=14, start=0, compute="1c.2g.20gb", compute_id=0
)
TWO = GpuInstance(id=3, profile="2g.20gb", profile_id=14, start=0, size=2)


def off_card(**facts):
    facts = {"mig": False, "state": GpuState.VFS_OFF, "vfs": (), "framework": None, **facts}
    return replace(card("a100-80", **facts), vfs_on=False)


def on_card(*instances, **facts):
    return card("a100-80", mig=True, gpu_instances=instances, creatable=frozenset(), **facts)


def vgpu(name: str, instance):
    vgpu_type = gpu_of("a100-80").type_named(name)
    return ObservedVgpu(
        gpu=pf(),
        parent=vf(0),
        framework=FrameworkKind.VENDOR_VFIO,
        type_id=vgpu_type.type_id,
        type_name=name,
        mdev_uuid=None,
        gpu_instance_id=instance,
    )


def test_the_mode_turns_on_an_empty_card_without_vfs():
    assert allowed(off_card(), ON) is None
    there = after(off_card(), ON)
    assert (there.gpu.mig, there.gpu.gpu_instances, there.gpu.creatable) == (True, (), frozenset())
    assert after(there, OFF).gpu.mig is False


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"mig": Unknown("no NVML")}, errors.FactUnknown),
        ({"holders": (Holder(pid=1, command="dcgm"),)}, errors.InvalidGpuState),
        ({"holders": Unknown("/proc")}, errors.FactUnknown),
        ({"state": GpuState.PASSED_THROUGH}, errors.InvalidGpuState),
    ],
)
def test_the_mode_of_a_card_that_is_in_use_or_not_known_stays(facts, kind):
    assert isinstance(allowed(off_card(**facts), ON), kind)


def test_the_mode_stays_while_vfs_are_on_or_vgpus_are_there_and_where_there_is_none():
    assert isinstance(allowed(card("a100-80", mig=False), ON), errors.InvalidGpuState)
    full = card("a100-80", mig=False, vgpus=(vgpu("A100D-10C", None),))
    assert isinstance(allowed(full, ON), errors.VgpuBusy)
    assert isinstance(allowed(card("l40s", mig=False), ON), errors.UnsupportedHere)
    assert allowed(card("l40s", mig=False), OFF) is None


def test_an_instance_is_cut_where_nothing_is():
    assert allowed(on_card(), CUT) is None
    assert isinstance(allowed(on_card(replace(TWO, start=1, size=1)), CUT), errors.Conflict)
    assert isinstance(allowed(card("a100-80", mig=False), CUT), errors.InvalidGpuState)
    assert isinstance(
        allowed(card("a100-80", mig=True, gpu_instances=Unknown("no NVML")), CUT), errors.FactUnknown
    )


def test_an_instance_makes_room_for_the_types_of_its_profile_and_takes_it_away_again():
    type_named = gpu_of("a100-80").type_named
    none = on_card()
    assert "no GPU instance 2g.20gb" in str(why_not(none, type_named("A100D-2-20C")))
    one = after(none, CUT)
    assert why_not(one, type_named("A100D-2-20C")) is None
    assert why_not(one, type_named("A100D-1-10C")) is not None
    full = replace(one, gpu=replace(one.gpu, gpu_instances=(TWO,)))
    gone = after(full, GONE)
    assert (gone.gpu.gpu_instances, gone.gpu.creatable) == ((), frozenset())


def test_a_planned_layout_counts_where_the_driver_does_not_say_what_is_creatable():
    type_named = gpu_of("a100-80").type_named
    blind = card("a100-80", mig=True, gpu_instances=(TWO,), creatable=Unknown("no VF could be asked"))
    assert why_not(blind, type_named("A100D-2-20C")) is None
    assert isinstance(why_not(blind, type_named("A100D-1-10C")), errors.NoCapacity)


@pytest.mark.parametrize(
    ("instances", "vgpus", "kind"),
    [
        ((TWO,), (), None),
        ((), (), None),
        ((replace(TWO, profile="1g.20gb", profile_id=15),), (), errors.Conflict),
        ((TWO,), (("A100D-2-20C", 3),), errors.VgpuBusy),
        ((TWO,), (("A100D-2-20C", 4),), None),
        ((TWO,), (("A100D-2-20C", Unknown("ENXIO")),), errors.VgpuBusy),
        ((TWO,), (("A100D-1-10C", None),), None),
        ((replace(TWO, compute_instances=SHARED),), (), errors.VgpuBusy),
        ((replace(TWO, compute_instances=Unknown("root")),), (), errors.VgpuBusy),
    ],
)
def test_an_instance_is_destroyed_only_if_nothing_is_or_may_be_on_it(instances, vgpus, kind):
    found = allowed(on_card(*instances, vgpus=tuple(vgpu(*each) for each in vgpus)), GONE)
    assert found is None if kind is None else isinstance(found, kind)


def test_vfs_take_instances_with_them_but_not_somebodys_compute_instances():
    start = replace(on_card(TWO, state=GpuState.VFS_OFF, vfs=()), vfs_on=False)
    turned = SetVfs(gpu=GPU, enabled=True)
    assert allowed(start, turned) is None
    assert known(after(start, turned).gpu.gpu_instances) == ()
    used = replace(start, gpu=replace(start.gpu, gpu_instances=(replace(TWO, compute_instances=SHARED),)))
    refused = allowed(used, turned)
    assert isinstance(refused, errors.InvalidGpuState)
    assert "2g.20gb@0" in str(refused)


def test_compute_instances_come_and_go():
    one = after(on_card(TWO), SHARE)
    assert [each.profile for each in one.gpu.gpu_instances[0].compute_instances] == ["1c.2g.20gb"]
    shared = on_card(replace(TWO, compute_instances=SHARED))
    assert allowed(shared, UNSHARE) is None
    assert after(shared, UNSHARE) == on_card(TWO)
    assert allowed(on_card(TWO), UNSHARE) is None, "it is gone"


@pytest.mark.parametrize("effect", [SHARE, UNSHARE])
@pytest.mark.parametrize(
    ("told", "holders", "kind"),
    [
        (3, (), None),
        (3, (Holder(pid=1, command="qemu"),), errors.VgpuBusy),
        (3, Unknown("/proc"), errors.VgpuBusy),
        (4, (Holder(pid=1, command="qemu"),), None),
        (None, (Holder(pid=1, command="qemu"),), errors.VgpuBusy),
    ],
)
def test_compute_instances_are_never_changed_under_a_running_guest(effect, told, holders, kind):
    """hardware.md 3.3.2; where nobody tells on which instance the guest is, on none that it may be on."""
    guest = replace(vgpu("A100D-2-20C", told), holders=holders)
    found = allowed(on_card(replace(TWO, compute_instances=SHARED), vgpus=(guest,)), effect)
    assert found is None if kind is None else isinstance(found, kind)


@pytest.mark.parametrize(
    ("instances", "effect", "kind"),
    [
        ((), SHARE, errors.Conflict),
        ((replace(TWO, start=2),), UNSHARE, errors.Conflict),
        ((replace(TWO, compute_instances=(ComputeInstance(0, "2g.20gb"),)),), UNSHARE, errors.Conflict),
        ((replace(TWO, compute_instances=Unknown("root")),), UNSHARE, errors.FactUnknown),
    ],
)
def test_what_is_another_by_now_is_left_alone(instances, effect, kind):
    assert isinstance(allowed(on_card(*instances), effect), kind)

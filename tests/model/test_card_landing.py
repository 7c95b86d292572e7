"""On which GPU instance a vGPU is to stand, where the driver lets that be chosen (hardware.md 3.3.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.cards import CATALOG, gpu_of, vf
from vgpuctl.model.card import card_of, landing
from vgpuctl.model.fact import Unknown
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import FrameworkKind, GpuInstance, ObservedVgpu

MODEL = CATALOG.keyed("rtx-pro-6000")
PROFILE = next(each for each in MODEL.types if each.name == "DC-1-3Q").gi_profile
FIRST, SECOND, THIRD = (
    GpuInstance(id=number, profile=PROFILE, profile_id=47, start=start, size=3)
    for number, start in ((3, 6), (4, 0), (5, 3))
)


def vgpu(number: int, name: str, instance) -> ObservedVgpu:
    vgpu_type = next(each for each in MODEL.types if each.name == name)
    return ObservedVgpu(
        gpu=gpu_of("rtx-pro-6000").address,
        parent=vf(number),
        framework=FrameworkKind.VENDOR_VFIO,
        type_id=vgpu_type.type_id,
        type_name=name,
        mdev_uuid=None,
        gpu_instance_id=instance,
    )


def where(*vgpus, name: str = "DC-1-3Q", before: GiPlace | None = None, instances=(FIRST, SECOND, THIRD)):
    there = tuple(vgpu(number, *each) for number, each in enumerate(vgpus))
    gpu = replace(gpu_of("rtx-pro-6000", mig=True), gpu_instances=instances, vgpus=there)
    card = card_of(gpu, MODEL, (), "boot")
    found = landing(card, next(each for each in MODEL.types if each.name == name), before)
    return found and found.id


@pytest.mark.parametrize(
    ("vgpus", "name", "expected"),
    [
        ((), "DC-1-3Q", 3),
        ((("DC-1-3Q", 4),), "DC-1-3Q", 4),
        ((("DC-1-3Q", 3), ("DC-1-3Q", 4), ("DC-1-3A", 4)), "DC-1-3Q", 4),
        ((("DC-1-3Q", 3),), "DC-1-6Q", 4),
        ((*[("DC-1-3Q", 4)] * 8,), "DC-1-3Q", 3),
        ((("DC-1-24Q", 3), ("DC-1-24Q", 4)), "DC-1-24Q", 5),
        ((("DC-1-24Q", 3), ("DC-1-24Q", 4), ("DC-1-24Q", 5)), "DC-1-24Q", None),
        ((), "DC-24Q", None),
    ],
)
def test_the_fullest_that_has_room_else_the_drivers_own_choice(vgpus, name, expected):
    """hardware.md 3.4.1: one size on an instance, so many on each."""
    assert where(*vgpus, name=name) == expected


def test_one_that_was_somewhere_goes_there_again_if_there_is_room():
    assert where(("DC-1-3Q", 4), before=THIRD.place) == 5
    assert where(("DC-1-6Q", 5), ("DC-1-3Q", 4), before=THIRD.place) == 4
    assert where(before=GiPlace(9, PROFILE)) == 3


@pytest.mark.parametrize("told", [None, Unknown("ENXIO"), 77])
def test_who_may_stand_anywhere_leaves_the_choice_to_the_driver(told):
    assert where(("DC-1-3Q", told)) is None
    assert where(("DC-2-24Q", told)) == 3, "one of another profile is not in the way"


def test_instances_that_are_not_known_leave_the_choice_to_the_driver():
    assert where(instances=Unknown("no NVML")) is None


def test_one_that_is_only_planned_counts_and_has_no_number_yet():
    planned = replace(SECOND, id=None)
    assert where(("DC-1-24Q", 3), name="DC-1-24Q", instances=(FIRST, planned)) is None
    assert where(("DC-1-24Q", 3), name="DC-1-24Q", instances=(FIRST, THIRD, planned)) == 5

"""From documents to layouts: how many instances vGPUs take, who stands in the way, and clear refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.cards import CATALOG, gpu_of, pf, vf
from vgpuctl import errors
from vgpuctl.model.document import MigWish
from vgpuctl.model.fact import Unknown
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import ComputeInstance, FrameworkKind, GpuInstance, ObservedVgpu
from vgpuctl.model.mig import Geometry
from vgpuctl.model.mig.wish import instances_for, is_met, layout_for, standing_on


def geometry(key: str = "a100-80") -> Geometry:
    return Geometry.of(CATALOG.mig_profiles(CATALOG.keyed(key)))


def layout(wish: MigWish, key: str = "a100-80", gpu=None, instances=()):
    gpu = gpu or gpu_of(key, mig=True)
    return layout_for(gpu, wish, geometry(key), gpu.types, standing_on(gpu, instances))


def instance(number: int, profile: str, start: int, **more) -> GpuInstance:
    shape = geometry().profile(profile)
    assert shape is not None
    facts = {"id": number, "profile": profile, "profile_id": shape.gi_profile_id, "start": start}
    return GpuInstance(**facts, size=shape.size or 0, **more)


def vgpu(gpu, name: str, instance_id) -> ObservedVgpu:
    vgpu_type = gpu.type_named(name)
    return ObservedVgpu(
        gpu=pf(),
        parent=vf(0),
        framework=FrameworkKind.VENDOR_VFIO,
        type_id=vgpu_type.type_id,
        type_name=name,
        mdev_uuid=None,
        gpu_instance_id=instance_id,
    )


def test_vgpus_of_one_size_share_a_time_sliced_instance():
    """hardware.md 3.4.1: the sum over profile and size of ceil(count / most per instance)."""
    gpu = gpu_of("rtx-pro-6000", mig=True)
    wished = (("DC-1-3Q", 5), ("DC-1-3A", 4), ("DC-1-6Q", 4), ("DC-2-24Q", 3))
    assert instances_for(gpu, wished, gpu.types) == {"1g.24gb+gfx": 3, "2g.48gb+gfx": 2}


@pytest.mark.parametrize(
    ("wish", "kind", "words"),
    [
        ({"profiles": (("4g.41gb", 1),)}, errors.InvalidInput, "has no GPU-instance profile 4g.41gb"),
        ({"profiles": (("2g.12gb", 1),)}, errors.InvalidInput, "has no GPU-instance profile 2g.12gb"),
        ({"profiles": (("7g.80gb", 2),)}, errors.NoCapacity, "at most 1 x 7g.80gb of it fits"),
        (
            {"profiles": (("1g.10gb", 1), ("4g.40gb", 2))},
            errors.NoCapacity,
            "no room for 1 x 1g.10gb and 2 x 4g.40gb; at most 1 x 1g.10gb and 1 x 4g.40gb of it fits",
        ),
        ({"vgpus": (("A100D-2-21C", 1),)}, errors.TypeUnknown, "has no vGPU type A100D-2-21C"),
        ({"vgpus": (("H100-2-20C", 1),)}, errors.TypeUnknown, "has no vGPU type H100-2-20C"),
        ({"vgpus": (("A100D-10C", 1),)}, errors.InvalidInput, "A100D-10C is not MIG-backed"),
        ({"vgpus": (("A100D-4-40C", 2),)}, errors.NoCapacity, "2 x A100D-4-40C, which take 2 x 4g.40gb"),
        (
            {"instances": (GiPlace(1, "2g.20gb"),)},
            errors.InvalidInput,
            "2g.20gb cannot lie at slice 1",
        ),
        (
            {"instances": (GiPlace(0, "3g.40gb"), GiPlace(2, "2g.20gb"))},
            errors.InvalidInput,
            "3g.40gb@0 and 2g.20gb@2 overlap",
        ),
        (
            {"instances": (GiPlace(0, "1g.10gb+me"), GiPlace(1, "1g.10gb+me"))},
            errors.NoCapacity,
            "does not take 2 x 1g.10gb+me together",
        ),
    ],
)
def test_one_clear_message(wish, kind, words):
    with pytest.raises(kind) as caught:
        layout(MigWish(**wish))
    assert words in str(caught.value)


def test_the_three_levels_come_to_the_same():
    profiles = layout(MigWish(profiles=(("1g.10gb", 3), ("2g.20gb", 2))))
    assert layout(MigWish(vgpus=(("A100D-1-10C", 3), ("A100D-2-20C", 2)))) == profiles
    assert layout(MigWish(instances=profiles.created)) == profiles


def test_who_stands_on_an_instance():
    gpu = gpu_of("a100-80", mig=True)
    there = [instance(3, "2g.20gb", 0), instance(4, "2g.20gb", 2), instance(13, "1g.10gb", 6)]
    sure = replace(gpu, vgpus=(vgpu(gpu, "A100D-2-20C", 4),))
    assert [each.held_by for each in standing_on(sure, there, {vf(0): "cad (domain vm)"})] == [
        None,
        "vGPU cad (domain vm)",
        None,
    ]
    # Nobody tells on which it is: on any that its type takes.
    for told in (None, Unknown("ENXIO")):
        unsure = replace(gpu, vgpus=(vgpu(gpu, "A100D-2-20C", told),))
        held = [each.held_by is not None for each in standing_on(unsure, there)]
        assert held == [True, True, False]
    nameless = replace(vgpu(gpu, "A100D-2-20C", None), type_id=Unknown("EIO"))
    assert all(each.held_by for each in standing_on(replace(gpu, vgpus=(nameless,)), there))


@pytest.mark.parametrize(
    "compute", [(ComputeInstance(0, "1c.3g.40gb"),), Unknown("Insufficient Permissions")]
)
def test_an_instance_with_compute_instances_is_somebodys(compute):
    gpu = gpu_of("a100-80", mig=True)
    (found,) = standing_on(gpu, [instance(1, "3g.40gb", 0, compute_instances=compute)])
    assert "compute instance" in (found.held_by or "")
    with pytest.raises(errors.NoCapacity, match=r"7g\.80gb"):
        layout(
            MigWish(profiles=(("7g.80gb", 1),)),
            gpu=gpu,
            instances=[instance(1, "3g.40gb", 0, compute_instances=compute)],
        )


@pytest.mark.parametrize(
    ("wish", "facts", "met"),
    [
        (MigWish(), {"mig": True}, True),
        (MigWish(), {"mig": False}, False),
        (MigWish(enabled=False), {"mig": False}, True),
        (MigWish(), {"mig": Unknown("no NVML")}, True),
        (MigWish(profiles=(("2g.20gb", 1),)), {"mig": True, "gpu_instances": ()}, False),
        (MigWish(profiles=(("2g.20gb", 1),)), {"mig": True, "gpu_instances": Unknown("no NVML")}, True),
        (MigWish(profiles=()), {"mig": True, "gpu_instances": (instance(3, "2g.20gb", 0),)}, False),
        (MigWish(vgpus=(("A100D-2-20C", 1),)), {"mig": True, "gpu_instances": ()}, False),
        (
            MigWish(vgpus=(("A100D-2-20C", 1),)),
            {"mig": True, "gpu_instances": (instance(3, "2g.20gb", 0), instance(13, "1g.10gb", 6))},
            True,
        ),
        (
            MigWish(instances=(GiPlace(2, "2g.20gb"),)),
            {"mig": True, "gpu_instances": (instance(3, "2g.20gb", 0),)},
            False,
        ),
    ],
)
def test_whether_a_card_is_as_wished(wish, facts, met):
    assert is_met(wish, gpu_of("a100-80", **facts)) is met

"""MIG by vgpuctl's own steps: what they read, do and refuse is the same on both hosts (hardware.md 3)."""

from __future__ import annotations

import pytest

from tests.conformance.bench import identity
from vgpuctl.errors import FactUnknown, NoCapacity, UnsupportedHere, VgpuBusy
from vgpuctl.model.giprofile import Place
from vgpuctl.model.step import CreateGpuInstance, DestroyGpuInstance, SetMigMode


def turn_mig(bench, *, enabled: bool) -> None:
    bench.host.run(SetMigMode(gpu=identity(bench.gpu()), enabled=enabled))


def cut(bench, profile: str, start: int) -> None:
    gpu = bench.gpu()
    found = next(each for each in gpu.gi_profiles if each.name == profile)
    bench.host.run(
        CreateGpuInstance(
            gpu=identity(gpu),
            profile=profile,
            profile_id=found.gi_profile_id,
            start=start,
            size=found.size,
        )
    )


def destroy(bench, place: Place) -> None:
    gpu = bench.gpu()
    found = next(each for each in gpu.gpu_instances if each.place == place)
    bench.host.run(
        DestroyGpuInstance(
            gpu=identity(gpu),
            instance=found.id,
            profile=found.profile,
            profile_id=found.profile_id,
            start=found.start,
            size=found.size,
        )
    )


def places(bench) -> list[Place]:
    return sorted(each.place for each in bench.gpu().gpu_instances)


def remaining(bench) -> dict[str, int]:
    return {each.name: each.remaining for each in bench.gpu().gi_profiles}


@pytest.mark.parametrize("framework", ["vendor-vfio", "sriov-mdev"])
def test_from_the_mode_to_a_vgpu_on_its_instance_and_back(host, framework):
    """hardware.md 3.1.3, 3.1.5, 3.3.1, 3.3.3: order, coupled counts, the driver's choice."""
    bench = host(f"a100-80:{framework}")
    assert bench.gpu().gpu_instances == ()
    assert {each.name for each in bench.gpu().gi_profiles} >= {"1g.10gb", "7g.80gb"}, "told with MIG off too"
    turn_mig(bench, enabled=True)
    bench.turn_on()
    assert (bench.gpu().mig, bench.creatable()) == (True, set())
    cut(bench, "3g.40gb", 4)
    assert (remaining(bench)["1g.10gb"], remaining(bench)["7g.80gb"]) == (4, 0)
    cut(bench, "2g.20gb", 2)
    cut(bench, "1g.10gb", 0)
    assert [str(each) for each in places(bench)] == ["1g.10gb@0", "2g.20gb@2", "3g.40gb@4"]
    with pytest.raises(NoCapacity) as caught:
        cut(bench, "2g.20gb", 0)
    assert caught.value.facts["nvml"] == 23
    assert bench.creatable() == {"A100D-1-10C", "A100D-2-20C", "A100D-3-40C"}

    bench.create(bench.gpu(), "A100D-2-20C")
    with pytest.raises((VgpuBusy, FactUnknown)):
        destroy(bench, Place(2, "2g.20gb"))
    destroy(bench, Place(4, "3g.40gb"))
    assert [str(each) for each in places(bench)] == ["1g.10gb@0", "2g.20gb@2"]


def test_a_card_without_mig_says_so(host):
    bench = host("a2")
    gpu = bench.gpu()
    assert (gpu.mig, gpu.gpu_instances) == (False, ())
    with pytest.raises(UnsupportedHere):
        turn_mig(bench, enabled=True)

"""MIG by vgpuctl's own steps: what they read, do and refuse is the same on both hosts (hardware.md 3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.conformance.bench import held_name, identity
from vgpuctl.errors import FactUnknown, NoCapacity, UnsupportedHere, VgpuBusy
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import ComputeInstance
from vgpuctl.model.step import (
    CreateComputeInstance,
    CreateGpuInstance,
    DestroyComputeInstance,
    DestroyGpuInstance,
    SetMigMode,
)


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


def destroy(bench, place: GiPlace) -> None:
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


def places(bench) -> list[GiPlace]:
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
        destroy(bench, GiPlace(2, "2g.20gb"))
    destroy(bench, GiPlace(4, "3g.40gb"))
    assert [str(each) for each in places(bench)] == ["1g.10gb@0", "2g.20gb@2"]


@pytest.mark.parametrize("framework", ["vendor-vfio", "sriov-mdev"])
def test_compute_instances_are_shares_of_a_gpu_instance_and_the_hosts_until_a_guest_runs(host, framework):
    """hardware.md 1.6.6, 3.3.2: made and destroyed on an idle instance; a GPU instance with any stays."""
    bench = host(f"a100-80:{framework}", mig=True, vfs=True)
    cut(bench, "3g.40gb", 4)
    (three,) = bench.gpu().gpu_instances

    def share(compute: str, number: int = 1) -> None:
        bench.host.run(
            CreateComputeInstance(
                gpu=identity(bench.gpu()),
                profile=three.profile,
                profile_id=three.profile_id,
                start=three.start,
                compute=compute,
                number=number,
            )
        )

    def unshare(compute: ComputeInstance) -> None:
        bench.host.run(
            DestroyComputeInstance(
                gpu=identity(bench.gpu()),
                instance=three.id,
                profile=three.profile,
                profile_id=three.profile_id,
                start=three.start,
                compute=compute.profile,
                compute_id=compute.id,
            )
        )

    def shares() -> list[str]:
        return sorted(each.profile for each in bench.gpu().gpu_instances[0].compute_instances)

    for _ in range(2):
        share("2c.3g.40gb")
    share("1c.3g.40gb")
    assert shares() == ["1c.3g.40gb", "2c.3g.40gb"]
    with pytest.raises(NoCapacity):
        share("1c.3g.40gb", 2)
    with pytest.raises(UnsupportedHere):
        share("4c.3g.40gb")
    with pytest.raises(VgpuBusy):
        destroy(bench, three.place)
    step = bench.create(bench.gpu(), "A100D-3-40C")
    small = next(each for each in bench.gpu().gpu_instances[0].compute_instances if each.profile[0] == "1")
    unshare(small)
    bench.control("hold", vgpu=held_name(step), domain="desk")
    for change in (lambda: share("1c.3g.40gb"), lambda: unshare(replace(small, profile="2c.3g.40gb"))):
        with pytest.raises(VgpuBusy):
            change()
    assert shares() == ["2c.3g.40gb"]


def test_a_card_without_mig_says_so(host):
    bench = host("a2")
    gpu = bench.gpu()
    assert (gpu.mig, gpu.gpu_instances) == (False, ())
    with pytest.raises(UnsupportedHere):
        turn_mig(bench, enabled=True)

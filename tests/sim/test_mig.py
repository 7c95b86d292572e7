"""MIG of the simulated host: what NVML and the driver answer, on every layout that a GPU has."""

from __future__ import annotations

import errno

import pytest

from tests.model.test_mig_solver import FAMILIES, layouts
from vgpuctl.errors import NoCapacity
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import ComputeInstance
from vgpuctl.model.mig import Geometry, Layout, solve
from vgpuctl.model.pci import PciAddress
from vgpuctl.ports.nvml import CutCompute, CutInstance, DestroyCompute, DestroyInstance, SetMode
from vgpuctl.sim import mig
from vgpuctl.sim.host import SimHost

GPU = PciAddress.parse("0000:41:00.0")
VF = "sys/bus/pci/devices/0000:41:00.4"


def in_mig_mode(model: str, framework: str = "vendor-vfio"):
    host = SimHost.in_memory(f"{model}:{framework}" if ":" not in model else model)
    assert order(host, SetMode(gpu=GPU, enabled=True)).code == mig.SUCCESS
    return host


def order(host, what):
    return host.nvml.order(what, 1)


def gpu_of(host):
    return host.nvml.host(1).gpus[0]


def cut(host, profile: str, start: int):
    found = next(each for each in gpu_of(host).gi_profiles if each.name == profile)
    return order(host, CutInstance(gpu=GPU, profile_id=found.gi_profile_id, start=start, size=found.size))


def remaining(host) -> dict[str, int]:
    return {each.name: each.remaining for each in gpu_of(host).gi_profiles}


def with_vfs(host):
    assert host.kernel.sriov_manage(str(GPU), enable=True, timeout_s=1).exit_status == 0
    return host


@pytest.mark.parametrize("key", FAMILIES)
def test_every_layout_is_planned_and_built_from_empty_and_taken_down(key):
    host = in_mig_mode(key)
    shape = Geometry.of(gpu_of(host).gi_profiles)
    for wanted in layouts(key):
        planned = solve(shape, dict(wanted), [])
        assert isinstance(planned, Layout)
        places = list(planned.created)
        for each in places:
            done = cut(host, each.profile, each.start)
            assert done.code == mig.SUCCESS, (places, each)
        assert sorted(each.place for each in gpu_of(host).gpu_instances) == places
        ids = [each.id for each in gpu_of(host).gpu_instances]
        assert len(set(ids)) == len(ids)
        for each in gpu_of(host).gpu_instances:
            gone = DestroyInstance(gpu=GPU, instance=each.id, profile_id=each.profile_id, start=each.start)
            assert order(host, gone).code == mig.SUCCESS
        assert gpu_of(host).gpu_instances == ()


def test_free_counts_are_coupled():
    """hardware.md 3.1.3: creating one 3g.40gb drops 1g.10gb from 7 to 3."""
    host = in_mig_mode("a100-80")
    assert remaining(host)["1g.10gb"] == 7
    cut(host, "3g.40gb", 0)
    assert (remaining(host)["1g.10gb"], remaining(host)["3g.40gb"], remaining(host)["7g.80gb"]) == (3, 1, 0)


def test_what_nvml_refuses_and_how():
    host = in_mig_mode("a100-80")
    assert cut(host, "2g.20gb", 0).code == mig.SUCCESS
    assert cut(host, "3g.40gb", 0).code == mig.INSUFFICIENT_RESOURCES
    assert cut(host, "2g.20gb", 1).code == mig.INVALID_ARGUMENT
    assert order(host, CutInstance(gpu=GPU, profile_id=99, start=0, size=1)).code == mig.INVALID_ARGUMENT
    unknown = DestroyInstance(gpu=GPU, instance=77, profile_id=19, start=0)
    assert order(host, unknown).code == mig.NOT_FOUND
    assert order(host, SetMode(gpu=GPU, enabled=False)).code == mig.IN_USE
    other = SimHost.in_memory("l40s")
    assert other.nvml.order(SetMode(gpu=GPU, enabled=True), 1).code == mig.NOT_SUPPORTED
    off = SimHost.in_memory("a100-80")
    assert cut(off, "2g.20gb", 0).code == mig.NOT_SUPPORTED, "MIG mode is off"


@pytest.mark.parametrize(
    ("model", "code", "pending"), [("a100-80", mig.SUCCESS, True), ("h100", mig.IN_USE, False)]
)
def test_a_gpu_in_use_keeps_its_mode_and_ampere_changes_it_at_the_next_reset(model, code, pending):
    """hardware.md 3.2.1, 3.2.3: success, and IN_USE as the second answer."""
    host = SimHost.in_memory(model)
    host.control("hold", {"parent": str(GPU)})
    done = order(host, SetMode(gpu=GPU, enabled=True))
    assert (done.code, done.activation) == (code, mig.IN_USE if pending else 0)
    assert (gpu_of(host).mig_current, gpu_of(host).mig_pending) == (False, pending)
    host.control("reboot")
    assert gpu_of(host).mig_current is pending


@pytest.mark.parametrize("action", ["sriov-manage", "reboot", "reload-driver"])
def test_instances_are_lost(action):
    """hardware.md 0.6, 0.9."""
    host = in_mig_mode("a100-80")
    cut(host, "2g.20gb", 0)
    with_vfs(host) if action == "sriov-manage" else host.control(action)
    assert gpu_of(host).gpu_instances == ()


def test_a_vgpu_takes_the_first_instance_of_its_profile_and_its_vf_says_which():
    """hardware.md 3.3.3."""
    host = with_vfs(in_mig_mode("a100-80"))
    cut(host, "2g.20gb", 4)
    cut(host, "2g.20gb", 0)
    listed = host.kernel.read(f"{VF}/nvidia/creatable_vgpu_types")
    assert "A100D-2-20C" in listed
    assert "A100D-1-10C" not in listed, "no GPU instance has its profile"
    assert "A100D-10C" not in listed, "it is time-sliced"
    type_id = next(line.split()[0] for line in listed.splitlines() if line.endswith("A100D-2-20C"))
    host.kernel.write(f"{VF}/nvidia/current_vgpu_type", type_id)
    assert host.kernel.read(f"{VF}/nvidia/gpu_instance_id") == "3", "that of slices 0 and 1"
    taken = DestroyInstance(gpu=GPU, instance=3, profile_id=14, start=0)
    assert order(host, taken).code == mig.IN_USE
    with pytest.raises(OSError, match="Input/output error") as caught:
        host.kernel.write("sys/bus/pci/devices/0000:41:00.5/nvidia/current_vgpu_type", "699")
    assert caught.value.errno == errno.EIO


def test_time_sliced_instances_take_several_of_one_size():
    """hardware.md 3.4.1."""
    host = with_vfs(in_mig_mode("rtx-pro-6000"))
    cut(host, "1g.24gb+gfx", 0)
    for number in (4, 5):
        host.kernel.write(f"sys/bus/pci/devices/0000:41:00.{number}/nvidia/current_vgpu_type", "1549")
    listed = host.kernel.read("sys/bus/pci/devices/0000:41:00.6/nvidia/creatable_vgpu_types")
    assert "DC-1-3A" in listed, "the same size, another series"
    assert "DC-1-6Q" not in listed


def test_somebody_else_cuts_an_instance_with_a_compute_instance():
    host = in_mig_mode("a100-80")
    assert host.control("mig-cut", {"gpu": str(GPU), "profile": "3g.40gb", "compute": True}) == {
        "instance": 1,
        "start": 0,
    }
    (made,) = gpu_of(host).gpu_instances
    assert (made.place, made.compute_instances) == (GiPlace(0, "3g.40gb"), (ComputeInstance(0, "3g.40gb"),))
    gone = DestroyInstance(gpu=GPU, instance=1, profile_id=9, start=0)
    assert order(host, gone).code == mig.IN_USE
    with pytest.raises(NoCapacity):
        host.control("mig-cut", {"gpu": str(GPU), "profile": "7g.80gb"})


def test_compute_instances_share_out_the_slices_of_their_gpu_instance():
    host = in_mig_mode("a100-80")
    cut(host, "3g.40gb", 0)

    def share(compute: str, instance: int = 1) -> int:
        wanted = CutCompute(gpu=GPU, instance=instance, profile_id=9, start=0, compute=compute)
        return order(host, wanted).code

    def unshare(number: int) -> int:
        gone = DestroyCompute(
            gpu=GPU, instance=1, profile_id=9, start=0, compute="1c.3g.40gb", compute_id=number
        )
        return order(host, gone).code

    def shares() -> list[tuple[int, str]]:
        return [(each.id, each.profile) for each in gpu_of(host).gpu_instances[0].compute_instances]

    assert share("1c.3g.40gb", instance=2) == mig.NOT_FOUND
    assert share("4c.3g.40gb") == mig.NOT_SUPPORTED
    assert [share("1c.3g.40gb"), share("2c.3g.40gb")] == [mig.SUCCESS] * 2
    assert share("1c.3g.40gb") == mig.INSUFFICIENT_RESOURCES
    assert shares() == [(0, "1c.3g.40gb"), (1, "2c.3g.40gb")]
    assert [unshare(0), unshare(0)] == [mig.SUCCESS, mig.NOT_FOUND]
    assert share("3g.40gb") == mig.INSUFFICIENT_RESOURCES
    assert unshare(1) == mig.SUCCESS
    assert share("3g.40gb") == mig.SUCCESS
    assert shares() == [(0, "3g.40gb")]

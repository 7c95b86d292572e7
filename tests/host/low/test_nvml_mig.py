"""MIG over the binding's own functions and structures, with a library that a test has written."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from types import SimpleNamespace

import pynvml
import pytest

from tests.host.low.nvml_stub import NVMLError, fails, stub
from vgpuctl.host.nvml import mig
from vgpuctl.model.fact import Unknown
from vgpuctl.model.giprofile import MigProfile
from vgpuctl.model.gpu import ComputeInstance, GpuInstance
from vgpuctl.model.pci import PciAddress
from vgpuctl.ports.nvml import CutCompute, CutInstance, DestroyCompute, DestroyInstance, SetMode

GPU = PciAddress.parse("0000:41:00.0")
PLACES = ((4, 4), (0, 4))
INFO = SimpleNamespace(id=7, profileId=9, placement=SimpleNamespace(start=4, size=4))


def library(**functions) -> SimpleNamespace:
    """One profile (3g.40gb), with one instance at slice 4 that has a compute instance."""

    def profile_info(_handle, number):
        if number != 2:
            raise NVMLError("Not Supported")
        return SimpleNamespace(id=9, name=b"MIG 3g.40gb", sliceCount=3, instanceCount=2)

    def placements(_handle, profile, room, count):
        assert profile == 9
        target = ctypes.cast(count, ctypes.POINTER(ctypes.c_uint))
        target[0] = len(PLACES)
        for index, (start, size) in enumerate(PLACES if room is not None else ()):
            room[index].start, room[index].size = start, size

    def listed(wanted, how_many):
        def call(_parent, profile, room, count):
            assert profile == wanted
            assert len(room) >= how_many
            ctypes.cast(count, ctypes.POINTER(ctypes.c_uint))[0] = how_many

        return call

    def compute_info(_instance, number, engines):
        if number:
            raise NVMLError("Not Supported")
        assert engines == 0
        return SimpleNamespace(id=2, sliceCount=2, instanceCount=1)

    calls: list[object] = []

    def create(handle, profile, place):
        pointed = ctypes.cast(place, ctypes.POINTER(pynvml.c_nvmlGpuInstancePlacement_t))
        calls.append(("create", handle, profile, pointed[0].start, pointed[0].size))
        return "made"

    module = {
        "calls": calls,
        "nvmlInit": lambda: calls.append("nvmlInit"),
        "nvmlShutdown": lambda: calls.append("nvmlShutdown"),
        "NVML_GPU_INSTANCE_PROFILE_COUNT": 4,
        "NVML_COMPUTE_INSTANCE_PROFILE_COUNT": 2,
        "c_nvmlGpuInstance_t": pynvml.c_nvmlGpuInstance_t,
        "c_nvmlComputeInstance_t": pynvml.c_nvmlComputeInstance_t,
        "c_nvmlGpuInstancePlacement_t": pynvml.c_nvmlGpuInstancePlacement_t,
        "nvmlDeviceGetGpuInstanceProfileInfo": profile_info,
        "nvmlDeviceGetGpuInstancePossiblePlacements": placements,
        "nvmlDeviceGetGpuInstanceRemainingCapacity": lambda handle, profile: 1,
        "nvmlDeviceGetGpuInstances": listed(9, 1),
        "nvmlGpuInstanceGetInfo": lambda instance: INFO,
        "nvmlGpuInstanceGetComputeInstanceProfileInfo": compute_info,
        "nvmlGpuInstanceGetComputeInstances": listed(2, 1),
        "nvmlComputeInstanceGetInfo": lambda compute: SimpleNamespace(id=1, profileId=2),
        "nvmlGpuInstanceCreateComputeInstance": lambda *asked: calls.append(("share", *asked)) or "share",
        "nvmlGpuInstanceGetComputeInstanceById": lambda instance, number: f"{number} of {instance}",
        "nvmlComputeInstanceDestroy": lambda compute: calls.append(("unshare", compute)),
        "nvmlDeviceGetHandleByPciBusId": lambda address: f"handle of {address.decode()}",
        "nvmlDeviceSetMigMode": lambda handle, mode: calls.append(("mode", handle, mode)) or 19,
        "nvmlErrorString": lambda code: f"error {code}",
        "nvmlDeviceCreateGpuInstanceWithPlacement": create,
        "nvmlDeviceGetGpuInstanceById": lambda handle, number: f"instance {number}",
        "nvmlGpuInstanceDestroy": lambda instance: calls.append(("destroy", instance)),
    }
    return stub(**{**module, **functions})


def test_profiles_with_placements_in_order_and_what_remains():
    expected = MigProfile(name="3g.40gb", gi_profile_id=9, slices=3, max=2, starts=(0, 4), size=4)
    (on,) = mig.gi_profiles(library(), "gpu", is_on=True)
    (off,) = mig.gi_profiles(library(), "gpu", is_on=False)
    assert on == off == expected
    assert (on.remaining, off.remaining) == (1, None)


def test_instances_with_their_compute_instances():
    assert mig.gpu_instances(library(), "gpu", is_on=False) == ()
    assert mig.gpu_instances(library(), "gpu", is_on=True) == (
        GpuInstance(
            id=7,
            profile="3g.40gb",
            profile_id=9,
            start=4,
            size=4,
            compute_instances=(ComputeInstance(1, "2c.3g.40gb"),),
        ),
    )


@pytest.mark.parametrize("function", ["nvmlDeviceGetGpuInstances", "nvmlGpuInstanceGetInfo"])
def test_a_list_with_holes_is_no_list(function):
    found = mig.gpu_instances(library(**{function: fails("Insufficient Permissions")}), "gpu", is_on=True)
    assert found == Unknown(f"{function}: Insufficient Permissions")


def test_unreadable_compute_instances_are_not_none():
    module = library(nvmlGpuInstanceGetComputeInstances=fails("Insufficient Permissions"))
    (found,) = mig.gpu_instances(module, "gpu", is_on=True)
    assert isinstance(found.compute_instances, Unknown)


def test_orders_and_their_answers():
    module = library()
    done = mig.carry_out(module, SetMode(gpu=GPU, enabled=True))
    assert (done.code, done.activation, done.text) == (0, 19, "error 19")
    made = mig.carry_out(module, CutInstance(gpu=GPU, profile_id=9, start=4, size=4))
    assert (made.code, made.instance) == (0, 7)
    gone = mig.carry_out(module, DestroyInstance(gpu=GPU, instance=7, profile_id=9, start=4))
    assert gone.code == 0
    handle = "handle of 0000:41:00.0"
    assert module.calls == [
        "nvmlInit", ("mode", handle, 1), "nvmlShutdown",
        "nvmlInit", ("create", handle, 9, 4, 4), "nvmlShutdown",
        "nvmlInit", ("destroy", "instance 7"), "nvmlShutdown",
    ]  # fmt: skip


def test_an_instance_that_is_another_by_now_is_left_alone():
    module = library()
    done = mig.carry_out(module, DestroyInstance(gpu=GPU, instance=7, profile_id=9, start=0))
    assert done.code != 0
    assert ("destroy", "instance 7") not in module.calls


SHARE = CutCompute(gpu=GPU, instance=7, profile_id=9, start=4, compute="2c.3g.40gb")
UNSHARE = DestroyCompute(gpu=GPU, instance=7, profile_id=9, start=4, compute="2c.3g.40gb", compute_id=1)


def test_compute_instances_are_made_by_name_and_destroyed_only_where_they_are_still_the_same():
    module = library()
    assert mig.carry_out(module, SHARE).instance == 1
    assert mig.carry_out(module, UNSHARE).code == 0
    assert [each for each in module.calls if each[0] in ("share", "unshare")] == [
        ("share", "instance 7", 2),
        ("unshare", "1 of instance 7"),
    ]
    module = library()
    for order in (
        replace(SHARE, start=0),
        replace(SHARE, compute="1c.3g.40gb"),
        replace(UNSHARE, start=0),
        replace(UNSHARE, compute="1c.3g.40gb"),
    ):
        assert mig.carry_out(module, order).code != 0
    assert {*module.calls} == {"nvmlInit", "nvmlShutdown"}


def test_an_instance_of_which_no_share_can_be_read_is_not_one_without():
    module = library(nvmlGpuInstanceGetComputeInstanceProfileInfo=fails("Function Not Found"))
    (found,) = mig.gpu_instances(module, "gpu", is_on=True)
    assert isinstance(found.compute_instances, Unknown)


def test_a_refusal_has_nvmls_number():
    error = NVMLError("Insufficient Resources")
    error.value = 23

    def refuse(*_arguments):
        raise error

    module = library(nvmlDeviceCreateGpuInstanceWithPlacement=refuse)
    done = mig.carry_out(module, CutInstance(gpu=GPU, profile_id=9, start=4, size=4))
    assert (done.code, done.text) == (23, "Insufficient Resources")
    assert module.calls[-1] == "nvmlShutdown"

"""MIG through NVML in the rig: profiles, places, GPU instances and compute instances."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.rig.nvml_client import (
    AT_41,
    AT_61,
    DEVICES,
    answer,
    as_nobody,
    code_of,
    gpu_at,
    node_of,
    sriov_manage,
    vfs_of,
)
from vgpuctl.host.nvml.mig import carry_out, gpu_instances
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.pci import PciAddress
from vgpuctl.ports.nvml import CutCompute, CutInstance, DestroyCompute, DestroyInstance, SetMode

ONE_G, ONE_G_ME, THREE_G, WHOLE = 19, 20, 9, 0
"""Ids of an AT_61's GPU-instance profiles [hardware.md 3.1]."""


@pytest.mark.rig
def test_gpu_instances_are_cut_filled_and_destroyed(nvsim, nvml, nvml_helper):
    nvsim.load("a100-80:sriov-mdev@61")
    nvml.nvmlInit()
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    profiles = {each.gi_profile_id: each for each in Catalog().mig_profiles(Catalog().keyed("a100-80"))}
    told = {}
    for number in range(nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        if code_of(nvml.nvmlDeviceGetGpuInstanceProfileInfo, gpu, number) == nvml.NVML_SUCCESS:
            info = nvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, number)
            told[info.id] = (info.name, info.sliceCount, info.instanceCount)
            assert info.id == nvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, number, version=1).id
            assert info.name == nvml.nvmlDeviceGetGpuInstanceProfileInfoById(gpu, info.id).name
    assert told == {number: (f"MIG {it.name}", it.slices, it.max) for number, it in profiles.items()}
    assert (
        nvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, nvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1).id
        == ONE_G_ME
    )
    room = (nvml.c_nvmlGpuInstancePlacement_t * 16)()
    count = ctypes.c_uint()
    for number, profile in profiles.items():
        nvml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu, number, None, ctypes.byref(count))
        assert count.value == len(profile.starts)
        nvml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu, number, room, ctypes.byref(count))
        assert [each.start for each in room[: count.value]] == list(profile.starts)
        assert {each.size for each in room[: count.value]} == {profile.size}

    assert code_of(nvml.nvmlDeviceCreateGpuInstance, gpu, ONE_G) == nvml.NVML_ERROR_NOT_SUPPORTED
    assert nvml.nvmlDeviceGetMigMode(gpu) == [0, 0]
    with Path(
        node_of(gpu)
    ).open():  # hardware.md 3.2: while somebody else uses the GPU the mode stays pending
        assert nvml.nvmlDeviceSetMigMode(gpu, 1) == nvml.NVML_ERROR_IN_USE
    assert nvml.nvmlDeviceGetMigMode(gpu) == [0, 1]
    assert nvml.nvmlDeviceSetMigMode(gpu, 1) == nvml.NVML_SUCCESS
    assert nvml.nvmlDeviceGetMigMode(gpu) == [1, 1]
    assert code_of(nvml.nvmlDeviceGetVgpuHeterogeneousMode, gpu) == nvml.NVML_ERROR_NOT_SUPPORTED
    assert code_of(nvml.nvmlDeviceGetVgpuSchedulerState, gpu) == nvml.NVML_ERROR_NOT_SUPPORTED

    assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, ONE_G) == 7
    there = nvml.c_nvmlGpuInstancePlacement_t(start=4, size=4)
    three = nvml.nvmlDeviceCreateGpuInstanceWithPlacement(gpu, THREE_G, ctypes.byref(there))
    made = nvml.nvmlGpuInstanceGetInfo(three)
    assert (made.profileId, made.placement.start, made.placement.size) == (THREE_G, 4, 4)
    # hardware.md 3.1: one 3g in the upper half leaves the four 1g of the lower
    assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, ONE_G) == 4
    again = (nvml.nvmlDeviceCreateGpuInstanceWithPlacement, gpu, THREE_G, ctypes.byref(there))
    assert code_of(*again) == nvml.NVML_ERROR_INSUFFICIENT_RESOURCES
    there.start = 3
    assert code_of(*again) == nvml.NVML_ERROR_INVALID_ARGUMENT
    assert code_of(nvml.nvmlDeviceCreateGpuInstance, gpu, WHOLE) == nvml.NVML_ERROR_INSUFFICIENT_RESOURCES
    assert code_of(nvml.nvmlDeviceCreateGpuInstance, gpu, 77) == nvml.NVML_ERROR_INVALID_ARGUMENT
    one = nvml.nvmlDeviceCreateGpuInstance(gpu, ONE_G)
    handles = (nvml.c_nvmlGpuInstance_t * 7)()
    nvml.nvmlDeviceGetGpuInstances(gpu, ONE_G, handles, ctypes.byref(count))
    assert [nvml.nvmlGpuInstanceGetInfo(each).id for each in handles[: count.value]] == [
        nvml.nvmlGpuInstanceGetInfo(one).id
    ]
    assert nvml.nvmlGpuInstanceGetInfo(nvml.nvmlDeviceGetGpuInstanceById(gpu, made.id)).profileId == THREE_G
    assert code_of(nvml.nvmlDeviceGetGpuInstanceById, gpu, 60) == nvml.NVML_ERROR_NOT_FOUND

    whole = nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(
        three, nvml.NVML_COMPUTE_INSTANCE_PROFILE_3_SLICE, 0
    )
    part = nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(
        three, nvml.NVML_COMPUTE_INSTANCE_PROFILE_1_SLICE, 0
    )
    assert (whole.name, part.name, part.instanceCount) == ("MIG 3g.40gb", "MIG 1c.3g.40gb", 3)
    compute = nvml.nvmlGpuInstanceCreateComputeInstance(three, part.id)
    assert nvml.nvmlGpuInstanceGetComputeInstanceRemainingCapacity(three, part.id) == 2
    assert nvml.nvmlComputeInstanceGetInfo(compute).placement.size == 1
    assert code_of(nvml.nvmlGpuInstanceDestroy, three) == nvml.NVML_ERROR_IN_USE  # hardware.md 1.6.6
    nvml.nvmlComputeInstanceDestroy(compute)
    assert code_of(nvml.nvmlComputeInstanceGetInfo, compute) == nvml.NVML_ERROR_INVALID_ARGUMENT

    two = nvml.nvmlGpuInstanceCreateComputeInstance(
        three,
        nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(
            three, nvml.NVML_COMPUTE_INSTANCE_PROFILE_2_SLICE, 0
        ).id,
    )
    left = (nvml.nvmlGpuInstanceGetComputeInstanceRemainingCapacity, three)
    assert [left[0](left[1], each) for each in (part.id, whole.id)] == [1, 0]
    assert (
        code_of(nvml.nvmlGpuInstanceCreateComputeInstance, three, whole.id)
        == nvml.NVML_ERROR_INSUFFICIENT_RESOURCES
    )
    assert code_of(nvml.nvmlGpuInstanceGetComputeInstanceById, three, 7) == nvml.NVML_ERROR_NOT_FOUND
    found = nvml.nvmlGpuInstanceGetComputeInstanceById(three, nvml.nvmlComputeInstanceGetInfo(two).id)
    assert nvml.nvmlComputeInstanceGetInfo(found).placement.size == 2
    nvml.nvmlComputeInstanceDestroy(two)

    vgpus = nvml.c_nvmlVgpuTypeIdInfo_v1_t(version=nvml.nvmlVgpuTypeIdInfo_v1)
    nvml.nvmlGpuInstanceGetCreatableVgpus(three, vgpus)
    assert code_of(nvml.nvmlGpuInstanceGetVgpuHeterogeneousMode, three) == nvml.NVML_ERROR_NOT_SUPPORTED
    of_user = as_nobody(
        lambda: (
            code_of(nvml.nvmlDeviceGetMigMode, gpu),
            code_of(nvml.nvmlDeviceGetGpuInstanceRemainingCapacity, gpu, ONE_G),
            code_of(nvml.nvmlDeviceGetGpuInstanceProfileInfo, gpu, 0),
            code_of(nvml.nvmlDeviceCreateGpuInstance, gpu, ONE_G),
            code_of(nvml.nvmlGpuInstanceDestroy, one),
            code_of(nvml.nvmlDeviceSetMigMode, gpu, 0),
        )
    )
    assert of_user == (nvml.NVML_SUCCESS, *[nvml.NVML_ERROR_NO_PERMISSION] * 5)
    assert gpu_at(answer(nvml_helper), AT_61).mig_current is True
    for each in (three, one):
        nvml.nvmlGpuInstanceDestroy(each)
        assert code_of(nvml.nvmlGpuInstanceGetInfo, each) == nvml.NVML_ERROR_INVALID_ARGUMENT
    assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, ONE_G) == 7


@pytest.mark.rig
def test_vgpuctls_orders_about_compute_instances(nvsim, nvml):
    """By name; and only in the GPU instance, and on the compute instance, that was meant."""
    nvsim.load("a100-80:sriov-mdev@61")
    address = PciAddress.parse(AT_61)
    assert carry_out(nvml, SetMode(gpu=address, enabled=True)).code == nvml.NVML_SUCCESS
    cut = carry_out(nvml, CutInstance(gpu=address, profile_id=THREE_G, start=4, size=4))
    share = CutCompute(gpu=address, instance=cut.instance, profile_id=THREE_G, start=4, compute="1c.3g.40gb")
    made = [carry_out(nvml, replace(share, compute=each)) for each in ("2c.3g.40gb", "1c.3g.40gb")]
    assert [each.code for each in made] == [nvml.NVML_SUCCESS] * 2
    assert carry_out(nvml, share).code == nvml.NVML_ERROR_INSUFFICIENT_RESOURCES
    for wrong, code in (
        (replace(share, compute="4c.3g.40gb"), nvml.NVML_ERROR_NOT_SUPPORTED),
        (replace(share, start=0), nvml.NVML_ERROR_NOT_FOUND),
        (replace(share, instance=60), nvml.NVML_ERROR_NOT_FOUND),
    ):
        assert carry_out(nvml, wrong).code == code

    def shares() -> dict[int, str]:
        nvml.nvmlInit()
        (found,) = gpu_instances(nvml, nvml.nvmlDeviceGetHandleByIndex(0), is_on=True)
        nvml.nvmlShutdown()
        return {each.id: each.profile for each in found.compute_instances}

    two, one = (each.instance for each in made)
    assert shares() == {two: "2c.3g.40gb", one: "1c.3g.40gb"}
    gone = DestroyCompute(
        gpu=address,
        instance=cut.instance,
        profile_id=THREE_G,
        start=4,
        compute="1c.3g.40gb",
        compute_id=one,
    )
    assert carry_out(nvml, replace(gone, compute_id=two)).code != nvml.NVML_SUCCESS
    instance = DestroyInstance(gpu=address, instance=cut.instance, profile_id=THREE_G, start=4)
    assert carry_out(nvml, instance).code == nvml.NVML_ERROR_IN_USE  # hardware.md 1.6.6
    assert carry_out(nvml, gone).code == nvml.NVML_SUCCESS
    assert shares() == {two: "2c.3g.40gb"}
    assert carry_out(nvml, replace(gone, compute="2c.3g.40gb", compute_id=two)).code == nvml.NVML_SUCCESS
    assert carry_out(nvml, instance).code == nvml.NVML_SUCCESS


@pytest.mark.rig
def test_a_gpu_instance_that_several_vgpus_share(nvsim, nvml):
    """hardware.md 3.4: on Blackwell each has a mixed-size mode, placements and a scheduler of its own."""
    nvsim.load("rtx-pro-6000:vendor-vfio@41")
    nvml.nvmlInit()
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetVgpuCapabilities(gpu, nvml.NVML_DEVICE_VGPU_CAP_MIG_TIMESLICING_SUPPORTED) == 1
    assert nvml.nvmlDeviceSetMigMode(gpu, 1) == nvml.NVML_SUCCESS
    nvml.nvmlShutdown()
    assert sriov_manage("-e", AT_41).returncode == 0
    nvml.nvmlInit()
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetCreatableVgpus(gpu) == []  # hardware.md 3.3: no GPU instance, no vGPU
    off = (nvml.nvmlDeviceSetMigMode, gpu, 0)
    assert code_of(*off) == nvml.NVML_ERROR_IN_USE  # hardware.md 1.6.7
    types = {each.name: each for each in Catalog().keyed("rtx-pro-6000").types}
    small, large = types["DC-1-3Q"], types["DC-1-8Q"]
    profile = nvml.nvmlVgpuTypeGetGpuInstanceProfileId(small.type_id)
    made = [nvml.nvmlDeviceCreateGpuInstance(gpu, profile) for _ in range(2)]
    # hardware.md 3.3: a new vGPU lands on the first by id
    mine, other = sorted(made, key=lambda each: nvml.nvmlGpuInstanceGetInfo(each).id)

    nvml.nvmlGpuInstanceSetVgpuHeterogeneousMode(mine, 1)
    assert [nvml.nvmlGpuInstanceGetVgpuHeterogeneousMode(each) for each in (mine, other)] == [1, 0]
    places = creatable(nvml, mine, large.type_id)
    assert places[0] == 0
    assert code_of(creatable, nvml, other, large.type_id) == nvml.NVML_ERROR_NOT_SUPPORTED

    state = nvml.c_nvmlVgpuSchedulerState_v1_t(
        version=nvml.nvmlVgpuSchedulerState_v1, engineId=1, schedulerPolicy=2, enableARRMode=2
    )
    state.schedulerParams.vgpuSchedDataWithARR.avgFactor = 20
    state.schedulerParams.vgpuSchedDataWithARR.frequency = 300
    nvml.nvmlGpuInstanceSetVgpuSchedulerState(mine, state)
    info = nvml.c_nvmlVgpuSchedulerStateInfo_v1_t(version=nvml.nvmlVgpuSchedulerStateInfo_v1, engineId=1)
    nvml.nvmlGpuInstanceGetVgpuSchedulerState(mine, info)
    assert (info.schedulerPolicy, info.arrMode) == (2, 2)
    assert info.schedulerParams.vgpuSchedDataWithARR.avgFactor == 20
    newer = nvml.c_nvmlVgpuSchedulerStateInfo_v2_t(engineId=1)
    assert nvml.nvmlGpuInstanceGetVgpuSchedulerState_v2(mine, newer).avgFactor == 20
    assert nvml.nvmlGpuInstanceGetVgpuSchedulerState_v2(other, newer).schedulerPolicy == 1
    log = nvml.c_nvmlVgpuSchedulerLogInfo_v1_t(version=nvml.nvmlVgpuSchedulerLogInfo_v1, engineId=1)
    assert nvml.nvmlGpuInstanceGetVgpuSchedulerLog(mine, log).entriesCount == 0
    assert code_of(nvml.nvmlDeviceGetVgpuSchedulerState, gpu) == nvml.NVML_ERROR_NOT_SUPPORTED

    vf = DEVICES / vfs_of(AT_41)[0] / "nvidia/current_vgpu_type"
    vf.write_text(f"{large.type_id}")
    assert code_of(nvml.nvmlGpuInstanceDestroy, mine) == nvml.NVML_ERROR_IN_USE
    assert code_of(nvml.nvmlGpuInstanceSetVgpuHeterogeneousMode, mine, 0) == nvml.NVML_ERROR_IN_USE
    assert code_of(nvml.nvmlGpuInstanceSetVgpuSchedulerState, mine, state) == nvml.NVML_ERROR_NOT_SUPPORTED
    assert {small.type_id, large.type_id} <= listed(nvml, mine)
    assert creatable(nvml, mine, large.type_id) == places[1:]
    active = nvml.c_nvmlActiveVgpuInstanceInfo_v1_t(version=nvml.nvmlActiveVgpuInstanceInfo_v1)
    assert nvml.nvmlGpuInstanceGetActiveVgpus(mine, active).vgpuCount == 0
    vf.write_text("0")


def creatable(nvml: Any, instance: Any, type_id: int) -> list[int]:
    wanted = nvml.c_nvmlVgpuCreatablePlacementInfo_v1_t(
        version=nvml.nvmlVgpuCreatablePlacementInfo_v1, vgpuTypeId=type_id
    )
    nvml.nvmlGpuInstanceGetVgpuTypeCreatablePlacements(instance, wanted)
    return list(wanted.placementIds[: wanted.count])


def listed(nvml: Any, instance: Any) -> set[int]:
    types = nvml.c_nvmlVgpuTypeIdInfo_v1_t(version=nvml.nvmlVgpuTypeIdInfo_v1)
    nvml.nvmlGpuInstanceGetCreatableVgpus(instance, types)
    return set(types.vgpuTypeIds[: types.vgpuCount])

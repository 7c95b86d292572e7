"""NVML in the rig: the real binding over the simulated library, and what vgpuctl's helper makes of it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from tests.rig.guests import BOOKWORM, TRIXIE
from tests.rig.nvml.symbols import exported, without
from vgpuctl.host.nvml.adapter import HelperNvml
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.fact import Unknown
from vgpuctl.model.types import TypeKind
from vgpuctl.ports.nvml import NvmlGpu, NvmlHost

A100, T4, L40S = "0000:61:00.0", "0000:81:00.0", "0000:41:00.0"
LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
CONFIG = Path("/run/nvsim/nvml.conf")
DEVICES = Path("/sys/bus/pci/devices")
NOBODY = 65534
ONE_G, ONE_G_ME, THREE_G, WHOLE = 19, 20, 9, 0
"""Ids of an A100's GPU-instance profiles [hardware.md 3.1]."""
VM = "5f2f0d9e-7d0b-4a51-9b61-3f0d8c1e2a77"


@pytest.fixture
def nvml(nvsim) -> Iterator[Any]:
    """The binding; a test calls nvmlInit when its cards are there."""
    yield pynvml
    while code_of(pynvml.nvmlShutdown) == pynvml.NVML_SUCCESS:
        pass


@pytest.fixture
def helper(nvsim) -> Iterator[HelperNvml]:
    found = HelperNvml()
    yield found
    found.release()


@pytest.fixture
def config() -> Iterator[Callable[[str], object]]:
    CONFIG.parent.mkdir(exist_ok=True)
    yield CONFIG.write_text
    CONFIG.unlink(missing_ok=True)


def code_of(function: Callable[..., Any], *arguments: Any) -> int:
    """NVML's number of what this call came to."""
    try:
        function(*arguments)
    except pynvml.NVMLError as error:
        return int(error.value)
    return int(pynvml.NVML_SUCCESS)


def sriov_manage(flag: str, pf: str) -> subprocess.CompletedProcess[str]:
    command = ["/usr/lib/nvidia/sriov-manage", flag, pf]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def vfs_of(pf: str) -> list[str]:
    links = sorted(DEVICES.joinpath(pf).glob("virtfn*"), key=lambda each: int(each.name[6:]))
    return [each.resolve().name for each in links]


def nodes_open() -> list[str]:
    links = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return sorted(each for each in links if each.startswith("/dev/nvidia"))


def node_of(handle: Any) -> str:
    return f"/dev/nvidia{pynvml.nvmlDeviceGetMinorNumber(handle)}"


def answer(helper: HelperNvml) -> NvmlHost:
    host = helper.host(60)
    assert isinstance(host, NvmlHost), host
    return host


def gpu_at(host: NvmlHost, address: str) -> NvmlGpu:
    (found,) = (each for each in host.gpus if str(each.address) == address)
    return found


@pytest.mark.rig(TRIXIE, BOOKWORM)
def test_the_helper_tells_what_catalogue_sysfs_and_procfs_say(nvsim, helper):
    cards = {"a100-80": A100, "t4": T4}
    nvsim.load(f"a100-80:sriov-mdev@{A100[5:7]},t4:mdev@{T4[5:7]}")
    assert sriov_manage("-e", A100).returncode == 0
    host = answer(helper)
    assert str(host.driver_version) in Path("/proc/driver/nvidia/version").read_text()
    assert {str(each.address) for each in host.gpus} == set(cards.values())
    for key, address in cards.items():
        model = Catalog().keyed(key)
        gpu = gpu_at(host, address)
        information = Path(f"/proc/driver/nvidia/gpus/{address}/information").read_text()
        assert str(gpu.uuid) in information
        assert gpu.name == model.name
        assert gpu.virtualization_mode == 3
        assert not isinstance(gpu.types, Unknown)
        told = {each.type_id: each for each in gpu.types}
        for known in model.types:
            if known.type_id is None:
                continue
            found = told[known.type_id]
            assert (found.raw_name, found.fb_mib, found.kind) == (known.raw_name, known.fb_mib, known.kind)
            assert (found.max_per_gpu, found.gi_profile) == (known.max_per_gpu, known.gi_profile)
            if known.kind is TypeKind.MIG_BACKED:
                assert found.max_per_gi == known.max_per_gi
        assert len(told) == len(gpu.types) == len(model.types)
        assert gpu.active == ()
    assert (gpu_at(host, A100).host_vgpu_mode, gpu_at(host, T4).host_vgpu_mode) == (1, 0)
    assert (gpu_at(host, A100).mig_current, gpu_at(host, A100).mixed_size) == (False, False)
    assert str(gpu_at(host, T4).mig_current) == str(Unknown("nvmlDeviceGetMigMode: Not Supported"))
    assert isinstance(gpu_at(host, T4).mixed_size, Unknown)


@pytest.mark.rig
def test_handles_sessions_and_open_nodes(nvsim, nvml):
    """hardware.md 1.5.6: an initialised client holds what it has a handle of, and nothing else."""
    nvsim.load(f"l40s:vendor-vfio@{L40S[5:7]},t4:mdev@{T4[5:7]}")
    nvml.nvmlInit()
    nvml.nvmlInit()
    assert nodes_open() == ["/dev/nvidiactl"]
    assert nvml.nvmlDeviceGetCount() == 2
    first = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nodes_open() == [node_of(first), "/dev/nvidiactl"]
    pci = nvml.nvmlDeviceGetPciInfo(first)
    assert (pci.busId, pci.busIdLegacy) == (f"0000{L40S}", L40S)
    assert pci.pciDeviceId == int(DEVICES.joinpath(L40S, "device").read_text(), 16) << 16 | 0x10DE
    for form in (L40S, f"0000{L40S}", "41:00.0", "0:41:0"):
        assert nvml.nvmlDeviceGetHandleByPciBusId(form.encode()).contents is not None
    assert nodes_open() == [node_of(first), "/dev/nvidiactl"]
    second = nvml.nvmlDeviceGetHandleByUUID(
        nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(1)).encode()
    )
    assert nvml.nvmlDeviceGetIndex(second) == 1
    assert nodes_open() == sorted([node_of(first), node_of(second), "/dev/nvidiactl"])
    wrong = {
        nvml.NVML_ERROR_INVALID_ARGUMENT: [
            (nvml.nvmlDeviceGetHandleByIndex, 2),
            (nvml.nvmlDeviceGetHandleByPciBusId, b"none"),
            (nvml.nvmlDeviceGetName, ctypes.c_void_p(0)),
            (nvml.nvmlDeviceGetName, ctypes.c_void_p(0xDEADBEEF)),
            (nvml.nvmlDeviceGetName, ctypes.c_void_p(ctypes.cast(first, ctypes.c_void_p).value ^ 1 << 63)),
            (nvml.nvmlGpuInstanceGetInfo, first),
            (nvml.nvmlVgpuTypeGetName, 1),
            (nvml.nvmlVgpuTypeGetMaxInstances, second, 1152),
            (nvml.nvmlVgpuInstanceGetType, 0),
        ],
        nvml.NVML_ERROR_NOT_FOUND: [
            (nvml.nvmlDeviceGetHandleByPciBusId, b"0000:99:00.0"),
            (nvml.nvmlDeviceGetHandleByUUID, b"GPU-none"),
            (nvml.nvmlVgpuInstanceGetType, 12345),
        ],
    }
    for expected, calls in wrong.items():
        for function, *arguments in calls:
            assert code_of(function, *arguments) == expected, (function, arguments)
    nvml.nvmlShutdown()
    assert nvml.nvmlDeviceGetName(first) == "NVIDIA L40S"
    busy = sriov_manage("-e", L40S)
    assert busy.returncode != 0
    assert "unbindLock" in busy.stdout + busy.stderr
    nvml.nvmlShutdown()
    assert nodes_open() == []
    assert code_of(nvml.nvmlShutdown) == nvml.NVML_ERROR_UNINITIALIZED
    assert code_of(nvml.nvmlDeviceGetName, first) == nvml.NVML_ERROR_UNINITIALIZED
    assert sriov_manage("-e", L40S).returncode == 0
    nvml.nvmlInit()
    assert code_of(nvml.nvmlDeviceGetName, first) == nvml.NVML_ERROR_INVALID_ARGUMENT


@pytest.mark.rig
def test_gpu_instances_are_cut_filled_and_destroyed(nvsim, nvml, helper):
    nvsim.load(f"a100-80:sriov-mdev@{A100[5:7]}")
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
    assert gpu_at(answer(helper), A100).mig_current is True
    for each in (three, one):
        nvml.nvmlGpuInstanceDestroy(each)
        assert code_of(nvml.nvmlGpuInstanceGetInfo, each) == nvml.NVML_ERROR_INVALID_ARGUMENT
    assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, ONE_G) == 7


def as_nobody(ask: Callable[[], Any]) -> Any:
    """What `ask` returns to an effective user who is not root."""
    os.seteuid(NOBODY)
    try:
        return ask()
    finally:
        os.seteuid(0)


@pytest.mark.rig
def test_creatable_types_placements_and_the_mixed_size_mode(nvsim, nvml):
    nvsim.load(f"h100:vendor-vfio@{L40S[5:7]}")
    assert sriov_manage("-e", L40S).returncode == 0
    types = {each.name: each.type_id for each in Catalog().keyed("h100").types}
    big, small = types["H100-40C"], types["H100-10C"]
    nvml.nvmlInit()
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    assert {big, small} <= set(nvml.nvmlDeviceGetCreatableVgpus(gpu))
    supported = nvml.nvmlDeviceGetVgpuTypeSupportedPlacements(gpu, big, mode=0, version=2)
    assert (supported.placementSize, supported.placementIds[: supported.count]) == (40, [0, 40])
    old = nvml.nvmlDeviceGetVgpuTypeSupportedPlacements(gpu, big)
    assert (old.placementSize, old.placementIds[: old.count]) == (40, [0, 40])
    nvml.nvmlDeviceSetVgpuHeterogeneousMode(gpu, 1)
    assert nvml.nvmlDeviceGetVgpuHeterogeneousMode(gpu) == 1
    assert 0 in nvml.nvmlDeviceGetVgpuSchedulerCapabilities(gpu).supportedSchedulers

    vf = DEVICES / vfs_of(L40S)[0] / "nvidia"
    vf.joinpath("current_vgpu_type").write_text(f"{big}")
    creatable = nvml.nvmlDeviceGetVgpuTypeCreatablePlacements(gpu, big, version=2)
    assert creatable.placementIds[: creatable.count] == [40]
    assert small in nvml.nvmlDeviceGetCreatableVgpus(gpu)
    assert code_of(nvml.nvmlDeviceSetVgpuHeterogeneousMode, gpu, 0) == nvml.NVML_ERROR_IN_USE
    refused = as_nobody(lambda: code_of(nvml.nvmlDeviceGetVgpuTypeCreatablePlacements, gpu, big))
    assert refused == nvml.NVML_ERROR_NO_PERMISSION
    vf.joinpath("current_vgpu_type").write_text("0")
    nvml.nvmlDeviceSetVgpuHeterogeneousMode(gpu, 0)
    vf.joinpath("current_vgpu_type").write_text(f"{big}")
    assert small not in nvml.nvmlDeviceGetCreatableVgpus(gpu)  # hardware.md 0.2
    assert {big, small} <= set(nvml.nvmlDeviceGetSupportedVgpus(gpu))
    vf.joinpath("current_vgpu_type").write_text("0")


@pytest.mark.rig
def test_the_scheduler_is_set_and_read_in_both_versions(nvsim, nvml):
    nvsim.load(f"t4:mdev@{T4[5:7]}")
    nvml.nvmlInit()
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    caps = nvml.nvmlDeviceGetVgpuSchedulerCapabilities(gpu)
    assert list(caps.supportedSchedulers) == [1, 2, 3]
    assert (
        nvml.nvmlDeviceGetVgpuSchedulerState(gpu).schedulerPolicy
        == nvml.NVML_VGPU_SCHEDULER_POLICY_BEST_EFFORT
    )
    wanted = nvml.c_nvmlVgpuSchedulerSetState_t(
        schedulerPolicy=nvml.NVML_VGPU_SCHEDULER_POLICY_FIXED_SHARE,
        enableARRMode=nvml.NVML_VGPU_SCHEDULER_ARR_DISABLE,
    )
    wanted.schedulerParams.vgpuSchedData.timeslice = caps.maxTimeslice
    nvml.nvmlDeviceSetVgpuSchedulerState(gpu, wanted)
    state = nvml.nvmlDeviceGetVgpuSchedulerState(gpu)
    assert (state.schedulerPolicy, state.arrMode) == (3, nvml.NVML_VGPU_SCHEDULER_ARR_DISABLE)
    assert state.schedulerParams.vgpuSchedData.timeslice == caps.maxTimeslice
    wanted.schedulerParams.vgpuSchedData.timeslice = caps.maxTimeslice + 1
    assert code_of(nvml.nvmlDeviceSetVgpuSchedulerState, gpu, wanted) == nvml.NVML_ERROR_INVALID_ARGUMENT

    newer = nvml.c_nvmlVgpuSchedulerState_v2_t(engineId=1, schedulerPolicy=2, avgFactor=40, frequency=480)
    nvml.nvmlDeviceSetVgpuSchedulerState_v2(gpu, newer)
    read = nvml.nvmlDeviceGetVgpuSchedulerState_v2(gpu, nvml.c_nvmlVgpuSchedulerStateInfo_v2_t(engineId=1))
    assert (read.schedulerPolicy, read.avgFactor) == (2, 40)
    other = nvml.nvmlDeviceGetVgpuSchedulerState_v2(gpu, nvml.c_nvmlVgpuSchedulerStateInfo_v2_t(engineId=2))
    assert other.schedulerPolicy == nvml.NVML_VGPU_SCHEDULER_POLICY_BEST_EFFORT
    newer.engineId = 4
    assert code_of(nvml.nvmlDeviceSetVgpuSchedulerState_v2, gpu, newer) == nvml.NVML_ERROR_INVALID_ARGUMENT

    create = DEVICES / T4 / "mdev_supported_types/nvidia-222/create"
    create.write_text(VM)
    newer.engineId = 1
    assert code_of(nvml.nvmlDeviceSetVgpuSchedulerState_v2, gpu, newer) == nvml.NVML_ERROR_NOT_SUPPORTED
    Path(f"/sys/bus/mdev/devices/{VM}/remove").write_text("1")
    nvml.nvmlDeviceSetVgpuSchedulerState_v2(gpu, newer)


@pytest.mark.rig
def test_a_vgpu_is_active_while_qemu_has_it(nvsim, nvml, helper):
    """An mdev and a VF of one VM, whose UUID only QEMU's command line tells [hardware.md 1.4.15]."""
    nvsim.load(f"l40s:vendor-vfio@{L40S[5:7]},t4:mdev@{T4[5:7]}")
    assert sriov_manage("-e", L40S).returncode == 0
    vf = vfs_of(L40S)[2]
    mdev = "0a1b2c3d-0000-4000-8000-000000000001"
    (DEVICES / vf / "nvidia/current_vgpu_type").write_text("1152")
    (DEVICES / T4 / "mdev_supported_types/nvidia-222/create").write_text(mdev)
    nvml.nvmlInit()
    l40s, t4 = (nvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    assert (nvml.nvmlDeviceGetActiveVgpus(l40s), nvml.nvmlDeviceGetActiveVgpus(t4)) == ([], [])
    assert nvml.nvmlDeviceGetVgpuInstancesUtilizationInfo(l40s, 0) == []
    with qemu(VM, f"/sys/bus/pci/devices/{vf}", f"/sys/bus/mdev/devices/{mdev}"):
        ((of_vf,), (of_mdev,)) = (nvml.nvmlDeviceGetActiveVgpus(each) for each in (l40s, t4))
        for vgpu in (of_vf, of_mdev):
            assert nvml.nvmlVgpuInstanceGetVmID(vgpu) == (VM.encode(), nvml.NVML_VGPU_VM_ID_UUID)
            assert nvml.nvmlVgpuInstanceGetVmDriverVersion(vgpu) == "Not Available"
            assert nvml.nvmlVgpuInstanceGetGpuPciId(vgpu) == "00000000:00:00.0"
            assert code_of(nvml.nvmlVgpuInstanceGetLicenseInfo, vgpu) == nvml.NVML_ERROR_DRIVER_NOT_LOADED
            assert nvml.nvmlVgpuInstanceGetGpuInstanceId(vgpu) == 0xFFFFFFFF
        assert nvml.nvmlVgpuInstanceGetUUID(of_vf) not in {nvml.nvmlVgpuInstanceGetUUID(of_mdev), VM, mdev}
        assert nvml.nvmlVgpuInstanceGetMdevUUID(of_mdev) == mdev
        assert code_of(nvml.nvmlVgpuInstanceGetMdevUUID, of_vf) == nvml.NVML_ERROR_NOT_SUPPORTED
        assert nvml.nvmlVgpuInstanceGetType(of_vf) == 1152
        assert nvml.nvmlVgpuInstanceGetFrameRateLimit(of_vf) == 60
        assert nvml.nvmlDeviceGetMemoryInfo(l40s).used >= 8 << 30  # hardware.md 0.4

        nvsim.set("activity", f"{of_vf} 70 30 20 10 1", address=L40S)
        assert (
            nvml.nvmlVgpuInstanceGetLicenseInfo(of_vf).currentState == nvml.NVML_GRID_LICENSE_STATE_LICENSED
        )
        assert nvml.nvmlVgpuInstanceGetGpuPciId(of_vf) == "00000000:00:05.0"
        (sample,) = nvml.nvmlDeviceGetVgpuInstancesUtilizationInfo(l40s, 0)
        assert (sample.vgpuInstance, sample.smUtil.uiVal, sample.decUtil.uiVal) == (of_vf, 70, 10)
        late = (nvml.nvmlDeviceGetVgpuInstancesUtilizationInfo, l40s, sample.timeStamp + 10**9)
        assert code_of(*late) == nvml.NVML_ERROR_NOT_FOUND
        assert nvml.nvmlDeviceGetVgpuSchedulerLog(l40s).entriesCount <= 200

        host = answer(helper)
        for address, type_id in ((L40S, 1152), (T4, 222)):
            active = gpu_at(host, address).active
            assert not isinstance(active, Unknown)
            assert [(each.type_id, each.vm_uuid) for each in active] == [(type_id, VM)]
    assert nvml.nvmlDeviceGetActiveVgpus(l40s) == []
    assert code_of(nvml.nvmlVgpuInstanceGetType, of_vf) == nvml.NVML_ERROR_NOT_FOUND
    (DEVICES / vf / "nvidia/current_vgpu_type").write_text("0")
    Path(f"/sys/bus/mdev/devices/{mdev}/remove").write_text("1")


class qemu:  # noqa: N801  # a context manager, called like a function
    """A QEMU that has these devices open, and never runs its guest."""

    def __init__(self, uuid: str, *devices: str) -> None:
        self._command = [
            "qemu-system-x86_64",
            "-uuid",
            uuid,
            "-S",
            "-nodefaults",
            "-display",
            "none",
            "-m",
            "64",
        ]
        self._command += ["-machine", "q35,accel=tcg", "-monitor", "stdio"]
        for number, device in enumerate(devices):
            json = f'{{"driver":"vfio-pci","sysfsdev":"{device}","bus":"pcie.0","addr":"0x{5 + number}"}}'
            self._command += ["-device", json]

    def __enter__(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        said = ""
        while "(qemu)" not in said:  # its prompt comes when all devices are there
            said += self._process.stdout.read(1) or pytest.fail(f"QEMU ended: {said}")

    def __exit__(self, *exception: object) -> None:
        self._process.communicate("quit\n", timeout=60)


@pytest.mark.rig
def test_a_lost_gpu_and_one_without_its_driver(nvsim, nvml, helper):
    nvsim.load(f"l40s:vendor-vfio@{L40S[5:7]},t4:mdev@{T4[5:7]}")
    nvml.nvmlInit()
    l40s, t4 = (nvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    nvsim.set("lost", 1, address=L40S)
    for function in (nvml.nvmlDeviceGetName, nvml.nvmlDeviceGetMigMode, nvml.nvmlDeviceGetSupportedVgpus):
        assert code_of(function, l40s) == nvml.NVML_ERROR_GPU_IS_LOST
    assert code_of(nvml.nvmlDeviceGetHandleByIndex, 0) == nvml.NVML_ERROR_GPU_IS_LOST
    assert (nvml.nvmlDeviceGetCount(), nvml.nvmlDeviceGetName(t4)) == (2, "Tesla T4")
    nvml.nvmlShutdown()
    assert [str(each.address) for each in answer(helper).gpus] == [T4]
    helper.release()
    # hardware.md 1.5.5: parked on pci-pf-stub it is not listed, and then there is no GPU at all
    device = DEVICES / T4
    (device / "driver/unbind").write_text(T4)
    said = helper.host(60)
    assert isinstance(said, Unknown)
    assert said.reason == "nvmlInit: No GPUs were found"
    Path("/sys/bus/pci/drivers/nvidia/bind").write_text(T4)
    assert [str(each.address) for each in answer(helper).gpus] == [T4]


@pytest.mark.rig
def test_calls_fail_and_hang_when_a_test_says_so(nvsim, helper, config):
    nvsim.load(f"t4:mdev@{T4[5:7]}")
    config("fail nvmlDeviceGetUUID 15\nfail nvmlDeviceGetSupportedVgpus 999\n")
    gpu = gpu_at(answer(helper), T4)
    assert str(gpu.uuid) == str(Unknown("nvmlDeviceGetUUID: GPU is lost"))
    assert isinstance(gpu.types, Unknown)
    assert gpu.name == Catalog().keyed("t4").name
    config("hang nvmlDeviceGetName\n")
    assert str(helper.host(3)) == str(Unknown("NVML did not answer within 3 s"))
    config("")
    assert gpu_at(answer(helper), T4).name == Catalog().keyed("t4").name


@pytest.mark.rig
def test_an_older_library_lacks_functions(nvsim, tmp_path, monkeypatch):
    nvsim.load(f"a100-80:sriov-mdev@{A100[5:7]}")
    whole = gpu_at(answer_of(HelperNvml()), A100)
    gone = [
        "nvmlDeviceGetVgpuHeterogeneousMode",
        "nvmlVgpuTypeGetMaxInstancesPerGpuInstance",
        "nvmlDeviceGetUUID",
    ]
    (tmp_path / LIBRARY.name).write_bytes(without(LIBRARY.read_bytes(), gone))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    older = gpu_at(answer_of(HelperNvml()), A100)
    assert str(older.mixed_size) == str(Unknown("nvmlDeviceGetVgpuHeterogeneousMode: Function Not Found"))
    assert str(older.uuid) == str(Unknown("nvmlDeviceGetUUID: Function Not Found"))
    assert (older.name, older.mig_current, older.active) == (whole.name, whole.mig_current, whole.active)
    assert not isinstance(older.types, Unknown)
    assert not isinstance(whole.types, Unknown)
    assert [each.type_id for each in older.types] == [each.type_id for each in whole.types]
    assert {each.max_per_gi for each in older.types} == {None}


def answer_of(helper: HelperNvml) -> NvmlHost:
    try:
        return answer(helper)
    finally:
        helper.release()


@pytest.mark.rig
def test_whatever_it_is_given_it_refuses_and_lives(nvsim, nvml):
    """Null pointers, wrong versions, too small buffers; from many threads too."""
    nvsim.load(f"l40s:vendor-vfio@{L40S[5:7]}")
    nvml.nvmlInit()
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    library = nvml.nvmlLib
    zeros = [ctypes.c_void_p(0)] * 6
    fine = {"nvmlErrorString", "nvmlInit_v2", "nvmlInitWithFlags", "nvmlShutdown"}
    for name in exported(LIBRARY.read_bytes()):
        if name not in fine:
            assert getattr(library, name)(*zeros) == nvml.NVML_ERROR_INVALID_ARGUMENT, name

    stale = ctypes.create_string_buffer(64)  # version 0
    mismatch = nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH
    for name in ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetVgpuHeterogeneousMode",
                 "nvmlDeviceSetVgpuHeterogeneousMode", "nvmlDeviceGetVgpuInstancesUtilizationInfo",
                 "nvmlDeviceGetVgpuProcessesUtilizationInfo"):  # fmt: skip
        assert getattr(library, name)(gpu, stale) == mismatch, name
    for name in ("nvmlDeviceGetVgpuTypeSupportedPlacements", "nvmlDeviceGetVgpuTypeCreatablePlacements"):
        assert getattr(library, name)(gpu, 1152, stale) == mismatch, name
    assert library.nvmlVgpuTypeGetBAR1Info(1152, stale) == mismatch
    assert library.nvmlVgpuTypeGetMaxInstancesPerGpuInstance(stale) == mismatch

    small = nvml.NVML_ERROR_INSUFFICIENT_SIZE
    text, size = ctypes.create_string_buffer(b"untouched", 96), ctypes.c_uint(5)
    assert library.nvmlDeviceGetUUID(gpu, text, 10) == small
    assert library.nvmlVgpuTypeGetName(1152, text, ctypes.byref(size)) == small
    assert (size.value, text.value) == (len("NVIDIA L40S-8Q") + 1, b"untouched")
    ids = (ctypes.c_uint * 256)()
    assert library.nvmlDeviceGetSupportedVgpus(gpu, ctypes.byref(size), ids) == small
    assert (size.value, ids[0]) == (len(nvml.nvmlDeviceGetSupportedVgpus(gpu)), 0)
    assert (
        library.nvmlDeviceGetSupportedVgpus(gpu, ctypes.byref(size), None) == nvml.NVML_ERROR_INVALID_ARGUMENT
    )

    names: set[str] = set()

    def ask() -> None:
        for _ in range(50):
            nvml.nvmlInit()
            names.add(nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(0)))
            nvml.nvmlShutdown()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert names == {"NVIDIA L40S"}
    assert nvml.nvmlDeviceGetIndex(gpu) == 0


@pytest.mark.rig
def test_without_the_driver_the_helper_of_nvidia_is_run_as_nvml_does(nvsim, tmp_path):
    """Therefore vgpuctl does not ask NVML then: it would load what somebody just unloads."""
    loader = Path("/usr/bin/nvidia-modprobe")
    program = "import pynvml; pynvml.nvmlInit()"
    nvsim.load(f"t4:mdev@{T4[5:7]}")
    nvsim.unload_driver()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "Driver Not Loaded" in done.stderr
    assert HelperNvml().host(60) == Unknown("the NVIDIA driver is not loaded, and NVML would load it")
    loader.write_text("#!/bin/sh\nexec /sbin/modprobe nvsim\n")
    loader.chmod(0o755)
    try:
        subprocess.run([sys.executable, "-c", program], check=True)
    finally:
        loader.unlink()
    assert Path("/proc/driver/nvidia/version").exists()

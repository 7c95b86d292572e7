"""vGPUs through NVML in the rig: what can be made and where, who runs, who is scheduled how."""

from __future__ import annotations

import subprocess

import pytest

from tests.rig.nvml_client import (
    AT_41,
    AT_81,
    DEVICES,
    MDEVS,
    answer,
    as_nobody,
    code_of,
    gpu_at,
    sriov_manage,
    vfs_of,
)
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.fact import Unknown

VM = "5f2f0d9e-7d0b-4a51-9b61-3f0d8c1e2a77"


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
def test_creatable_types_placements_and_the_mixed_size_mode(nvsim, nvml):
    nvsim.load("a100-80:vendor-vfio@41")
    assert sriov_manage("-e", AT_41).returncode == 0
    types = {each.name: each.type_id for each in Catalog().keyed("a100-80").types}
    big, small = types["A100D-40C"], types["A100D-10C"]
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

    vf = DEVICES / vfs_of(AT_41)[0] / "nvidia"
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
    nvsim.load("t4:mdev@81")
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

    create = DEVICES / AT_81 / "mdev_supported_types/nvidia-222/create"
    create.write_text(VM)
    newer.engineId = 1
    assert code_of(nvml.nvmlDeviceSetVgpuSchedulerState_v2, gpu, newer) == nvml.NVML_ERROR_NOT_SUPPORTED
    (MDEVS / VM / "remove").write_text("1")
    nvml.nvmlDeviceSetVgpuSchedulerState_v2(gpu, newer)


@pytest.mark.rig
def test_a_vgpu_is_active_while_qemu_has_it(nvsim, nvml, nvml_helper):
    """An mdev and a VF of one VM, whose UUID only QEMU's command line tells [hardware.md 1.4.15]."""
    nvsim.load("a2:vendor-vfio@41,t4:mdev@81")
    assert sriov_manage("-e", AT_41).returncode == 0
    vf = vfs_of(AT_41)[2]
    mdev = "0a1b2c3d-0000-4000-8000-000000000001"
    (DEVICES / AT_81 / "mdev_supported_types/nvidia-222/create").write_text(mdev)
    nvml.nvmlInit()
    a2, t4 = (nvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    nvml.nvmlDeviceSetVgpuHeterogeneousMode(a2, 1)
    (DEVICES / vf / "nvidia/current_vgpu_type").write_text("746")
    assert (nvml.nvmlDeviceGetActiveVgpus(a2), nvml.nvmlDeviceGetActiveVgpus(t4)) == ([], [])
    assert nvml.nvmlDeviceGetVgpuInstancesUtilizationInfo(a2, 0) == []
    with qemu(VM, f"/sys/bus/pci/devices/{vf}", f"/sys/bus/mdev/devices/{mdev}"):
        ((of_vf,), (of_mdev,)) = (nvml.nvmlDeviceGetActiveVgpus(each) for each in (a2, t4))
        for vgpu in (of_vf, of_mdev):
            assert nvml.nvmlVgpuInstanceGetVmID(vgpu) == (VM.encode(), nvml.NVML_VGPU_VM_ID_UUID)
            assert nvml.nvmlVgpuInstanceGetVmDriverVersion(vgpu) == "Not Available"
            assert nvml.nvmlVgpuInstanceGetGpuPciId(vgpu) == "00000000:00:00.0"
            assert code_of(nvml.nvmlVgpuInstanceGetLicenseInfo, vgpu) == nvml.NVML_ERROR_DRIVER_NOT_LOADED
            assert nvml.nvmlVgpuInstanceGetGpuInstanceId(vgpu) == 0xFFFFFFFF
        assert nvml.nvmlVgpuInstanceGetUUID(of_vf) not in {nvml.nvmlVgpuInstanceGetUUID(of_mdev), VM, mdev}
        assert nvml.nvmlVgpuInstanceGetMdevUUID(of_mdev) == mdev
        assert code_of(nvml.nvmlVgpuInstanceGetMdevUUID, of_vf) == nvml.NVML_ERROR_NOT_SUPPORTED
        assert nvml.nvmlVgpuInstanceGetType(of_vf) == 746
        assert nvml.nvmlVgpuInstanceGetPlacementId(of_vf) == 0
        assert nvml.nvmlVgpuInstanceGetPlacementId(of_mdev) == 0xFFFF  # only in mixed-size mode there is one
        assert nvml.nvmlVgpuInstanceGetFrameRateLimit(of_vf) == 60
        assert nvml.nvmlDeviceGetMemoryInfo(a2).used >= 4 << 30  # hardware.md 0.4

        nvsim.set("activity", f"{of_vf} 70 30 20 10 1", address=AT_41)
        assert (
            nvml.nvmlVgpuInstanceGetLicenseInfo(of_vf).currentState == nvml.NVML_GRID_LICENSE_STATE_LICENSED
        )
        assert nvml.nvmlVgpuInstanceGetGpuPciId(of_vf) == "00000000:00:05.0"
        (sample,) = nvml.nvmlDeviceGetVgpuInstancesUtilizationInfo(a2, 0)
        assert (sample.vgpuInstance, sample.smUtil.uiVal, sample.decUtil.uiVal) == (of_vf, 70, 10)
        late = (nvml.nvmlDeviceGetVgpuInstancesUtilizationInfo, a2, sample.timeStamp + 10**9)
        assert code_of(*late) == nvml.NVML_ERROR_NOT_FOUND
        log, newer = (
            nvml.nvmlDeviceGetVgpuSchedulerLog(a2),
            nvml.c_nvmlVgpuSchedulerLogInfo_v2_t(engineId=1),
        )
        nvml.nvmlDeviceGetVgpuSchedulerLog_v2(a2, newer)
        for each in (log, newer):
            assert 0 < each.entriesCount <= nvml.NVML_SCHEDULER_SW_MAX_LOG_ENTRIES
            last = each.logEntries[each.entriesCount - 1]
            assert last.swRunlistId == of_vf
            assert 0 < last.timeRun <= last.targetTimeSlice <= last.timeRunTotal

        host = answer(nvml_helper)
        for address, type_id in ((AT_41, 746), (AT_81, 222)):
            active = gpu_at(host, address).active
            assert not isinstance(active, Unknown)
            assert [(each.type_id, each.vm_uuid) for each in active] == [(type_id, VM)]
    assert nvml.nvmlDeviceGetActiveVgpus(a2) == []
    assert code_of(nvml.nvmlVgpuInstanceGetType, of_vf) == nvml.NVML_ERROR_NOT_FOUND
    (DEVICES / vf / "nvidia/current_vgpu_type").write_text("0")
    (MDEVS / mdev / "remove").write_text("1")

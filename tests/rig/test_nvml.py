"""NVML in the rig: the real binding over the simulated library, and what vgpuctl's helper makes of it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.rig.guests import BOOKWORM, TRIXIE
from tests.rig.nvml.symbols import exported, without
from tests.rig.nvml_client import (
    AT_41,
    AT_61,
    AT_81,
    DEVICES,
    LIBRARY,
    answer,
    answer_of,
    code_of,
    gpu_at,
    node_of,
    nodes_open,
    sriov_manage,
)
from vgpuctl.host.nvml.adapter import HelperNvml
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.fact import Unknown
from vgpuctl.model.types import TypeKind


@pytest.mark.rig(TRIXIE, BOOKWORM)
def test_the_helper_tells_what_catalogue_and_procfs_say(nvsim, nvml_helper):
    cards = {"a100-80": AT_61, "t4": AT_81}
    nvsim.load("a100-80:sriov-mdev@61,t4:mdev@81")
    host = answer(nvml_helper)
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
    assert (gpu_at(host, AT_61).host_vgpu_mode, gpu_at(host, AT_81).host_vgpu_mode) == (1, 0)
    assert (gpu_at(host, AT_61).mig_current, gpu_at(host, AT_61).mixed_size) == (False, False)
    assert str(gpu_at(host, AT_81).mig_current) == str(Unknown("nvmlDeviceGetMigMode: Not Supported"))
    assert isinstance(gpu_at(host, AT_81).mixed_size, Unknown)


@pytest.mark.rig
def test_handles_sessions_and_open_nodes(nvsim, nvml):
    """hardware.md 1.5.6: an initialised client holds what it has a handle of, and nothing else."""
    nvsim.load("a2:vendor-vfio@41,t4:mdev@81")
    nvml.nvmlInit()
    nvml.nvmlInit()
    assert nodes_open() == ["/dev/nvidiactl"]
    assert nvml.nvmlDeviceGetCount() == 2
    first = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nodes_open() == [node_of(first), "/dev/nvidiactl"]
    pci = nvml.nvmlDeviceGetPciInfo(first)
    assert (pci.busId, pci.busIdLegacy) == (f"0000{AT_41}", AT_41)
    assert pci.pciDeviceId == int(DEVICES.joinpath(AT_41, "device").read_text(), 16) << 16 | 0x10DE
    for form in (AT_41, f"0000{AT_41}", "41:00.0", "0:41:0"):
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
    assert nvml.nvmlDeviceGetName(first) == "NVIDIA A2"
    busy = sriov_manage("-e", AT_41)
    assert busy.returncode != 0
    assert "unbindLock" in busy.stdout + busy.stderr
    nvml.nvmlShutdown()
    assert nodes_open() == []
    assert code_of(nvml.nvmlShutdown) == nvml.NVML_ERROR_UNINITIALIZED
    assert code_of(nvml.nvmlDeviceGetName, first) == nvml.NVML_ERROR_UNINITIALIZED
    assert sriov_manage("-e", AT_41).returncode == 0
    nvml.nvmlInit()
    assert code_of(nvml.nvmlDeviceGetName, first) == nvml.NVML_ERROR_INVALID_ARGUMENT


@pytest.mark.rig
def test_a_lost_gpu_and_one_without_its_driver(nvsim, nvml, nvml_helper):
    nvsim.load("l40s:vendor-vfio@41,t4:mdev@81")
    nvml.nvmlInit()
    l40s, t4 = (nvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    nvsim.set("lost", 1, address=AT_41)
    for function in (nvml.nvmlDeviceGetName, nvml.nvmlDeviceGetMigMode, nvml.nvmlDeviceGetSupportedVgpus):
        assert code_of(function, l40s) == nvml.NVML_ERROR_GPU_IS_LOST
    assert code_of(nvml.nvmlDeviceGetHandleByIndex, 0) == nvml.NVML_ERROR_GPU_IS_LOST
    assert (nvml.nvmlDeviceGetCount(), nvml.nvmlDeviceGetName(t4)) == (2, "Tesla T4")
    nvml.nvmlShutdown()
    assert [str(each.address) for each in answer(nvml_helper).gpus] == [AT_81]
    nvml_helper.release()
    # hardware.md 1.5.5: parked on pci-pf-stub it is not listed, and then there is no GPU at all
    device = DEVICES / AT_81
    (device / "driver/unbind").write_text(AT_81)
    said = nvml_helper.host(60)
    assert isinstance(said, Unknown)
    assert said.reason == "nvmlInit: No GPUs were found"
    Path("/sys/bus/pci/drivers/nvidia/bind").write_text(AT_81)
    assert [str(each.address) for each in answer(nvml_helper).gpus] == [AT_81]


@pytest.mark.rig
def test_calls_fail_and_hang_when_a_test_says_so(nvsim, nvml_helper, nvml_config):
    nvsim.load("t4:mdev@81")
    nvml_config("fail nvmlDeviceGetUUID 15\nfail nvmlDeviceGetSupportedVgpus 999\n")
    gpu = gpu_at(answer(nvml_helper), AT_81)
    assert str(gpu.uuid) == str(Unknown("nvmlDeviceGetUUID: GPU is lost"))
    assert isinstance(gpu.types, Unknown)
    assert gpu.name == Catalog().keyed("t4").name
    nvml_config("hang nvmlDeviceGetName\n")
    assert str(nvml_helper.host(3)) == str(Unknown("NVML did not answer within 3 s"))
    nvml_config("")
    assert gpu_at(answer(nvml_helper), AT_81).name == Catalog().keyed("t4").name


@pytest.mark.rig
def test_an_older_library_lacks_functions(nvsim, tmp_path, monkeypatch):
    nvsim.load("a100-80:sriov-mdev@61")
    whole = gpu_at(answer_of(HelperNvml()), AT_61)
    gone = [
        "nvmlDeviceGetVgpuHeterogeneousMode",
        "nvmlVgpuTypeGetMaxInstancesPerGpuInstance",
        "nvmlDeviceGetUUID",
    ]
    (tmp_path / LIBRARY.name).write_bytes(without(LIBRARY.read_bytes(), gone))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    older = gpu_at(answer_of(HelperNvml()), AT_61)
    assert str(older.mixed_size) == str(Unknown("nvmlDeviceGetVgpuHeterogeneousMode: Function Not Found"))
    assert str(older.uuid) == str(Unknown("nvmlDeviceGetUUID: Function Not Found"))
    assert (older.name, older.mig_current, older.active) == (whole.name, whole.mig_current, whole.active)
    assert not isinstance(older.types, Unknown)
    assert not isinstance(whole.types, Unknown)
    assert [each.type_id for each in older.types] == [each.type_id for each in whole.types]
    assert {each.max_per_gi for each in older.types} == {None}


@pytest.mark.rig
def test_whatever_it_is_given_it_refuses_and_lives(nvsim, nvml):
    """Null pointers, wrong versions, too small buffers; from many threads too."""
    nvsim.load("l40s:vendor-vfio@41")
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

    for type_id in nvml.nvmlDeviceGetSupportedVgpus(gpu):  # no table of a 48 GB card's placements is public
        places = nvml.nvmlDeviceGetVgpuTypeSupportedPlacements(gpu, type_id, version=2)
        assert 0 < places.count <= nvml.nvmlVgpuTypeGetMaxInstances(gpu, type_id)

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
    nvsim.load("t4:mdev@81")
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

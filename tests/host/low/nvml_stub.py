"""A stand-in for the module `pynvml`: functions as attributes, errors as NVML has them."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace


class NVMLError(Exception):
    """An NVML error with its words."""


def fails(words: str):
    """A function that fails in every call."""

    def function(*arguments):
        raise NVMLError(words)

    return function


def stub(**functions) -> SimpleNamespace:
    """An L40S with two types and a running vGPU of 5000 MiB, with `functions` in place of its own."""
    used_mib = 5000

    def fb_usage(vgpu, result) -> int:
        ctypes.cast(result, ctypes.POINTER(ctypes.c_ulonglong))[0] = used_mib << 20
        return 0

    def check(status: int) -> None:
        if status:
            raise NVMLError(f"status {status}")

    names = {1147: "NVIDIA L40S-1Q", 1149: "NVIDIA L40S-4C"}
    sizes = {1147: 1024 << 20, 1149: 4096 << 20}
    calls: list[str] = []
    module = {
        "NVMLError": NVMLError,
        "calls": calls,
        "nvmlInit": lambda: calls.append("nvmlInit"),
        "nvmlShutdown": lambda: calls.append("nvmlShutdown"),
        "nvmlDeviceGetCreatableVgpus": lambda handle: [],
        "nvmlSystemGetDriverVersion": lambda: "550.54.16",
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: f"handle {index}",
        "nvmlDeviceGetPciInfo": lambda handle: SimpleNamespace(busId=b"00000000:41:00.0"),
        "nvmlDeviceGetUUID": lambda handle: "GPU-1",
        "nvmlDeviceGetName": lambda handle: "NVIDIA L40S",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=46068 << 20),
        "nvmlDeviceGetMigMode": lambda handle: [0, 1],
        "nvmlDeviceGetVirtualizationMode": lambda handle: 3,
        "nvmlDeviceGetHostVgpuMode": lambda handle: 1,
        "nvmlDeviceGetVgpuHeterogeneousMode": lambda handle: 0,
        "nvmlDeviceGetSupportedVgpus": lambda handle: sorted(names, reverse=True),
        "nvmlVgpuTypeGetName": names.__getitem__,
        "nvmlVgpuTypeGetFramebufferSize": sizes.__getitem__,
        "nvmlVgpuTypeGetGpuInstanceProfileId": lambda type_id: 0xFFFFFFFF,
        "nvmlVgpuTypeGetMaxInstances": lambda handle, type_id: (48 << 30) // sizes[type_id],
        "nvmlVgpuTypeGetMaxInstancesPerGpuInstance": lambda type_id: 0,
        "nvmlVgpuTypeGetNumDisplayHeads": lambda type_id: 4,
        "nvmlVgpuTypeGetResolution": lambda type_id: (5120, 2880),
        "nvmlVgpuTypeGetFrameRateLimit": lambda type_id: 60,
        "nvmlVgpuTypeGetLicense": lambda type_id: "NVIDIA RTX Virtual Workstation,5.0",
        "nvmlDeviceGetActiveVgpus": lambda handle: [7],
        "nvmlVgpuInstanceGetType": lambda vgpu: 1147,
        "nvmlVgpuInstanceGetMdevUUID": fails("Not Supported"),
        "nvmlVgpuInstanceGetVmID": lambda vgpu: ("9b5d0b8c-1f6e-4d2b-8c1a-0d7a8a3f4b11", 1),
        "_nvmlGetFunctionPointer": lambda name: fb_usage,
        "_nvmlCheckReturn": check,
    }
    return SimpleNamespace(**{**module, **functions})


def without(*names: str) -> SimpleNamespace:
    """The stub of an older binding, which lacks some functions."""
    module = stub()
    for name in names:
        delattr(module, name)
    return module

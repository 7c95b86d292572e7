"""What an administrator does with nvidia-smi, by the real binding: MIG, mixed-size mode, schedulers.

Every section initialises NVML and shuts it down again: a client keeps its GPUs in use (hardware.md 1.5.6).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pynvml

INVALID_GI_PROFILE = 0xFFFFFFFF


@contextmanager
def device(address: object) -> Iterator[Any]:
    """The handle of the GPU at a PCI address."""
    pynvml.nvmlInit()
    try:
        yield pynvml.nvmlDeviceGetHandleByPciBusId(str(address).encode())
    finally:
        pynvml.nvmlShutdown()


def set_mig(address: object, *, enabled: bool) -> int:
    """The activation status: NVML_SUCCESS, or why the mode is only pending."""
    with device(address) as gpu:
        return pynvml.nvmlDeviceSetMigMode(gpu, int(enabled))


def mig(address: object) -> tuple[bool, bool]:
    """MIG mode now, and the pending one."""
    with device(address) as gpu:
        current, pending = pynvml.nvmlDeviceGetMigMode(gpu)
        return bool(current), bool(pending)


def mixed_size(address: object) -> bool:
    """Whether mixed-size mode is on; a GPU that has no such mode is not asked."""
    with device(address) as gpu:
        return bool(pynvml.nvmlDeviceGetVgpuHeterogeneousMode(gpu))


def set_mixed_size(address: object, *, enabled: bool) -> None:
    with device(address) as gpu:
        pynvml.nvmlDeviceSetVgpuHeterogeneousMode(gpu, int(enabled))


def gi_profiles(gpu: Any) -> dict[str, Any]:
    """The GPU-instance profiles of a GPU by name: `1g.10gb`."""
    found = {}
    for number in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            info = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu, number)
        except pynvml.NVMLError:
            continue
        found[_text(info.name).removeprefix("MIG ")] = info
    return found


def make_gi(gpu: Any, name: str, start: int | None = None) -> Any:
    """A GPU instance of that profile: its handle."""
    profile = gi_profiles(gpu)[name].id
    if start is None:
        return pynvml.nvmlDeviceCreateGpuInstance(gpu, profile)
    size = possible_placements(gpu, name)[1]
    placement = pynvml.c_nvmlGpuInstancePlacement_t(start, size)
    return pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(gpu, profile, ctypes.byref(placement))


def free(gpu: Any, name: str) -> int:
    """How many more instances of that profile could be made now."""
    return pynvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, gi_profiles(gpu)[name].id)


def possible_placements(gpu: Any, name: str) -> tuple[list[int], int]:
    """Where instances of that profile may start, and their size, in memory slices."""
    profile = gi_profiles(gpu)[name].id
    count = ctypes.c_uint(0)
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu, profile, None, ctypes.byref(count))
    array = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu, profile, array, ctypes.byref(count))
    return sorted(each.start for each in array), array[0].size


def gis(gpu: Any) -> dict[int, Any]:
    """Every GPU instance: its info by its id."""
    found = {}
    for profile in gi_profiles(gpu).values():
        count = ctypes.c_uint(0)
        array = (pynvml.c_nvmlGpuInstance_t * profile.instanceCount)()
        pynvml.nvmlDeviceGetGpuInstances(gpu, profile.id, array, ctypes.byref(count))
        for handle in array[: count.value]:
            info = pynvml.nvmlGpuInstanceGetInfo(handle)
            found[info.id] = info
    return found


def destroy_gis(gpu: Any) -> None:
    for number in gis(gpu):
        pynvml.nvmlGpuInstanceDestroy(pynvml.nvmlDeviceGetGpuInstanceById(gpu, number))


def make_ci(gi: Any) -> Any:
    """A compute instance that takes the whole GPU instance."""
    for number in range(pynvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        try:
            info = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(gi, number, 0)
        except pynvml.NVMLError:
            continue
        if info.sliceCount == slices_of(gi):
            return pynvml.nvmlGpuInstanceCreateComputeInstance(gi, info.id)
    raise LookupError("no compute-instance profile has all slices")


def slices_of(gi: Any) -> int:
    info = pynvml.nvmlGpuInstanceGetInfo(gi)
    return next(each.sliceCount for each in gi_profiles(info.device).values() if each.id == info.profileId)


def scheduler_policy(gpu: Any) -> int:
    return pynvml.nvmlDeviceGetVgpuSchedulerState(gpu).schedulerPolicy


def set_scheduler(gpu: Any, policy: int) -> None:
    state = pynvml.c_nvmlVgpuSchedulerSetState_t()
    state.schedulerPolicy = policy
    pynvml.nvmlDeviceSetVgpuSchedulerState(gpu, state)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value

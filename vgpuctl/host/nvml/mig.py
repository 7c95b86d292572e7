"""MIG over a module such as `pynvml`: profiles, placements and instances, and what changes them.

Runs in the helper process.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from vgpuctl.host.nvml.calls import ask, attempt, text
from vgpuctl.model.fact import Fact, Unknown, known
from vgpuctl.model.giprofile import MigProfile, compute_name
from vgpuctl.model.gpu import ComputeInstance, GpuInstance
from vgpuctl.ports.nvml import (
    CutCompute,
    CutInstance,
    DestroyCompute,
    DestroyInstance,
    NvmlDone,
    NvmlOrder,
    SetMode,
)

_SUCCESS = 0
_UNKNOWN_ERROR = 999
_NOT_SUPPORTED = 3  # NVML_ERROR_NOT_SUPPORTED
_NOT_THERE = 6  # NVML_ERROR_NOT_FOUND
_OFF = Unknown("MIG mode is off")
_ANOTHER = NvmlDone(code=_NOT_THERE, text="another instance has that id now")
_SHARED = 0  # NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED


@dataclass(frozen=True, slots=True)
class ProfileInfo:
    """A GPU-instance profile as NVML describes it."""

    id: int
    name: str
    slices: int
    most: int


def profile_infos(nvml: Any, handle: Any) -> tuple[ProfileInfo, ...]:
    """This GPU's GPU-instance profiles.

    The id is not the number by which NVML is asked (hardware.md 3.1.6); a profile that this GPU lacks
    is NotSupported, and without MIG all are.
    """
    found = []
    for number in range(getattr(nvml, "NVML_GPU_INSTANCE_PROFILE_COUNT", 0)):
        info = ask(nvml, "nvmlDeviceGetGpuInstanceProfileInfo", handle, number)
        if not isinstance(info, Unknown):
            name = text(info.name).removeprefix("MIG ")
            found.append(
                ProfileInfo(int(info.id), name, _number(info, "sliceCount"), _number(info, "instanceCount"))
            )
    return tuple(found)


def gi_profiles(nvml: Any, handle: Any, *, is_on: bool) -> Fact[tuple[MigProfile, ...]]:
    """The profiles with their possible placements and, with MIG on, how many more fit now."""
    found = []
    for info in profile_infos(nvml, handle):
        places = _placements(nvml, handle, info.id)
        if isinstance(places, Unknown):
            return places
        remaining = None
        if is_on:
            remaining = known(ask(nvml, "nvmlDeviceGetGpuInstanceRemainingCapacity", handle, info.id))
        found.append(
            MigProfile(
                name=info.name,
                gi_profile_id=info.id,
                slices=info.slices,
                max=info.most,
                starts=tuple(sorted(start for start, _ in places)),
                size=places[0][1] if places else None,
                remaining=remaining,
            )
        )
    return tuple(found)


def gpu_instances(nvml: Any, handle: Any, *, is_on: bool) -> Fact[tuple[GpuInstance, ...]]:
    """Every GPU instance, by id; none with MIG off.  A list with holes would pass for the whole list."""
    if not is_on:
        return ()
    found = []
    for info in profile_infos(nvml, handle):
        handles = _listed(nvml, "GpuInstance", handle, info.id, info.most)
        if isinstance(handles, Unknown):
            return handles
        for each in handles:
            details = ask(nvml, "nvmlGpuInstanceGetInfo", each)
            if isinstance(details, Unknown):
                return details
            found.append(
                GpuInstance(
                    id=int(details.id),
                    profile=info.name,
                    profile_id=info.id,
                    start=int(details.placement.start),
                    size=int(details.placement.size),
                    compute_instances=_compute_instances(nvml, each, info),
                )
            )
    return tuple(sorted(found, key=lambda each: each.id or 0))


def carry_out(nvml: Any, order: NvmlOrder) -> Fact[NvmlDone]:
    """Carry out an order in one section between nvmlInit and nvmlShutdown."""
    begun = ask(nvml, "nvmlInit")
    if isinstance(begun, Unknown):
        return begun
    try:
        return _carry_out(nvml, order)
    except nvml.NVMLError as error:
        return NvmlDone(code=int(getattr(error, "value", _UNKNOWN_ERROR)), text=str(error))
    except AttributeError as error:
        return Unknown(f"this binding lacks {error.name}")
    finally:
        ask(nvml, "nvmlShutdown")


def _carry_out(nvml: Any, order: NvmlOrder) -> NvmlDone:
    handle = nvml.nvmlDeviceGetHandleByPciBusId(str(order.gpu).encode())
    match order:
        case SetMode(enabled=enabled):
            activation = int(nvml.nvmlDeviceSetMigMode(handle, int(enabled)))
            words = "Success" if activation == _SUCCESS else text(nvml.nvmlErrorString(activation))
            return NvmlDone(code=_SUCCESS, text=words, activation=activation)
        case CutInstance():
            place = nvml.c_nvmlGpuInstancePlacement_t(order.start, order.size)
            made = nvml.nvmlDeviceCreateGpuInstanceWithPlacement(
                handle, order.profile_id, ctypes.byref(place)
            )
            return NvmlDone(code=_SUCCESS, text="Success", instance=int(nvml.nvmlGpuInstanceGetInfo(made).id))
    instance = nvml.nvmlDeviceGetGpuInstanceById(handle, order.instance)
    details = nvml.nvmlGpuInstanceGetInfo(instance)
    if (int(details.profileId), int(details.placement.start)) != (order.profile_id, order.start):
        return _ANOTHER
    if isinstance(order, DestroyInstance):
        nvml.nvmlGpuInstanceDestroy(instance)
        return NvmlDone(code=_SUCCESS, text="Success")
    profile = next(each for each in profile_infos(nvml, handle) if each.id == order.profile_id)
    numbers = [info.id for info in _compute_profiles(nvml, instance, profile) if info.name == order.compute]
    match order:
        case CutCompute() if numbers:
            made = nvml.nvmlGpuInstanceCreateComputeInstance(instance, numbers[0])
            number = int(nvml.nvmlComputeInstanceGetInfo(made).id)
            return NvmlDone(code=_SUCCESS, text="Success", instance=number)
        case CutCompute():
            return NvmlDone(code=_NOT_SUPPORTED, text=f"{profile.name} has no {order.compute}")
        case DestroyCompute():
            compute = nvml.nvmlGpuInstanceGetComputeInstanceById(instance, order.compute_id)
            if int(nvml.nvmlComputeInstanceGetInfo(compute).profileId) not in numbers:
                return _ANOTHER
            nvml.nvmlComputeInstanceDestroy(compute)
            return NvmlDone(code=_SUCCESS, text="Success")


def _placements(nvml: Any, handle: Any, profile_id: int) -> Fact[tuple[tuple[int, int], ...]]:
    name = "nvmlDeviceGetGpuInstancePossiblePlacements"

    def call() -> tuple[tuple[int, int], ...]:
        count = ctypes.c_uint()
        function = getattr(nvml, name)
        function(handle, profile_id, None, ctypes.byref(count))
        places = (nvml.c_nvmlGpuInstancePlacement_t * max(count.value, 1))()
        function(handle, profile_id, places, ctypes.byref(count))
        return tuple((int(each.start), int(each.size)) for each in places[: count.value])

    return attempt(nvml, name, call)


_LISTS = {"GpuInstance": "nvmlDeviceGetGpuInstances", "ComputeInstance": "nvmlGpuInstanceGetComputeInstances"}


def _listed(nvml: Any, kind: str, parent: Any, profile_id: int, most: int) -> Fact[list[Any]]:
    """Handles of instances; the buffer has room for as many as the profile allows, by contract."""

    def call() -> list[Any]:
        count = ctypes.c_uint()
        handles = (getattr(nvml, f"c_nvml{kind}_t") * max(most, 1))()
        getattr(nvml, _LISTS[kind])(parent, profile_id, handles, ctypes.byref(count))
        return list(handles[: count.value])

    return attempt(nvml, _LISTS[kind], call)


def _compute_profiles(nvml: Any, instance: Any, of: ProfileInfo) -> tuple[ProfileInfo, ...]:
    """What a GPU instance of that profile can be shared out into; one that it lacks is NotSupported."""
    found: list[ProfileInfo] = []
    for number in range(getattr(nvml, "NVML_COMPUTE_INSTANCE_PROFILE_COUNT", 0)):
        info = ask(nvml, "nvmlGpuInstanceGetComputeInstanceProfileInfo", instance, number, _SHARED)
        if not isinstance(info, Unknown):
            slices = _number(info, "sliceCount")
            name = compute_name(of.name, slices, of.slices)
            found.append(ProfileInfo(int(info.id), name, slices, _number(info, "instanceCount")))
    return tuple(found)


def _compute_instances(nvml: Any, instance: Any, of: ProfileInfo) -> Fact[tuple[ComputeInstance, ...]]:
    """The compute instances of a GPU instance, by id."""
    found: dict[int, ComputeInstance] = {}
    profiles = _compute_profiles(nvml, instance, of)
    if not profiles:
        # Every instance can be shared out in some way: who is told of none was not answered.
        return Unknown("nvmlGpuInstanceGetComputeInstanceProfileInfo: no profile could be read")
    for info in profiles:
        listed = _listed(nvml, "ComputeInstance", instance, info.id, info.most)
        if isinstance(listed, Unknown):
            return listed
        for each in listed:
            details = ask(nvml, "nvmlComputeInstanceGetInfo", each)
            if isinstance(details, Unknown):
                return details
            found[int(details.id)] = ComputeInstance(int(details.id), info.name)
    return tuple(found[number] for number in sorted(found))


def _number(info: Any, name: str) -> int:
    return int(getattr(info, name, 0))

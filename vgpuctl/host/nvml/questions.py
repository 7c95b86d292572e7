"""What we ask NVML, over a module such as `pynvml`; every question may stay without an answer.

Runs in the helper process.  Nothing here changes a GPU: `mig.py` alone calls Set, Create and Destroy.
"""

from __future__ import annotations

import ctypes
from typing import Any

from vgpuctl.host.nvml.calls import ask, attempt, text, then
from vgpuctl.host.nvml.mig import gi_profiles, gpu_instances, profile_infos
from vgpuctl.model import typename
from vgpuctl.model.fact import Fact, Unknown, known
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.typename import TypeName
from vgpuctl.model.types import TypeKind, VgpuType
from vgpuctl.ports.nvml import NvmlGpu, NvmlHost, NvmlVgpu

_MIB = 1 << 20
_NO_GI_PROFILE = 0xFFFFFFFF  # INVALID_GPU_INSTANCE_PROFILE_ID; 0 is a real profile
_VM_ID_IS_UUID = 1  # NVML_VGPU_VM_ID_UUID
_PROBE = "nvmlDeviceGetCreatableVgpus"
"""A function that NVIDIA's binding has and the modules of the same name have not."""


def wrong_binding(nvml: Any) -> str | None:
    """Why this module is not NVIDIA's binding; None when it is.

    Old `pynvml` 11.x and `nvidia-ml-py3` overwrite the same file (nvitop issues 4, 13 and 44).
    """
    if hasattr(nvml, _PROBE):
        return None
    where = getattr(nvml, "__file__", None) or "an unknown place"
    return (
        f"the module pynvml from {where} is not NVIDIA's: remove the packages pynvml and nvidia-ml-py3 "
        "and install nvidia-ml-py again"
    )


KnownTypes = dict[tuple[Any, ...], VgpuType]
"""What was told of vGPU types, by driver, GPU, its modes, and id: for those it stays the same."""


def describe_host(nvml: Any, memory: KnownTypes | None = None, *, in_full: bool = False) -> Fact[NvmlHost]:
    """Everything about this host in one section between nvmlInit and nvmlShutdown.

    An initialised client keeps the GPUs open, and sriov-manage then fails (hardware.md 5).  What is asked
    of types, a dozen questions each, is nine tenths of it: `memory` spares it from the second time on.
    """
    if reason := wrong_binding(nvml):
        return Unknown(reason)
    begun = ask(nvml, "nvmlInit")
    if isinstance(begun, Unknown):
        return begun
    try:
        return _describe(nvml, {} if memory is None else memory, in_full=in_full)
    finally:
        ask(nvml, "nvmlShutdown")


def _describe(nvml: Any, memory: KnownTypes, *, in_full: bool) -> Fact[NvmlHost]:
    count = ask(nvml, "nvmlDeviceGetCount")
    if isinstance(count, Unknown):
        return count
    handles = [ask(nvml, "nvmlDeviceGetHandleByIndex", index) for index in range(count)]
    # A GPU without a handle (lost, no permission) has no address either: sysfs shows that it is there.
    driver = then(ask(nvml, "nvmlSystemGetDriverVersion"), text)
    described = [
        _describe_gpu(nvml, handle, driver, memory, in_full=in_full)
        for handle in handles
        if not isinstance(handle, Unknown)
    ]
    return NvmlHost(
        driver_version=driver,
        gpus=tuple(sorted((gpu for gpu in described if gpu is not None), key=lambda gpu: gpu.address)),
    )


def _describe_gpu(
    nvml: Any, handle: Any, driver: Fact[str], memory: KnownTypes, *, in_full: bool
) -> NvmlGpu | None:
    address = then(ask(nvml, "nvmlDeviceGetPciInfo", handle), lambda info: _address(info.busId))
    if isinstance(address, Unknown):
        return None
    mig = ask(nvml, "nvmlDeviceGetMigMode", handle)
    uuid = then(ask(nvml, "nvmlDeviceGetUUID", handle), text)
    mixed_size = then(ask(nvml, "nvmlDeviceGetVgpuHeterogeneousMode", handle), bool)
    of_what = (driver, uuid, then(mig, tuple), mixed_size)
    return NvmlGpu(
        address=address,
        uuid=uuid,
        name=then(ask(nvml, "nvmlDeviceGetName", handle), text),
        fb_mib=then(ask(nvml, "nvmlDeviceGetMemoryInfo", handle), lambda memory: int(memory.total) // _MIB),
        mig_current=then(mig, lambda modes: bool(modes[0])),
        mig_pending=then(mig, lambda modes: bool(modes[1])),
        mixed_size=mixed_size,
        types=_types(nvml, handle, of_what, memory),
        gi_profiles=mig if isinstance(mig, Unknown) else gi_profiles(nvml, handle, is_on=bool(mig[0])),
        gpu_instances=mig if isinstance(mig, Unknown) else gpu_instances(nvml, handle, is_on=bool(mig[0])),
        **(_for_a_capture(nvml, handle) if in_full else {}),
    )


def _for_a_capture(nvml: Any, handle: Any) -> dict[str, Any]:
    """What decides nothing: a look at the host is spared four calls for each vGPU that runs."""
    return {
        "virtualization_mode": ask(nvml, "nvmlDeviceGetVirtualizationMode", handle),
        "host_vgpu_mode": ask(nvml, "nvmlDeviceGetHostVgpuMode", handle),
        "active": then(
            ask(nvml, "nvmlDeviceGetActiveVgpus", handle),
            lambda vgpus: tuple(_describe_vgpu(nvml, vgpu) for vgpu in vgpus),
        ),
    }


def _types(
    nvml: Any, handle: Any, of_what: tuple[Fact[Any], ...], memory: KnownTypes
) -> Fact[tuple[VgpuType, ...]]:
    """The supported types; they do not change with what is created (hardware.md 5)."""
    ids = ask(nvml, "nvmlDeviceGetSupportedVgpus", handle)
    if isinstance(ids, Unknown):
        return ids
    known_before = {each: memory[of_what, each] for each in ids if (of_what, each) in memory}
    is_new = len(known_before) < len(ids)
    names = {info.id: info.name for info in profile_infos(nvml, handle)} if is_new else {}
    types = []
    for type_id in sorted(ids):
        described = known_before.get(type_id) or _describe_type(nvml, handle, type_id, names)
        if isinstance(described, Unknown):
            return described  # a list with holes would pass for the whole list
        types.append(described)
        # What was left open once may be told the next time.
        if described.fb_mib is not None and described.max_per_gpu is not None and known(of_what[1]):
            memory[of_what, type_id] = described
    return tuple(types)


def _describe_type(nvml: Any, handle: Any, type_id: int, gi_profiles: dict[int, str]) -> Fact[VgpuType]:
    raw_name = then(ask(nvml, "nvmlVgpuTypeGetName", type_id), text)
    if isinstance(raw_name, Unknown):
        return raw_name
    name = typename.parse(raw_name)
    profile = known(ask(nvml, "nvmlVgpuTypeGetGpuInstanceProfileId", type_id))
    # A driver that cannot say it is older than the names that do (hardware.md 2).
    if profile is None:
        is_mig = isinstance(name, TypeName) and name.is_mig_backed
    else:
        is_mig = profile != _NO_GI_PROFILE
    resolution = known(ask(nvml, "nvmlVgpuTypeGetResolution", type_id))
    fb_bytes = known(ask(nvml, "nvmlVgpuTypeGetFramebufferSize", type_id))
    return VgpuType(
        name=str(name),
        raw_name=raw_name,
        type_id=type_id,
        kind=TypeKind.MIG_BACKED if is_mig else TypeKind.TIME_SLICED,
        series=name.series if isinstance(name, TypeName) else "",
        fb_mib=None if fb_bytes is None else fb_bytes // _MIB,
        # 0 would say that a supported type can never be made: nobody said anything.
        max_per_gpu=known(ask(nvml, "nvmlVgpuTypeGetMaxInstances", handle, type_id)) or None,
        max_per_gi=known(ask(nvml, "nvmlVgpuTypeGetMaxInstancesPerGpuInstance", type_id)) or None,
        gi_profile=gi_profiles.get(profile) if is_mig and profile is not None else None,
        heads=known(ask(nvml, "nvmlVgpuTypeGetNumDisplayHeads", type_id)),
        max_resolution=None if resolution is None else f"{resolution[0]}x{resolution[1]}",
        frl_fps=known(ask(nvml, "nvmlVgpuTypeGetFrameRateLimit", type_id)),
        licence=known(then(ask(nvml, "nvmlVgpuTypeGetLicense", type_id), text)),
        source="nvml",
    )


def _describe_vgpu(nvml: Any, vgpu: Any) -> NvmlVgpu:
    return NvmlVgpu(
        type_id=ask(nvml, "nvmlVgpuInstanceGetType", vgpu),
        mdev_uuid=then(ask(nvml, "nvmlVgpuInstanceGetMdevUUID", vgpu), text),
        vm_uuid=then(ask(nvml, "nvmlVgpuInstanceGetVmID", vgpu), _vm_uuid),
        fb_used_mib=_fb_used_mib(nvml, vgpu),
    )


def _vm_uuid(answer: tuple[Any, int]) -> str:
    words, kind = answer
    if kind != _VM_ID_IS_UUID:
        raise ValueError(f"the VM's id is of kind {kind}, not a UUID")
    return text(words)


def _fb_used_mib(nvml: Any, vgpu: Any) -> Fact[int]:
    """Asked past the binding: its wrapper (13.615.71) takes the 64-bit answer as 32 bits."""

    def call() -> int:
        used = ctypes.c_ulonglong()
        function = nvml._nvmlGetFunctionPointer("nvmlVgpuInstanceGetFbUsage")  # noqa: SLF001
        nvml._nvmlCheckReturn(function(vgpu, ctypes.byref(used)))  # noqa: SLF001
        return used.value // _MIB

    return attempt(nvml, "nvmlVgpuInstanceGetFbUsage", call)


def _address(value: str | bytes) -> PciAddress:
    return PciAddress.parse(text(value))

"""What the kernel shows of one GPU; reads only what lies below it, so that a hung GPU hangs alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from vgpuctl.host.frameworks.parents import (
    MDEVS,
    NVIDIA,
    device_path,
    is_settled,
    text_in,
    type_directories,
    vfio_nodes,
)
from vgpuctl.host.frameworks.passthrough import VFIO_PCI
from vgpuctl.host.vfs import PARKING_DRIVER, driver_of, read_vfs
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.gpu import DeviceId, FrameworkKind, GpuState, ObservedVgpu, Vf
from vgpuctl.model.pci import GpuAddress, PciAddress
from vgpuctl.ports.framework import Framework, FrameworkView
from vgpuctl.ports.kernel import Kernel

NO_DEVICE: Final = DeviceId(0, 0, 0, 0)
_EMPTY: Final = FrameworkView(types=(), creatable=Unknown("it offers no types now"), vgpus=())
_FIELD = re.compile(r"^(?P<key>[A-Za-z ]+?)\s*:\s*(?P<value>.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class DriverWords:
    """`proc/driver/nvidia/gpus/<address>/information`: what the driver says without NVML."""

    model: str | None = None
    uuid: str | None = None
    minor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One GPU by the kernel's word alone.

    `nodes` are the device nodes by which each of its vGPUs (by parent and mdev) can be held, `own_nodes`
    those of the GPU itself, Unknown where the node's number is not known.
    """

    address: GpuAddress
    device: DeviceId
    driver: str | None
    numa_node: int | None
    vfs_total: int
    vfs: tuple[Vf, ...]
    words: DriverWords
    framework: FrameworkKind | None
    view: FrameworkView
    nodes: dict[tuple[GpuAddress, UUID | None], Fact[tuple[str, ...]]] = field(hash=False)
    own_nodes: Fact[tuple[str, ...]]


def device_id(kernel: Kernel, address: GpuAddress) -> DeviceId:
    """The PCI ids of a function; zeros for a parent that is none."""
    if not isinstance(address, PciAddress):
        return NO_DEVICE
    path = device_path(address)
    names = ("vendor", "device", "subsystem_vendor", "subsystem_device")
    return DeviceId(*(int(kernel.read(f"{path}/{name}"), 16) for name in names))


def driver_words(kernel: Kernel, address: GpuAddress) -> DriverWords:
    """What the NVIDIA driver says in procfs; empty while it is not bound.

    The UUID reads `GPU-????????-...` until somebody has opened the GPU.
    """
    text = text_in(kernel, f"proc/driver/nvidia/gpus/{address}/information")
    if text is None or isinstance(text, Unknown):
        return DriverWords()
    fields = {match["key"].strip(): match["value"] for match in _FIELD.finditer(text)}
    uuid = fields.get("GPU UUID", "")
    minor = fields.get("Device Minor", "")
    return DriverWords(
        model=fields.get("Model") or None,
        uuid=uuid if uuid.startswith("GPU-") and "?" not in uuid else None,
        minor=int(minor) if minor.isdecimal() else None,
    )


def look(
    kernel: Kernel,
    address: GpuAddress,
    every: dict[FrameworkKind, Framework],
    has_vfs: Callable[[DeviceId], bool],
) -> Sighting:
    """Read one GPU.  Raises OSError when it cannot be read.

    `has_vfs` says whether a model can have VFs at all: a T4 shows `sriov_totalvfs` 16 and never has one.
    """
    device = device_id(kernel, address)
    if not isinstance(address, PciAddress):
        return _sighting(kernel, address, device, every, driver=None, vfs_total=0, vfs=())
    total = _number(kernel, f"{device_path(address)}/sriov_totalvfs")
    if not has_vfs(device) or is_settled(type_directories(kernel, address)):
        total = 0
    return _sighting(
        kernel,
        address,
        device,
        every,
        driver=driver_of(kernel, address),
        vfs_total=total,
        vfs=read_vfs(kernel, address, device.vendor),
    )


def _sighting(
    kernel: Kernel,
    address: GpuAddress,
    device: DeviceId,
    every: dict[FrameworkKind, Framework],
    *,
    driver: str | None,
    vfs_total: int,
    vfs: tuple[Vf, ...],
) -> Sighting:
    chosen = next((each for each in every.values() if each.serves(address, vfs)), None)
    view = chosen.view(address, vfs) if chosen is not None else _EMPTY
    words = driver_words(kernel, address) if device.vendor == NVIDIA else DriverWords()
    nodes: Fact[tuple[str, ...]] = ()
    if driver == VFIO_PCI:
        nodes = vfio_nodes(kernel, device_path(address))
    elif words.minor is not None:
        nodes = (f"/dev/nvidia{words.minor}",)
    elif driver == "nvidia":
        nodes = Unknown("the driver does not say which /dev/nvidia<n> this GPU is")
    numa = _number(kernel, f"{device_path(address)}/numa_node", missing=-1)
    return Sighting(
        address=address,
        device=device,
        driver=driver,
        numa_node=numa if numa >= 0 else None,
        vfs_total=vfs_total,
        vfs=vfs,
        words=words,
        framework=chosen.kind if chosen is not None else None,
        view=view,
        nodes={(each.parent, each.mdev_uuid): _nodes_of(kernel, each) for each in view.vgpus},
        own_nodes=nodes,
    )


def _nodes_of(kernel: Kernel, vgpu: ObservedVgpu) -> Fact[tuple[str, ...]]:
    if vgpu.mdev_uuid is None:
        return vfio_nodes(kernel, device_path(vgpu.parent))
    if isinstance(vgpu.type_id, Unknown) and not kernel.exists(f"{MDEVS}/{vgpu.mdev_uuid}"):
        return Unknown("it is being removed, which waits for whoever holds it")
    return vfio_nodes(kernel, f"{MDEVS}/{vgpu.mdev_uuid}")


def _number(kernel: Kernel, path: str, missing: int = 0) -> int:
    try:
        return int(kernel.read(path))
    except (FileNotFoundError, ValueError):
        return missing


def state_of(seen: Sighting) -> tuple[GpuState, str]:
    """What can be done with the GPU, and why."""
    if seen.driver == PARKING_DRIVER and (not seen.vfs or seen.device.vendor == NVIDIA):
        have = "with" if seen.vfs else "without"
        return GpuState.PARKED, (
            f"it is on {PARKING_DRIVER} {have} VFs: sriov-manage was interrupted; "
            "run it again while nothing uses the GPU"
        )
    if seen.driver == VFIO_PCI:
        return GpuState.PASSED_THROUGH, "it is on vfio-pci, given to a domain as a whole"
    if seen.framework is not None and (seen.view.types or seen.view.vgpus):
        return GpuState.READY, ""
    if isinstance(seen.address, PciAddress) and seen.driver is None:
        return GpuState.NO_DRIVER, "no driver is bound to it"
    if seen.framework is not None:
        return GpuState.READY, ""
    if seen.vfs:
        return GpuState.NO_TYPES, (
            f"it has {len(seen.vfs)} VFs and the driver has not filled any of them yet: "
            "see whether nvidia-vgpud and nvidia-vgpu-mgr run"
        )
    if seen.vfs_total and (seen.device.vendor != NVIDIA or seen.driver == "nvidia"):
        return GpuState.VFS_OFF, f"it can have {seen.vfs_total} VFs and has none"
    return GpuState.NO_TYPES, f"the driver {seen.driver} offers no vGPU types" if seen.driver else "no types"

"""Cards as an observation would show them, for the tests of the rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid5

from vgpuctl.model.allocation import Allocation, GpuIdentity
from vgpuctl.model.card import Card, card_of
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.gpu import DeviceId, FrameworkKind, Gpu, GpuState, ObservedVgpu, Vf
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.step import CreateVgpu, RemoveVgpu
from vgpuctl.model.types import VgpuType

CATALOG = Catalog()
BOOT = "11111111-2222-3333-4444-555555555555"
_NAMESPACE = UUID("00000000-0000-0000-0000-0000000000aa")


def vgpu_id(name: str) -> UUID:
    return uuid5(_NAMESPACE, name)


def pf(bus: int = 0x41) -> PciAddress:
    return PciAddress(0, bus, 0, 0)


def vf(index: int, bus: int = 0x41) -> PciAddress:
    return PciAddress(0, bus, (4 + index) // 8, (4 + index) % 8)


def gpu_of(
    key: str = "l40s",
    framework: FrameworkKind | None = FrameworkKind.VENDOR_VFIO,
    *,
    bus: int = 0x41,
    **facts,
) -> Gpu:
    """A GPU with VFs on (or mdev on the PF), its types known, nothing asked about what is creatable."""
    model = CATALOG.keyed(key)
    vfs = ()
    if framework in (FrameworkKind.VENDOR_VFIO, FrameworkKind.SRIOV_MDEV):
        vfs = tuple(
            Vf(address=vf(index, bus), index=index, driver="nvidia", ready=True) for index in range(model.vfs)
        )
    # A type without a known id still has one on hardware.
    types = tuple(
        each if each.type_id is not None else replace(each, type_id=90001 + number)
        for number, each in enumerate(model.types)
    )
    facts = {
        "uuid": f"GPU-{bus:02x}",
        "driver": "nvidia",
        "numa_node": 0,
        "state": GpuState.READY,
        "framework": framework,
        "vfs_max": model.vfs,
        "vfs": vfs,
        "mig": False,
        "mixed_size": False,
        "types": types,
        "device": DeviceId(0x10DE, model.device, 0x10DE, model.subsystem or 0),
    } | facts
    return Gpu(address=pf(bus), index=0, model=model.name, **facts)


def card(
    key: str = "l40s",
    framework: FrameworkKind | None = FrameworkKind.VENDOR_VFIO,
    *,
    allocations: tuple[Allocation, ...] = (),
    bus: int = 0x41,
    **facts,
) -> Card:
    return card_of(gpu_of(key, framework, bus=bus, **facts), CATALOG.keyed(key), allocations, BOOT)


def vfs_off(key: str = "l40s", **facts) -> Card:
    return card(key, None, **({"state": GpuState.VFS_OFF, "vfs": (), "types": ()} | facts))


def t4(**facts) -> Card:
    return card("t4", FrameworkKind.MDEV, **({"vfs_max": 16} | facts))


def the_type(on: Card, name: str) -> VgpuType:
    types = (*on.gpu.types, *(on.model.types if on.model else ()))
    return next(each for each in types if each.name == name)


def identity(gpu: Gpu) -> GpuIdentity:
    return GpuIdentity(address=gpu.address, device=gpu.device, uuid=gpu.uuid)


def allocation(gpu: Gpu, type_name: str, name: str = "desk", **facts) -> Allocation:
    of_type = next((each for each in gpu.types if each.name == type_name), None)
    facts = {
        "id": vgpu_id(name),
        "type_id": of_type.type_id if of_type else None,
        "fb_mib": of_type.fb_mib if of_type else None,
        "framework": gpu.framework,
        "parent": None,
        "params": None,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    } | facts
    return Allocation(name=name, type_name=type_name, gpu=identity(gpu), **facts)


def observed(gpu: Gpu, type_name: str, parent: PciAddress | None = None, **facts) -> ObservedVgpu:
    of_type = next(each for each in gpu.types if each.name == type_name)
    facts = {"type_id": of_type.type_id, "type_name": type_name, "mdev_uuid": None} | facts
    return ObservedVgpu(gpu=gpu.address, parent=parent or gpu.address, framework=gpu.framework, **facts)


def creation(on: Card, type_name: str, name: str, parent: PciAddress) -> CreateVgpu:
    return CreateVgpu(
        vgpu=vgpu_id(name),
        name=name,
        gpu=identity(on.gpu),
        framework=on.gpu.framework,
        parent=parent,
        type_id=the_type(on, type_name).type_id,
        type_name=type_name,
    )


def removal(created: CreateVgpu) -> RemoveVgpu:
    return RemoveVgpu(
        vgpu=created.vgpu,
        name=created.name,
        gpu=created.gpu,
        framework=created.framework,
        parent=created.parent,
        type_id=created.type_id,
        type_name=created.type_name,
    )

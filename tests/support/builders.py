"""Small hosts for tests of pure decisions: one line a card, one line a domain."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from uuid import UUID, uuid4

from vgpuctl.model.allocation import Allocation
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import (
    DesktopDocument,
    DesktopVgpu,
    Document,
    ProfileDocument,
    VgpuDocument,
    Wish,
    Wishes,
    key_of,
)
from vgpuctl.model.domain import Domain, DomainState, Hypervisor
from vgpuctl.model.gpu import DeviceId, FrameworkKind, Gpu, GpuState, ObservedVgpu, Vf
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.planner import plan
from vgpuctl.model.situation import Situation
from vgpuctl.model.snapshot import Snapshot

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
BOOT = "boot-1"
CATALOG = Catalog()
_ids = count(1)


def make_gpu(
    key: str = "l40s",
    *,
    framework: FrameworkKind = FrameworkKind.SRIOV_MDEV,
    index: int = 0,
    vfs: int | None = None,
    uuid: str | None = None,
) -> Gpu:
    """A ready GPU of the catalogue; on bus 0x41 + 0x10 * index.  `vfs=0` gives one with VFs off."""
    model = CATALOG.keyed(key)
    bus = 0x41 + 0x10 * index
    count = (model.vfs if vfs is None else vfs) if framework is not FrameworkKind.MDEV else 0
    functions = tuple(
        Vf(PciAddress(0, bus, (4 + n) // 8, (4 + n) % 8), n, "nvidia", ready=True) for n in range(count)
    )
    off = framework is not FrameworkKind.MDEV and count == 0
    return Gpu(
        address=PciAddress(0, bus, 0, 0),
        index=index,
        device=DeviceId(0x10DE, model.device, 0x10DE, model.subsystem or 0),
        uuid=uuid or f"GPU-{index:08d}-0000-0000-0000-000000000000",
        model=model.name,
        driver="nvidia",
        numa_node=index % 2,
        state=GpuState.VFS_OFF if off else GpuState.READY,
        framework=None if off else framework,
        vfs_max=0 if framework is FrameworkKind.MDEV else model.vfs,
        vfs=functions,
        fb_mib=model.fb_mib,
        mig=False,
        mixed_size=False,
        types=() if off else tuple(each for each in model.types if each.type_id is not None),
    )


def with_vgpu(gpu: Gpu, type_name: str, *, parent: int = 0, uuid: UUID | None = None) -> Gpu:
    """The GPU with one more vGPU in the kernel, on its VF number `parent`."""
    assert gpu.framework is not None
    vgpu_type = gpu.type_named(type_name)
    assert vgpu_type is not None, type_name
    where = gpu.address if gpu.framework is FrameworkKind.MDEV else gpu.vfs[parent].address
    vendor = gpu.framework is FrameworkKind.VENDOR_VFIO
    vgpu = ObservedVgpu(
        gpu=gpu.address,
        parent=where,
        framework=gpu.framework,
        type_id=vgpu_type.type_id,
        type_name=type_name,
        mdev_uuid=None if vendor else uuid or uuid4(),
    )
    return replace(gpu, vgpus=(*gpu.vgpus, vgpu))


def make_domain(
    name: str, *, running: bool = False, config: tuple = (), live: tuple = (), number: int = 1
) -> Domain:
    """A persistent domain."""
    return Domain(
        name=name,
        uuid=UUID(int=number),
        state=DomainState.RUNNING if running else DomainState.SHUT_OFF,
        live=live if running else None,
        config=config,
    )


HYPERVISOR = Hypervisor(uri="test:///default", version="9.0.0", can_attach_config=True, can_attach_live=True)


def make_snapshot(*gpus: Gpu, domains: tuple[Domain, ...] = (), boot_id: str = BOOT) -> Snapshot:
    """A host of those GPUs and domains."""
    return Snapshot(
        taken_at=NOW,
        hostname="hv",
        kernel="6.8.0",
        boot_id=boot_id,
        driver_version="550.54",
        simulated=True,
        gpus=gpus,
        hypervisor=HYPERVISOR,
        domains=domains,
    )


def make_wishes(*documents: Document, profiles: tuple[ProfileDocument, ...] = ()) -> Wishes:
    """Those documents, in force."""
    return Wishes(
        {
            key_of(each): Wish(document=each, generation=1, created_at=NOW, changed_at=NOW)
            for each in documents
        },
        {each.name: each for each in profiles},
    )


def vgpu(name: str, type_name: str, **fields: object) -> VgpuDocument:
    """A Vgpu document of that type."""
    return VgpuDocument(name=name, type=type_name, **fields)  # type: ignore[arg-type]


def desktop(domain: str, type_name: str) -> DesktopDocument:
    """A Desktop document with one vGPU of its own, named like the domain."""
    return DesktopDocument(name=domain, vgpus=(DesktopVgpu(name=domain, type=type_name),))


def situation(
    snapshot: Snapshot,
    wishes: Wishes,
    allocations: tuple[Allocation, ...] = (),
    scope: frozenset[str] | None = None,
) -> Situation:
    """What a plan is made from, with ids that count up."""
    return Situation(
        snapshot=snapshot,
        wishes=wishes,
        allocations={each.id: each for each in allocations},
        catalog=CATALOG,
        now=NOW,
        new_id=lambda _name: UUID(int=next(_ids)),
        scope=scope,
    )


def plan_of(*args: object, **kwargs: object):
    """The plan of a situation."""
    return plan(situation(*args, **kwargs))  # type: ignore[arg-type]


def created(allocation: Allocation, boot_id: str = BOOT) -> Allocation:
    """The allocation after its vGPU was made."""
    return replace(allocation, created_boot=boot_id)

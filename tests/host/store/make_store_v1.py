"""Makes tests/fixtures/store-v1.db: one record of each kind, document and effect, as schema 1 keeps them.

The file stands for the stores that are out there: it is made once, and later code has to read it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from vgpuctl.host.store import SqliteStore
from vgpuctl.model.allocation import Allocation, GpuIdentity
from vgpuctl.model.document import (
    Affect,
    DesktopDocument,
    DesktopVgpu,
    Document,
    DocumentKey,
    DocumentKind,
    GpuDocument,
    NumaPolicy,
    Placement,
    PlacementPolicy,
    ProfileDocument,
    VgpuDocument,
    Wish,
)
from vgpuctl.model.domain import Hostdev, MdevSource, PciSource
from vgpuctl.model.gpu import DeviceId, FrameworkKind
from vgpuctl.model.pci import ParentName, PciAddress
from vgpuctl.model.record import (
    DAEMON,
    AllocationDropped,
    AllocationPut,
    Noticed,
    OperationEnded,
    OperationRollingBack,
    OperationStarted,
    OperationState,
    PauseSet,
    Record,
    Requester,
    StepEnded,
    StepStarted,
    WishDropped,
    WishPut,
)
from vgpuctl.model.step import (
    AttachHostdev,
    CreateVgpu,
    DetachHostdev,
    Effect,
    RemoveVgpu,
    SetParams,
    SetVfs,
    Step,
)

FIXTURE = Path(__file__).parents[2] / "fixtures" / "store-v1.db"

WRITTEN_AT = datetime(2026, 3, 1, 12, 0, 0, 250, tzinfo=UTC)
PF, VF = PciAddress(0, 0x41, 0, 0), PciAddress(0, 0x41, 0, 4)
GPU = GpuIdentity(PF, DeviceId(0x10DE, 0x26B9, 0x10DE, 0x1851), "GPU-5f1c0f53-2e0c-0a33-9f0f-6a7b9e0c1d2e")
MTTY = GpuIdentity(ParentName("mtty"), DeviceId(0, 0, 0, 0), None)
VGPU, MDEV = UUID("6a2f41a3-6c64-4f5c-9d59-09cf3a8b7a10"), UUID("b5d0a1f0-1f6e-4c2b-8a2e-0c8d3f1e2a77")
DONE, FAILED, HALF = (UUID(int=each) for each in (1, 2, 3))
ADMIN = Requester(uid=1000, pid=4242, name="mallory")

DOCUMENTS: tuple[Document, ...] = (
    GpuDocument(name="0000:41:00.0", vfs=True),
    VgpuDocument(name="lab-1", type="L40S-8Q", gpu=GPU.uuid, uuid=VGPU, owner="mallory"),
    DesktopDocument(
        name="win11",
        vgpus=(
            DesktopVgpu(name="win11-1", profile="designer", affect=frozenset(Affect)),
            DesktopVgpu(name="win11-2", vgpu="lab-1"),
        ),
    ),
    ProfileDocument(
        name="designer",
        types=("L40S-8Q", "A40-8Q"),
        placement=Placement(PlacementPolicy.SPREAD, NumaPolicy.PREFER),
        params=(("frame_rate_limiter", "0"),),
        description="Für CAD",
    ),
)

EFFECTS: tuple[Effect, ...] = (
    SetVfs(gpu=GPU, enabled=True),
    CreateVgpu(
        vgpu=VGPU,
        name="lab-1",
        gpu=GPU,
        framework=FrameworkKind.VENDOR_VFIO,
        parent=VF,
        type_id=1153,
        type_name="L40S-8Q",
    ),
    SetParams(
        vgpu=VGPU,
        name="lab-1",
        gpu=GPU,
        framework=FrameworkKind.VENDOR_VFIO,
        parent=VF,
        params="frame_rate_limiter=0",
    ),
    AttachHostdev(
        vgpu=VGPU,
        name="lab-1",
        domain="win11",
        hostdev=Hostdev(PciSource(VF), f"ua-vgpuctl-{VGPU}"),
        affect=frozenset({Affect.CONFIG}),
    ),
    DetachHostdev(
        vgpu=MDEV,
        name="serial",
        domain="win11",
        hostdev=Hostdev(MdevSource(MDEV), None),
        affect=frozenset({Affect.LIVE}),
    ),
    RemoveVgpu(
        vgpu=MDEV,
        name="serial",
        gpu=MTTY,
        framework=FrameworkKind.MDEV,
        parent=ParentName("mtty"),
        type_id=2,
        type_name="mtty-2",
    ),
)

WISHES = tuple(
    Wish(document=each, generation=3, created_at=WRITTEN_AT, changed_at=WRITTEN_AT) for each in DOCUMENTS
)
PROBLEM = {"code": "kernel-refused", "status": 502, "facts": {"errno": 5, "path": "sys/bus"}, "hint": None}

ENTRIES: tuple[Record, ...] = (
    OperationStarted(
        id=DONE,
        kind="apply",
        subject="lab.yaml",
        requester=ADMIN,
        scope=("gpu/0000:41:00.0", "domain/win11"),
        undo=((WISHES[1].key, None), (WISHES[2].key, WISHES[2])),
        idempotency_key="7f0c",
    ),
    *(WishPut(each) for each in WISHES),
    AllocationPut(
        Allocation(
            id=VGPU,
            name="lab-1",
            type_name="L40S-8Q",
            type_id=1153,
            fb_mib=8192,
            gpu=GPU,
            framework=FrameworkKind.VENDOR_VFIO,
            parent=VF,
            params="frame_rate_limiter=0",
            created_at=WRITTEN_AT,
            created_boot="0c4f7a5e",
        )
    ),
    AllocationPut(
        Allocation(
            id=MDEV,
            name="serial",
            type_name="mtty-2",
            type_id=None,
            fb_mib=None,
            gpu=MTTY,
            framework=None,
            parent=None,
            params=None,
            created_at=WRITTEN_AT,
            adopted=True,
        )
    ),
    *(
        StepStarted(DONE, 1, Step(number=each, effect=effect, reason="wanted", needs=(1,)), "0c4f7a5e")
        for each, effect in enumerate(EFFECTS, start=1)
    ),
    StepEnded(DONE, 1, 1, None),
    OperationEnded(DONE, OperationState.SUCCEEDED, None, {"vgpus": ["lab-1"]}),
    OperationStarted(id=FAILED, kind="create", subject="b", requester=DAEMON, scope=(), undo=()),
    StepEnded(FAILED, 1, 1, PROBLEM),
    OperationRollingBack(FAILED, PROBLEM),
    OperationEnded(FAILED, OperationState.NEEDS_OPERATOR, PROBLEM, {}),
    WishDropped(DocumentKey(DocumentKind.VGPU, "lab-1")),
    AllocationDropped(MDEV),
    PauseSet(True),
    Noticed("0000:41:00.0", "gpu-state", "VFs were turned off by somebody else"),
    OperationStarted(id=HALF, kind="delete", subject="lab-1", requester=ADMIN, scope=(), undo=()),
    StepStarted(HALF, 2, Step(number=1, effect=EFFECTS[0], reason="gone", touches=("win11",)), "0c4f7a5e"),
)

if __name__ == "__main__":
    if FIXTURE.exists():
        raise SystemExit(f"{FIXTURE} is there already, and stays as it is")
    store = SqliteStore(FIXTURE)
    store.commit(ENTRIES, WRITTEN_AT)
    store.close()

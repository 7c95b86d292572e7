"""Makes tests/fixtures/store-v2.db: what schema 2 brought, as it keeps it.

The file stands for the stores that are out there: it is made once, and later code has to read it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from make_store_v1 import DONE, EFFECTS, VF, VGPU, WISHES, WRITTEN_AT

from vgpuctl.host.store import SqliteStore
from vgpuctl.model.document import GpuDocument, Repair, VgpuDocument
from vgpuctl.model.finding import Drift, Finding
from vgpuctl.model.record import (
    DAEMON,
    DriftFound,
    DriftGone,
    OperationEnded,
    OperationStarted,
    OperationState,
    Record,
    StepEnded,
    StepStarted,
    WishPut,
)
from vgpuctl.model.step import CreateVgpu, DisableAutostart, Step

FIXTURE = Path(__file__).parents[2] / "fixtures" / "store-v2.db"

_CREATION = EFFECTS[1]
assert isinstance(_CREATION, CreateVgpu)
FOREIGN = Finding(
    code=Drift.FOREIGN_VGPU,
    subject="0000:41:00.5",
    detail="a L40S-8Q on 0000:41:00.5 that vgpuctl did not make",
    repair=Repair.NEVER,
    gpu="0000:41:00.0",
    since=WRITTEN_AT,
)
GONE = Finding(
    code=Drift.VGPU_VANISHED,
    subject="lab-1",
    detail=f"it stood on {VF}, and somebody removed it",
    repair=Repair.AUTO,
    gpu="0000:41:00.0",
    names=("lab-1",),
    since=WRITTEN_AT,
)

ENTRIES: tuple[Record, ...] = (
    WishPut(replace(WISHES[0], document=GpuDocument(name="0000:41:00.0", vfs=None, repair=Repair.ASK))),
    WishPut(replace(WISHES[1], document=VgpuDocument(name="lab-1", type="L40S-8Q", sole_starter=True))),
    OperationStarted(
        id=DONE, kind="repair", subject="lab-1", requester=DAEMON, scope=("lab-1",), undo=(), forward=True
    ),
    StepStarted(
        DONE,
        1,
        Step(
            number=1,
            effect=DisableAutostart(vgpu=VGPU, name="lab-1", gpu=_CREATION.gpu, parent=str(VF)),
            reason="vgpuctl alone is to start it",
        ),
        "0c4f7a5e",
    ),
    StepEnded(DONE, 1, 1, None),
    OperationEnded(DONE, OperationState.SUCCEEDED, None, {}),
    DriftFound(FOREIGN),
    DriftFound(GONE),
    DriftFound(replace(FOREIGN, user="win7")),
    DriftGone(GONE.code, GONE.subject),
)

if __name__ == "__main__":
    if FIXTURE.exists():
        raise SystemExit(f"{FIXTURE} is there already, and stays as it is")
    store = SqliteStore(FIXTURE)
    store.commit(ENTRIES, WRITTEN_AT)
    store.close()

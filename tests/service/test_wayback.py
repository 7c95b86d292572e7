"""What a GPU was before a first change, from the steps of an operation that is undone."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from tests.support.builders import NOW, make_gpu, make_snapshot
from tests.support.world import WHO
from vgpuctl.model.document import DocumentKey, DocumentKind, GpuDocument, MigWish, Wish, Wishes
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import GpuInstance
from vgpuctl.model.record import OperationStarted
from vgpuctl.model.situation import identity_of
from vgpuctl.model.step import CreateGpuInstance, DestroyGpuInstance, SetMigMode, SetVfs, Step
from vgpuctl.service.ledger import Operation, StepRun
from vgpuctl.service.wayback import what_stays, with_former_gpus

CARD = make_gpu("a100-80")
KEY = DocumentKey(DocumentKind.GPU, str(CARD.address))
ON = SetMigMode(gpu=identity_of(CARD), enabled=True)
VFS_OFF, VFS_ON = (SetVfs(gpu=identity_of(CARD), enabled=each) for each in (False, True))
OTHER = replace(identity_of(CARD), uuid="GPU-other")


def cut(start: int) -> CreateGpuInstance:
    return CreateGpuInstance(gpu=identity_of(CARD), profile="1g.10gb", profile_id=19, start=start, size=1)


def gone(start: int) -> DestroyGpuInstance:
    return DestroyGpuInstance(
        gpu=identity_of(CARD), instance=start, profile="1g.10gb", profile_id=19, start=start, size=1
    )


def operation(*effects) -> Operation:
    started = OperationStarted(
        id=UUID(int=1), kind="mig", subject="", requester=WHO, scope=(str(KEY),), undo=((KEY, None),)
    )
    runs = [StepRun(Step(number=number, effect=each, reason=""), 1) for number, each in enumerate(effects, 1)]
    return Operation(started, NOW, runs=runs)


def snapshot(*starts: int, mig: bool = True, vfs: int = 16):
    there = tuple(
        GpuInstance(id=each, profile="1g.10gb", profile_id=19, start=each, size=1) for each in starts
    )
    return make_snapshot(replace(make_gpu("a100-80", vfs=vfs), mig=mig, gpu_instances=there))


def before(effects, *starts: int, document: GpuDocument | None = None) -> GpuDocument | None:
    wishes = Wishes()
    if document is not None:
        wish = Wish(document=document, generation=1, created_at=NOW, changed_at=NOW)
        wishes = Wishes({KEY: wish})
    found = with_former_gpus(wishes, operation(*effects), snapshot(*starts), NOW).documents.get(KEY)
    return found.document if found is not None else None


def at(*starts: int) -> MigWish:
    return MigWish(instances=tuple(GiPlace(each, "1g.10gb") for each in starts))


NONE = GpuDocument(name=KEY.name, vfs=None)


@pytest.mark.parametrize(
    ("effects", "starts", "expected"),
    [
        ((), (), None),
        ((ON,), (), replace(NONE, mig=MigWish(enabled=False))),
        ((VFS_OFF, ON, VFS_ON, cut(0)), (0,), GpuDocument(name=KEY.name, mig=MigWish(enabled=False))),
        ((VFS_ON,), (), None),
        ((gone(1), cut(0)), (0, 5), replace(NONE, mig=at(1, 5))),
        ((gone(1), cut(0), gone(0)), (5,), replace(NONE, mig=at(1, 5))),
        ((gone(1), cut(0), gone(0), cut(1)), (1, 5), replace(NONE, mig=at(1, 5))),
        ((replace(ON, gpu=OTHER),), (), None),
    ],
)
def test_the_first_step_of_each_kind_tells_what_there_was(effects, starts, expected):
    assert before(effects, *starts) == expected


def test_what_a_document_says_again_is_not_overruled():
    document = GpuDocument(name=KEY.name, mig=MigWish(profiles=(("1g.10gb", 2),)))
    assert before((VFS_OFF, ON, VFS_ON, cut(0)), 0, document=document) == document
    assert before((gone(1), cut(0)), 0, document=document) == document
    open_one = GpuDocument(name=KEY.name, mig=MigWish())
    assert before((gone(1), cut(0)), 0, document=open_one) == replace(open_one, mig=at(1))


def test_what_stays_is_named():
    undone = operation(VFS_OFF, ON, VFS_ON, cut(0))
    assert what_stays(Wishes(), undone, snapshot(0)) == [
        f"MIG mode of GPU {CARD.address} is on",
        f"GPU {CARD.address} has 1g.10gb@0",
    ]
    assert what_stays(Wishes(), operation(ON, VFS_ON), snapshot(mig=False)) == [
        f"the VFs of GPU {CARD.address} are on"
    ]
    assert what_stays(Wishes(), operation(gone(1), cut(0)), snapshot(0)) == [
        f"GPU {CARD.address} has 1g.10gb@0",
        f"GPU {CARD.address} has lost 1g.10gb@1",
    ]
    assert what_stays(Wishes(), undone, snapshot(mig=False)) == []

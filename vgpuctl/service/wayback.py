"""The way back from a first change of a GPU: what no document said before, the steps that were done tell.

Documents are put back as they were.  Of a GPU that had none, or whose document left something open, that
is not the state it was in: MIG mode, VFs and GPU instances would stay as the operation left them.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from vgpuctl import errors
from vgpuctl.model.card import stands_on
from vgpuctl.model.document import DocumentKey, DocumentKind, GpuDocument, MigWish, Wish, Wishes
from vgpuctl.model.fact import known
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import Gpu
from vgpuctl.model.situation import find_gpu
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import (
    GPU_WIDE,
    CreateGpuInstance,
    DestroyGpuInstance,
    Effect,
    SetMigMode,
    SetVfs,
)
from vgpuctl.service.ledger import Operation


def with_former_gpus(wishes: Wishes, operation: Operation, snapshot: Snapshot, now: datetime) -> Wishes:
    """The wishes, and for each GPU of an operation that is undone, what it was before."""
    found = {
        key: Wish(document=former, generation=0, created_at=now, changed_at=now)
        for key, former, _ in _changed(wishes, operation, snapshot)
    }
    return replace(wishes, documents=wishes.documents | found)


def what_stays(wishes: Wishes, operation: Operation, snapshot: Snapshot) -> list[str]:
    """What such GPUs still are, and were not before: a line for each thing, for people."""
    lines = []
    for _, former, gpu in _changed(wishes, operation, snapshot):
        mig = former.mig
        if mig is not None and known(gpu.mig) not in (None, mig.enabled):
            lines.append(f"MIG mode of GPU {gpu.address} is {'off' if mig.enabled else 'on'}")
        if former.vfs is not None and gpu.is_readable and bool(gpu.vfs) != former.vfs:
            lines.append(f"the VFs of GPU {gpu.address} are {'off' if former.vfs else 'on'}")
        there = {each.place for each in known(gpu.gpu_instances) or ()}
        before = set(mig.instances or ()) if mig is not None else there
        if new := there - before:
            lines.append(f"GPU {gpu.address} has {', '.join(map(str, sorted(new)))}")
        if gone := before - there:
            lines.append(f"GPU {gpu.address} has lost {', '.join(map(str, sorted(gone)))}")
    return lines


def _changed(
    wishes: Wishes, operation: Operation, snapshot: Snapshot
) -> Iterator[tuple[DocumentKey, GpuDocument, Gpu]]:
    """The GPUs of which the documents do not say what they were, with what they were."""
    effects = [each.step.effect for each in operation.runs]
    for key, _ in operation.started.undo:
        if key.kind is not DocumentKind.GPU:
            continue
        try:
            gpu = find_gpu(snapshot, key.name)
        except errors.GpuNotFound:
            continue
        wish = wishes.documents.get(key)
        document = wish.document if wish is not None else GpuDocument(name=key.name, vfs=None)
        assert isinstance(document, GpuDocument)
        mine = [each for each in effects if isinstance(each, GPU_WIDE) and stands_on(each.gpu, gpu)]
        former = _former(document, mine, gpu)
        if former != document:
            yield key, former, gpu


def _former(document: GpuDocument, done: Sequence[Effect], gpu: Gpu) -> GpuDocument:
    mode = next((each.enabled for each in done if isinstance(each, SetMigMode)), None)
    vfs = next((each.enabled for each in done if isinstance(each, SetVfs)), None)
    if mode is not None:
        if document.vfs is None and vfs is not None:
            document = replace(document, vfs=not vfs)
        return document if document.mig is not None else replace(document, mig=MigWish(enabled=not mode))
    # VFs that alone were turned on hurt nobody, and may have found users.
    if document.mig is None or document.mig == MigWish():
        return replace(document, mig=_cut_before(done, gpu) or document.mig)
    return document


def _cut_before(done: Sequence[Effect], gpu: Gpu) -> MigWish | None:
    """The layout from which the instances that were made and destroyed came; None where none were."""
    first: dict[GiPlace, bool] = {}
    for each in done:
        if isinstance(each, (CreateGpuInstance, DestroyGpuInstance)):
            first.setdefault(GiPlace(each.start, each.profile), isinstance(each, DestroyGpuInstance))
    there = known(gpu.gpu_instances)
    if not first or there is None:
        return None
    places = {each.place for each in there} | {place for place, was in first.items() if was}
    return MigWish(instances=tuple(sorted(place for place in places if first.get(place, True))))

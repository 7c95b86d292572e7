"""Mending drift when it is asked for, and clearing away what nobody wishes.  Pure."""

from __future__ import annotations

from vgpuctl import errors
from vgpuctl.model.document import GpuDocument, Repair
from vgpuctl.model.drift import findings
from vgpuctl.model.edit import RepairDrift
from vgpuctl.model.fact import known
from vgpuctl.model.situation import find_gpu, gpu_of, names_gpu
from vgpuctl.service.change import Change, Context, find_wish


def mend(edit: RepairDrift, context: Context) -> Change:
    """The vGPUs and Gpu documents that are planned anew; no document changes."""
    if edit.subject is not None:
        names = _named(edit.subject, context)
        return Change("repair", edit.subject, names=names, forward=True)
    found = findings(context.snapshot, context.wishes, context.allocations, context.repair, context.catalog)
    names = sorted({name for each in found if each.repair is not Repair.NEVER for name in each.names})
    subject = names[0] if len(names) == 1 else f"{len(names)} names"
    return Change("repair", subject, names=names, forward=True, lenient=True)


def _named(subject: str, context: Context) -> list[str]:
    """What one name stands for: a vGPU, or everything that has its place on a GPU."""
    if subject in context.wishes.vgpus():
        return [subject]
    try:
        gpu = find_gpu(context.snapshot, subject)
    except errors.GpuNotFound:
        return [find_wish(context, subject).name]
    wished = context.wishes.vgpus()
    names = [
        each.name
        for each in context.allocations.values()
        if each.name in wished and gpu_of(each, context.snapshot) == gpu
    ]
    names += [
        str(key)
        for key, wish in context.wishes.documents.items()
        if isinstance(wish.document, GpuDocument)
        and names_gpu(wish.document.name, gpu.address, known(gpu.uuid))
    ]
    return sorted(names)


def prune(context: Context) -> Change:
    """The removal of our vGPUs that no document wishes; one that somebody holds stays, and is named."""
    wished = context.wishes.vgpus()
    names = sorted(each.name for each in context.allocations.values() if each.name not in wished)
    subject = names[0] if len(names) == 1 else f"{len(names)} vGPUs"
    return Change("prune", subject, names=names, forward=True, lenient=True)

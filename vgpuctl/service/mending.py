"""Mending drift when it is asked for, and clearing away what nobody wishes.  Pure."""

from __future__ import annotations

from vgpuctl import errors
from vgpuctl.model.document import GpuDocument, Repair
from vgpuctl.model.drift import findings
from vgpuctl.model.edit import RepairDrift
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.situation import find_gpu, gpu_of, names_gpu, observed_for
from vgpuctl.service.change import Change, Context, find_wish


def mend(edit: RepairDrift, context: Context) -> Change:
    """The vGPUs and Gpu documents that are planned anew; no document changes."""
    if edit.subject is not None:
        names = _named(edit.subject, context)
        return Change("repair", edit.subject, names=names, forward=True)
    found = findings(context.snapshot, context.wishes, context.allocations, context.repair)
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
    result = Change("prune", "", forward=True, lenient=True)
    for allocation in sorted(context.allocations.values(), key=lambda each: each.name):
        if allocation.name in wished:
            continue
        vgpu = observed_for(allocation, context.snapshot)
        holders = vgpu.holders if vgpu is not None else ()
        if isinstance(holders, Unknown):
            result.notes.append(f"left out: {allocation.name}: who holds it is not known: {holders.reason}")
        elif holders:
            named = ", ".join(each.domain or f"{each.command} (pid {each.pid})" for each in holders)
            result.notes.append(f"left out: {allocation.name}: {named} holds it")
        else:
            result.names.append(allocation.name)
    count = len(result.names)
    result.subject = result.names[0] if count == 1 else f"{count} vGPUs"
    return result

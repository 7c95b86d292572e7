"""Edits of what GPU documents say of MIG.  Pure."""

from __future__ import annotations

from dataclasses import replace

from vgpuctl import errors
from vgpuctl.model.catalog import NVIDIA
from vgpuctl.model.document import DocumentKey, DocumentKind, GpuDocument, MigWish
from vgpuctl.model.edit import ImportMigParted, MigPartedRule, SetMig
from vgpuctl.model.fact import known
from vgpuctl.model.gpu import Gpu
from vgpuctl.model.situation import find_gpu
from vgpuctl.service.change import Change, Context


def set_mig(edit: SetMig, context: Context) -> Change:
    """Change the document of a GPU, or begin one."""
    gpu = find_gpu(context.snapshot, edit.gpu)
    result = Change("mig", str(gpu.address))
    _put(result, gpu, edit.mig, context)
    return result


def import_mig_parted(edit: ImportMigParted, context: Context) -> Change:
    """Change the documents of all GPUs that a configuration means; a later entry wins, as there."""
    meant: dict[int, tuple[Gpu, MigWish]] = {}
    gpus = [each for each in context.snapshot.gpus if each.device.vendor == NVIDIA]
    for rule in edit.rules:
        for index, gpu in enumerate(gpus):
            if _means(rule, index, gpu):
                meant[index] = (gpu, rule.mig)
        missing = [each for each in rule.indices or () if each >= len(gpus)]
        if missing:
            raise errors.GpuNotFound(
                f"{edit.config} names GPU {missing[0]}, and this host has {len(gpus)} NVIDIA GPUs"
            )
    if not meant:
        raise errors.GpuNotFound(f"{edit.config} means no GPU of this host")
    result = Change("mig", edit.config)
    for gpu, wish in meant.values():
        if not wish.enabled and gpu.mig is False:
            continue  # a card without MIG, or with it off: nothing to say
        _put(result, gpu, wish, context)
    return result


def _means(rule: MigPartedRule, index: int, gpu: Gpu) -> bool:
    device = gpu.device.device << 16 | gpu.device.vendor
    return (not rule.filters or device in rule.filters) and (rule.indices is None or index in rule.indices)


def _put(result: Change, gpu: Gpu, wish: MigWish, context: Context) -> None:
    document = _document_of(gpu, context)
    if wish == MigWish() and document.mig is not None and document.mig.enabled:
        wish = document.mig  # on it is; its layout stays
    result.put[DocumentKey(DocumentKind.GPU, document.name)] = replace(document, mig=wish)


def _document_of(gpu: Gpu, context: Context) -> GpuDocument:
    names = {str(gpu.address), known(gpu.uuid)}
    for key, wish in context.wishes.documents.items():
        if key.kind is DocumentKind.GPU and key.name in names and isinstance(wish.document, GpuDocument):
            return wish.document
    return GpuDocument(name=str(gpu.address))

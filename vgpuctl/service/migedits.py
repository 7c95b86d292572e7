"""Edits of what GPU documents say of MIG.  Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from vgpuctl import errors
from vgpuctl.model.card import card_of
from vgpuctl.model.card.instances import no_mig
from vgpuctl.model.catalog import NVIDIA
from vgpuctl.model.document import ComputeWish, DocumentKey, DocumentKind, GpuDocument, MigWish
from vgpuctl.model.edit import ImportMigParted, MigPartedRule, SetMig
from vgpuctl.model.fact import known
from vgpuctl.model.gpu import Gpu
from vgpuctl.model.mig import Standing
from vgpuctl.model.mig.compute import shared_out
from vgpuctl.model.mig.cutting import geometry_of
from vgpuctl.model.mig.wish import layout_for
from vgpuctl.model.situation import find_gpu
from vgpuctl.service.change import Change, Context


def set_mig(edit: SetMig, context: Context) -> Change:
    """Change the document of a GPU, or begin one; UnsupportedHere for a card without MIG."""
    gpu = find_gpu(context.snapshot, edit.gpu)
    model = context.catalog.find(gpu.device)
    if model is not None and not model.mig:
        raise no_mig(gpu)
    result = Change("mig", str(gpu.address))
    _put(result, gpu, edit.mig, context)
    return result


def import_mig_parted(edit: ImportMigParted, context: Context) -> Change:
    """Change the documents of all GPUs that a configuration means; a later entry wins, as there."""
    meant: dict[int, tuple[Gpu, MigPartedRule]] = {}
    gpus = [each for each in context.snapshot.gpus if each.device.vendor == NVIDIA]
    for rule in edit.rules:
        for index, gpu in enumerate(gpus):
            if _means(rule, index, gpu):
                meant[index] = (gpu, rule)
        missing = [each for each in rule.indices or () if each >= len(gpus)]
        if missing:
            raise errors.GpuNotFound(
                f"{edit.config} names GPU {missing[0]}, and this host has {len(gpus)} NVIDIA GPUs"
            )
    if not meant:
        raise errors.GpuNotFound(f"{edit.config} means no GPU of this host")
    result = Change("mig", edit.config)
    for gpu, rule in meant.values():
        if not rule.mig.enabled and gpu.mig is False:
            continue  # a card without MIG, or with it off: nothing to say
        wish = _shared_out(rule, gpu, context) if rule.compute else rule.mig
        _put(result, gpu, wish, context)
    return result


def _shared_out(rule: MigPartedRule, gpu: Gpu, context: Context) -> MigWish:
    """A rule that names compute instances, as an exact layout: only that can say where they are."""
    card = card_of(gpu, context.catalog.find(gpu.device), context.allocations.values(), "")
    geometry, _ = geometry_of(card, context.catalog)
    shares = shared_out(gpu, rule.compute, geometry)
    wanted = Counter(dict(rule.mig.profiles or ()))
    wanted.update(profile for profile, _ in shares)
    layout = layout_for(
        gpu,
        MigWish(profiles=tuple(sorted(wanted.items()))),
        geometry,
        (),
        [Standing(each.place) for each in known(gpu.gpu_instances) or ()],
    )
    left = list(layout.places)
    compute = []
    for profile, counts in shares:
        place = next(each for each in left if each.profile == profile)
        left.remove(place)
        compute.append(ComputeWish(place, counts))
    return MigWish(instances=layout.places, compute=tuple(sorted(compute)))


def _means(rule: MigPartedRule, index: int, gpu: Gpu) -> bool:
    device = gpu.device.device << 16 | gpu.device.vendor
    return (not rule.filters or device in rule.filters) and (rule.indices is None or index in rule.indices)


def _put(result: Change, gpu: Gpu, wish: MigWish, context: Context) -> None:
    document = _document_of(gpu, context)
    if wish.has_layout and document.vfs is None:
        document = replace(document, vfs=True)  # VFs that come later take the instances along
    if wish == MigWish() and document.mig is not None and document.mig.enabled:
        wish = document.mig  # on it is; its layout stays
    result.put[DocumentKey(DocumentKind.GPU, document.name)] = replace(document, mig=wish)


def _document_of(gpu: Gpu, context: Context) -> GpuDocument:
    names = {str(gpu.address), known(gpu.uuid)}
    for key, wish in context.wishes.documents.items():
        if key.kind is DocumentKind.GPU and key.name in names and isinstance(wish.document, GpuDocument):
            return wish.document
    return GpuDocument(name=str(gpu.address), vfs=None)

"""A card that was exchanged: its places go to the card that stands in for it.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from vgpuctl import errors
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.card import Card, card_of, placed, refusal, stands_on, type_named
from vgpuctl.model.document import (
    DesktopDocument,
    Document,
    DocumentKey,
    DocumentKind,
    GpuDocument,
    VgpuDocument,
    VgpuWish,
    key_of,
)
from vgpuctl.model.edit import ReplaceGpu
from vgpuctl.model.fact import known
from vgpuctl.model.gpu import FrameworkKind, Gpu, GpuState
from vgpuctl.model.situation import find_gpu, identity_of, names_gpu, observed_for
from vgpuctl.model.types import VgpuType
from vgpuctl.service.change import Change, Context


def replace_gpu(edit: ReplaceGpu, context: Context) -> Change:
    """The places and documents of the old card, on the new one; refuses what does not fit, by name."""
    new = find_gpu(context.snapshot, edit.new)
    if not new.is_readable:
        raise errors.FactUnknown(f"GPU {new.address} cannot be read: {new.state_reason}")
    places = [
        each
        for each in context.allocations.values()
        if names_gpu(edit.old, each.gpu.address, each.gpu.uuid) and each.gpu != identity_of(new)
    ]
    gpu_document = _gpu_document(edit.old, new, context)
    if not places and gpu_document is None:
        raise errors.GpuNotFound(
            f"nothing has its place on a GPU {edit.old!r} other than {new.address}",
            hint="vgpuctl host show names the GPUs that are gone or changed",
        )
    _refuse_present(places, new, context)
    card = _card(new, places, context)
    result = Change("replace", f"{edit.old} by {new.address}", forward=True)
    wished = context.wishes.vgpus()
    unfit: list[dict[str, str]] = []
    for place in sorted(places, key=lambda each: each.name):
        wish = wished.get(place.name)
        if wish is None:
            continue  # nobody wishes it, and the card that had it is gone: the sweep forgets it
        chosen = _type_on(card, place, wish, context)
        if isinstance(chosen, errors.VgpuctlError):
            unfit.append({"vgpu": place.name, "code": chosen.code, "detail": chosen.message})
            continue
        moved = _moved(place, chosen, new)
        card = placed(card, moved)
        result.rehomed.append(moved)
        result.names.append(place.name)
    if unfit:
        named = "; ".join(f"{each['vgpu']}: {each['detail']}" for each in unfit)
        raise errors.NoCapacity(
            f"GPU {new.address} ({new.model}) cannot stand in for {edit.old}: {named}",
            hint="delete or detach these first, or give them another profile; nothing was changed",
            unfit=unfit,
        )
    _rename(result, places, new, context)
    if gpu_document is not None:
        _take_document(result, gpu_document, new, context)
    return result


def _refuse_present(places: Iterable[Allocation], new: Gpu, context: Context) -> None:
    """A card that is still here keeps what it has: nothing is taken from a card in use."""
    for place in places:
        here = next((each for each in context.snapshot.gpus if stands_on(place.gpu, each)), None)
        if here is not None and here.address != new.address:
            raise errors.Conflict(
                f"GPU {here.address} is on this host: there is nothing to replace",
                hint="detach or delete its vGPUs, and make them on the other GPU",
                gpu=str(here.address),
            )
        vgpu = observed_for(place, context.snapshot)
        if vgpu is not None and vgpu.gpu != new.address:
            raise errors.Conflict(f"vGPU {place.name} stands on GPU {vgpu.gpu}", vgpu=place.name)


def _card(new: Gpu, places: list[Allocation], context: Context) -> Card:
    going = {each.id for each in places}
    rest = [each for each in context.allocations.values() if each.id not in going]
    return card_of(new, context.catalog.find(new.device), rest, context.snapshot.boot_id)


def _type_on(
    card: Card, place: Allocation, wish: VgpuWish, context: Context
) -> VgpuType | errors.VgpuctlError:
    """The type that it gets there: its own, else the first of its profile that fits."""
    profile = context.wishes.profile(wish.profile) if wish.profile is not None else None
    names = [place.type_name, *(profile.types if profile is not None else ())]
    first: errors.VgpuctlError | None = None
    for name in dict.fromkeys(names):
        vgpu_type = type_named(card, name)
        why: errors.VgpuctlError | None
        if vgpu_type is None:
            why = errors.UnsupportedHere(f"a {card.gpu.model} has no type {name}")
        else:
            why = refusal(card, vgpu_type)
            if why is None:
                return vgpu_type
        first = first or why
    assert first is not None
    return first


def _moved(place: Allocation, vgpu_type: VgpuType, new: Gpu) -> Allocation:
    """The place on the new card; which VF, the plan chooses."""
    same = vgpu_type.name == place.type_name
    return replace(
        place,
        gpu=identity_of(new),
        type_name=vgpu_type.name,
        type_id=vgpu_type.type_id,
        fb_mib=vgpu_type.fb_mib,
        framework=place.framework if place.framework is FrameworkKind.PASSTHROUGH else None,
        parent=None,
        created_boot=None,
        adopted=False,
        params=place.params if same else None,
        lost=False,
    )


def _rename(result: Change, places: list[Allocation], new: Gpu, context: Context) -> None:
    """Documents that name the old card name the new one, by UUID where they had one."""
    names = set(result.names)
    for key, wish in sorted(context.wishes.documents.items()):
        document: Document = wish.document
        if isinstance(document, VgpuDocument) and document.name in names:
            document = replace(document, gpu=_reference(document.gpu, places, new))
        elif isinstance(document, DesktopDocument):
            entries = tuple(
                replace(each, gpu=_reference(each.gpu, places, new)) if each.name in names else each
                for each in document.vgpus
            )
            document = replace(document, vgpus=entries)
        if document != wish.document:
            result.put[key] = document


def _reference(gpu: str | None, places: list[Allocation], new: Gpu) -> str | None:
    if gpu is None or not any(names_gpu(gpu, each.gpu.address, each.gpu.uuid) for each in places):
        return gpu
    return _name_like(gpu, new)


def _name_like(reference: str, new: Gpu) -> str:
    uuid = known(new.uuid)
    return uuid if uuid is not None and reference.upper().startswith("GPU-") else str(new.address)


def _gpu_document(old: str, new: Gpu, context: Context) -> GpuDocument | None:
    """The Gpu document of the old card, unless the new one stands under that name already."""
    for wish in context.wishes.documents.values():
        document = wish.document
        if isinstance(document, GpuDocument) and document.name.lower() == old.strip().lower():
            return None if names_gpu(document.name, new.address, known(new.uuid)) else document
    return None


def _take_document(result: Change, document: GpuDocument, new: Gpu, context: Context) -> None:
    """The Gpu document goes with the card; one that the new card has already stays."""
    result.drop.add(key_of(document))
    has_own = any(
        key.kind is DocumentKind.GPU and names_gpu(key.name, new.address, known(new.uuid))
        for key in context.wishes.documents
    )
    if has_own:
        return
    moved = replace(document, name=_name_like(document.name, new))
    if new.vfs_max == 0 and moved.vfs:
        moved = replace(moved, vfs=None)
    key = key_of(moved)
    result.put[key] = moved
    if new.state is not GpuState.VFS_OFF or moved.vfs is not True:
        return
    result.names.append(str(DocumentKey(DocumentKind.GPU, moved.name)))

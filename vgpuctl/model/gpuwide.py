"""Changes of a whole GPU: what its Gpu document wishes of VFs, MIG mode and instances, as steps of a draft.

Each function raises VgpuctlError for what cannot be had.
"""

from __future__ import annotations

from dataclasses import replace

from vgpuctl import errors
from vgpuctl.model.card import after
from vgpuctl.model.document import DocumentKind, GpuDocument, MigWish
from vgpuctl.model.draft import Draft
from vgpuctl.model.fact import known
from vgpuctl.model.gpu import Gpu, GpuState
from vgpuctl.model.mig.cutting import clearing, cutting, emptying, mode_change
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.plan import Problem
from vgpuctl.model.situation import find_gpu, identity_of
from vgpuctl.model.step import SetMigMode, SetVfs

Unsure = dict[GpuAddress, errors.FactUnknown]
"""Cards of which it could not be told what MIG makes of them."""


def set_gpus_as_wished(draft: Draft) -> Unsure:
    """Add the steps of every Gpu document concerned; what cannot be had is a problem of the draft."""
    unsure: Unsure = {}
    for key, wish in sorted(draft.situation.wishes.documents.items()):
        if key.kind is not DocumentKind.GPU or not draft.situation.concerns(str(key)):
            continue
        assert isinstance(wish.document, GpuDocument)
        try:
            gpu = find_gpu(draft.situation.snapshot, wish.document.name)
            before = draft.cards[gpu.address], len(draft.steps), len(draft.layouts), draft.incomplete
            try:
                _set_gpu(draft, gpu, wish.document)
            except errors.VgpuctlError as error:
                # Half of the way to what cannot be had is not worth a step.
                draft.cards[gpu.address], steps, layouts, draft.incomplete = before
                del draft.steps[steps:], draft.layouts[layouts:]
                if isinstance(error, errors.FactUnknown):
                    unsure[gpu.address] = error
                raise
        except errors.VgpuctlError as error:
            draft.problems.append(Problem(str(key), error))
    return unsure


def set_vfs(draft: Draft, gpu: Gpu, *, enabled: bool, reason: str) -> None:
    """Add the step that turns a GPU's VFs on or off, where they are not so already."""
    card = draft.cards[gpu.address]
    gpu = card.gpu
    if not gpu.is_readable:
        raise errors.FactUnknown(f"GPU {gpu.address} cannot be read: {gpu.state_reason}")
    if card.vfs_on == enabled or (not enabled and gpu.vfs_max == 0):
        return
    if enabled and gpu.state is not GpuState.VFS_OFF:
        if gpu.vfs_max == 0:
            raise errors.UnsupportedHere(f"GPU {gpu.address} ({gpu.model}) has no VFs to turn on")
        raise errors.InvalidGpuState(f"GPU {gpu.address} is {gpu.state}: {gpu.state_reason}")
    instances = known(gpu.gpu_instances)
    is_cut = gpu.mig is True and instances is not None
    destroys = tuple(sorted(each.place for each in instances or ())) if is_cut else None
    effect = SetVfs(gpu=identity_of(gpu), enabled=enabled, destroys=destroys)
    draft.add_allowed(effect, reason)


def _set_gpu(draft: Draft, gpu: Gpu, document: GpuDocument) -> None:
    reason = "as its Gpu document says"
    if gpu.state is GpuState.PARKED and (document.vfs or document.mig is not None):
        _bring_back(draft, gpu, document.mig)
        return
    if document.mig is None:
        if document.vfs is not None:
            set_vfs(draft, gpu, enabled=document.vfs, reason=reason)
        return
    vfs = draft.cards[gpu.address].vfs_on if document.vfs is None else document.vfs
    if not gpu.is_readable:
        raise errors.FactUnknown(f"GPU {gpu.address} cannot be read: {gpu.state_reason}")
    if gpu.mig != document.mig.enabled:
        effect = mode_change(draft.situation, draft.cards, gpu.address, enabled=document.mig.enabled)
        _clear_compute(draft, gpu, "MIG mode takes it along")
        set_vfs(draft, gpu, enabled=False, reason="MIG mode changes only while its VFs are off")
        for gone in emptying(draft.cards[gpu.address]):
            draft.add_allowed(gone, "MIG mode is not turned off with it")
        draft.add_allowed(effect, reason)
        # Whoever asks next is to see what the driver says of the other mode.
        draft.incomplete = True
    if vfs != draft.cards[gpu.address].vfs_on:
        _clear_compute(draft, gpu, "sriov-manage takes it along")
    set_vfs(draft, gpu, enabled=vfs, reason=reason)
    if document.mig.enabled and document.mig.has_layout:
        _cut(draft, gpu, document.mig)


def _bring_back(draft: Draft, gpu: Gpu, wish: MigWish | None) -> None:
    """Let sriov-manage finish; what the card is shows only on its driver, and is changed from there."""
    effect = SetVfs(gpu=identity_of(gpu), enabled=True)
    draft.add_allowed(effect, "sriov-manage was interrupted, and brings it back to its driver")
    draft.incomplete = True
    if wish is not None:
        # A forecast: what it has room for once it is as wished.
        card = draft.cards[gpu.address]
        there = replace(card.gpu, mig=wish.enabled, gpu_instances=())
        draft.cards[gpu.address] = replace(card, gpu=there)
        if wish.enabled and wish.has_layout:
            _cut(draft, there, wish)


def _clear_compute(draft: Draft, gpu: Gpu, reason: str) -> None:
    """Destroy the compute instances of ours where all GPU instances go."""
    for effect in clearing(draft.situation, draft.cards[gpu.address]):
        draft.add_allowed(effect, reason)


def _cut(draft: Draft, gpu: Gpu, wish: MigWish) -> None:
    """Destroy and create GPU instances; only foretell it where the card is not yet as it will be."""
    later = any(
        isinstance(step.effect, (SetVfs, SetMigMode)) and step.effect.gpu.address == gpu.address
        for step in draft.steps
    )
    cut = cutting(draft.situation, draft.cards[gpu.address], wish)
    draft.layouts.append(cut.told(gpu, later=later))
    for effect in cut.effects:
        if later:
            draft.cards[gpu.address] = after(draft.cards[gpu.address], effect)
            draft.incomplete = True
        else:
            draft.add_allowed(effect, "as its Gpu document says")

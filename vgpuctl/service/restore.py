"""What is done unasked: what the documents say and the host lost is made again.

After a boot, a driver reload or somebody's removal; and only what can hurt nobody: a creation on an
empty parent, the parameters of a vGPU that nobody holds, the config of a stopped domain, GPU instances
that are missing; VFs, and MIG mode without a reset, of a GPU on which we made nothing since the boot.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.document import DocumentKind, GpuDocument, Repair, Wishes
from vgpuctl.model.drift import is_unasked, is_untouched, policy_of
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import Gpu, GpuState
from vgpuctl.model.mig.wish import is_met
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.plan import Plan
from vgpuctl.model.situation import find_gpu, gpu_of, may_exist_unseen, observed_for
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import (
    GPU_WIDE,
    AttachHostdev,
    CreateComputeInstance,
    CreateGpuInstance,
    CreateVgpu,
    DestroyComputeInstance,
    DestroyGpuInstance,
    DetachHostdev,
    Effect,
    SetMigMode,
    SetParams,
    SetVfs,
    Step,
    describe,
)


def _by_hand(name: str) -> str:
    return f"it is done only when somebody asks: vgpuctl repair {name}"


@dataclass(frozen=True, slots=True)
class Restoration:
    """The names (of vGPUs, and keys of Gpu documents) that can be restored, and how."""

    names: frozenset[str]
    plan: Plan
    kept_out: Mapping[str, errors.VgpuctlError]
    """Why the other names cannot."""

    @property
    def problem(self) -> dict[str, Any] | None:
        """What kept the first of them out; None when there are none."""
        first = next(iter(self.kept_out.values()), None)
        return first.to_problem() if first is not None else None


def missing(wishes: Wishes, allocations: Iterable[Allocation], snapshot: Snapshot) -> dict[str, str]:
    """Every name that is not as wished, and the GPU with which it is restored.

    GPUs are restored one by one, so that one that does not come back holds up nothing but its own.
    """
    wished = wishes.vgpus()
    found = {name: name for name in wished}
    present: set[str] = set()
    for allocation in allocations:
        found[allocation.name] = str(allocation.gpu.address)
        is_dark = gpu_of(allocation, snapshot) is None or may_exist_unseen(allocation, snapshot)
        if is_dark or allocation.name not in wished or observed_for(allocation, snapshot) is not None:
            present.add(allocation.name)
    for key, wish in wishes.documents.items():
        gpu = _gpu_named(snapshot, wish.document.name) if isinstance(wish.document, GpuDocument) else None
        if gpu is None or not isinstance(wish.document, GpuDocument):
            continue
        without_vfs = wish.document.vfs and gpu.state is GpuState.VFS_OFF
        if without_vfs or (wish.document.mig is not None and not is_met(wish.document.mig, gpu)):
            found[str(key)] = str(gpu.address)
    return {name: gpu for name, gpu in found.items() if name not in present}


def without_driver(wishes: Wishes, allocations: Iterable[Allocation], snapshot: Snapshot) -> set[str]:
    """The names whose GPU has no driver: what failed there tells nothing of the driver that comes."""
    bare = {each.address for each in snapshot.gpus if each.state is GpuState.NO_DRIVER}
    found = {each.name for each in allocations if each.gpu.address in bare}
    for key, wish in wishes.documents.items():
        gpu = _gpu_named(snapshot, wish.document.name) if isinstance(wish.document, GpuDocument) else None
        if gpu is not None and gpu.address in bare:
            found.add(str(key))
    return found


def held_back(
    names: Collection[str],
    wishes: Wishes,
    allocations: Iterable[Allocation],
    snapshot: Snapshot,
    host: Repair,
) -> dict[str, errors.VgpuctlError]:
    """Which of those names are not restored unasked, and why: by policy, or left to mdevctl."""
    places = {each.name: each for each in allocations}
    documents = {str(key): wish.document for key, wish in wishes.documents.items()}
    found: dict[str, errors.VgpuctlError] = {}
    for name in names:
        place = places.get(name)
        policy = policy_of(place.gpu if place is not None else None, wishes, host)
        definition = snapshot.autostart_of(place.id) if place is not None else None
        document = documents.get(name)
        if isinstance(document, GpuDocument):
            policy = document.repair or host
            unasked = policy is not Repair.NEVER
        else:
            unasked = is_unasked(place, snapshot, policy)
        if definition is not None:
            found[name] = errors.NotRestored(f"mdevctl is to start it on {definition.parent}")
        elif not unasked:
            found[name] = errors.NotRestored(f"the policy for its repair is {policy}", hint=_by_hand(name))
    return found


def leftovers(wishes: Wishes, allocations: Iterable[Allocation], snapshot: Snapshot) -> list[Allocation]:
    """Places that nobody wishes any longer and on which nothing stands: they only keep room."""
    wished = wishes.vgpus()
    found = []
    for allocation in allocations:
        is_dark = may_exist_unseen(allocation, snapshot)
        if allocation.name in wished or is_dark or observed_for(allocation, snapshot) is not None:
            continue
        if not is_named(allocation, snapshot):
            found.append(allocation)
    return found


def is_named(allocation: Allocation, snapshot: Snapshot) -> bool:
    """Whether some domain's XML names an allocation, or may do so."""
    return isinstance(snapshot.domains, Unknown) or bool(snapshot.attachments.of(allocation.id))


def restoration(
    names: Iterable[str],
    snapshot: Snapshot,
    allocations: Mapping[UUID, Allocation],
    plan_for: Callable[[frozenset[str]], Plan],
) -> Restoration:
    """The harmless plan for as many of these names as have one."""
    left = frozenset(names)
    kept_out: dict[str, errors.VgpuctlError] = {}
    result = Plan()
    while left:
        result = plan_for(left)
        steps, unfit = _judged(result, snapshot, allocations)
        if unfit and not unfit.keys() & left:
            unfit = dict.fromkeys(left, next(iter(unfit.values())))
        if not unfit:
            return Restoration(left, replace(result, steps=steps, problems=()), kept_out)
        kept_out |= {name: why for name, why in unfit.items() if name in left}
        left -= unfit.keys()
    return Restoration(left, Plan(), kept_out)


def _judged(
    result: Plan, snapshot: Snapshot, allocations: Mapping[UUID, Allocation]
) -> tuple[tuple[Step, ...], dict[str, errors.VgpuctlError]]:
    """The steps that may be done unasked, and the names that have to be left out for the others."""
    created = {step.effect.name for step in result.steps if isinstance(step.effect, CreateVgpu)}
    moved = {step.effect.name for step in result.steps if isinstance(step.effect, DetachHostdev)}
    unfit = {
        each.subject: each.error
        for each in result.problems
        # At boot libvirt comes later: its domains start with what exists by then.
        if each.error.code != errors.LibvirtUnreachable.code or each.subject not in created
    }
    steps = []
    for step in result.steps:
        effect = step.effect
        why_not = _objection(effect, snapshot, allocations)
        if why_not is None:
            steps.append(step)
        elif not isinstance(effect, AttachHostdev) or effect.name in moved:
            concerned = sorted(_concerned(effect, result, allocations))
            text = f"{describe(effect)}: {why_not}"
            unfit = {each: errors.NotRestored(text, hint=_by_hand(each)) for each in concerned} | unfit
        # else: the vGPU comes back; whether a running guest gets it, somebody has to say.
    return tuple(steps), unfit


def _objection(effect: Effect, snapshot: Snapshot, allocations: Mapping[UUID, Allocation]) -> str | None:
    """Why an effect is not to be had unasked; None where it can hurt nobody."""
    match effect:
        case CreateVgpu():
            return None
        case SetVfs(enabled=True, gpu=gpu) | SetMigMode(enabled=True, gpu=gpu, resets=False):
            return _objection_to_vfs(gpu.address, snapshot, allocations)
        case CreateGpuInstance() | CreateComputeInstance():
            return None
        case SetMigMode(resets=True):
            return "that resets the GPU"
        case DestroyGpuInstance():
            return "a GPU instance is never destroyed unasked"
        case DestroyComputeInstance():
            return "a compute instance is never destroyed unasked"
        case SetParams(vgpu=vgpu_id):
            allocation = allocations.get(vgpu_id)
            vgpu = observed_for(allocation, snapshot) if allocation is not None else None
            return None if vgpu is not None and vgpu.holders == () else "a guest may be using it"
        case AttachHostdev(domain=name) | DetachHostdev(domain=name):
            domains = snapshot.domains
            if not isinstance(domains, tuple):
                return "libvirt does not answer"
            is_stopped = any(each.name == name and not each.state.is_active for each in domains)
            return None if is_stopped else "the domain is running"
        case _:
            return "that may disturb a guest"


def _objection_to_vfs(
    gpu: GpuAddress, snapshot: Snapshot, allocations: Mapping[UUID, Allocation]
) -> str | None:
    """Why the VFs of a GPU are not turned on unasked."""
    card = snapshot.gpu_at(gpu)
    if card is None or card.state is not GpuState.VFS_OFF:
        return "not in the state that it is in"
    if not is_untouched(gpu, allocations.values(), snapshot):
        return "they went off after vGPUs had been made on it in this boot"
    if card.mig is not False and card.gpu_instances != ():
        # Somebody may have cut GPU instances by now.
        told = f" ({card.mig.reason})" if isinstance(card.mig, Unknown) else ""
        return f"it is in MIG mode, or may be{told}, and that would destroy its GPU instances"
    return None


def _concerned(effect: Effect, result: Plan, allocations: Mapping[UUID, Allocation]) -> set[str]:
    """The names for whose sake an effect is planned."""
    if not isinstance(effect, GPU_WIDE):
        return {effect.name}
    places = (*allocations.values(), *result.allocate)
    names = {each.name for each in places if each.gpu.address == effect.gpu.address}
    return names | {f"{DocumentKind.GPU}/{effect.gpu.address}", f"{DocumentKind.GPU}/{effect.gpu.uuid}"}


def _gpu_named(snapshot: Snapshot, reference: str) -> Gpu | None:
    try:
        return find_gpu(snapshot, reference)
    except errors.GpuNotFound:
        return None

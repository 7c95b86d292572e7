"""What is done unasked: what the documents say and the host lost is made again.

After a boot, a driver reload or somebody's removal; and only what can hurt nobody: a creation on an
empty parent, the parameters of a vGPU that nobody holds, the config of a stopped domain, the VFs of a
GPU on which we made nothing since the boot.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.document import GpuDocument, Wishes
from vgpuctl.model.domain import alias_for
from vgpuctl.model.gpu import Gpu, GpuState
from vgpuctl.model.plan import Plan
from vgpuctl.model.situation import find_gpu, gpu_of, may_exist_unseen, observed_for
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import AttachHostdev, CreateVgpu, DetachHostdev, Effect, SetParams, SetVfs, Step


@dataclass(frozen=True, slots=True)
class Restoration:
    """The names (of vGPUs, and keys of Gpu documents) that can be restored, and how."""

    names: frozenset[str]
    plan: Plan
    problem: dict[str, Any] | None
    """What kept the first of the other names out; None when there were none."""


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
        if isinstance(wish.document, GpuDocument) and wish.document.vfs:
            gpu = _gpu_named(snapshot, wish.document.name)
            if gpu is not None and gpu.state is GpuState.VFS_OFF:
                found[str(key)] = str(gpu.address)
    return {name: gpu for name, gpu in found.items() if name not in present}


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
    domains = snapshot.domains
    if not isinstance(domains, tuple):
        return True
    alias = alias_for(allocation.id)
    return any(
        hostdev.alias == alias
        for domain in domains
        for hostdev in (*(domain.config or ()), *(domain.live or ()))
    )


def restoration(
    names: Iterable[str],
    snapshot: Snapshot,
    allocations: Mapping[UUID, Allocation],
    plan_for: Callable[[frozenset[str]], Plan],
) -> Restoration:
    """The harmless plan for as many of these names as have one."""
    left = frozenset(names)
    problem: dict[str, Any] | None = None
    result = Plan()
    while left:
        result = plan_for(left)
        steps, unfit = _judged(result, snapshot, allocations)
        if unfit and not unfit & left:
            unfit = left
        if result.problems and problem is None:
            problem = result.problems[0].error.to_problem()
        if not unfit:
            return Restoration(left, replace(result, steps=steps, problems=()), problem)
        if problem is None:
            first = min(unfit)
            problem = errors.Conflict(f"{first} cannot be restored without disturbing a guest").to_problem()
        left -= unfit
    return Restoration(left, Plan(), problem)


def _judged(
    result: Plan, snapshot: Snapshot, allocations: Mapping[UUID, Allocation]
) -> tuple[tuple[Step, ...], frozenset[str]]:
    """The steps that may be done unasked, and the names that have to be left out for the others."""
    created = {step.effect.name for step in result.steps if isinstance(step.effect, CreateVgpu)}
    moved = {step.effect.name for step in result.steps if isinstance(step.effect, DetachHostdev)}
    unfit = {
        each.subject
        for each in result.problems
        # At boot libvirt comes later: its domains start with what exists by then.
        if each.error.code != errors.LibvirtUnreachable.code or each.subject not in created
    }
    steps = []
    for step in result.steps:
        effect = step.effect
        if _is_harmless(effect, snapshot, allocations):
            steps.append(step)
        elif not isinstance(effect, AttachHostdev) or effect.name in moved:
            unfit |= _concerned(effect, result, allocations)
        # else: the vGPU comes back; whether a running guest gets it, somebody has to say.
    return tuple(steps), frozenset(unfit)


def _is_harmless(effect: Effect, snapshot: Snapshot, allocations: Mapping[UUID, Allocation]) -> bool:
    match effect:
        case CreateVgpu():
            return True
        case SetVfs(gpu=gpu, enabled=enabled):
            card = snapshot.gpu_at(gpu.address)
            boots = {each.created_boot for each in allocations.values() if each.gpu.address == gpu.address}
            fresh = snapshot.boot_id not in boots
            # In MIG mode somebody may have cut GPU instances by now, which turning VFs on would destroy.
            off = card is not None and card.state is GpuState.VFS_OFF and card.mig is False
            return enabled and fresh and off
        case SetParams(vgpu=vgpu_id):
            allocation = allocations.get(vgpu_id)
            vgpu = observed_for(allocation, snapshot) if allocation is not None else None
            return vgpu is not None and vgpu.holders == ()
        case AttachHostdev(domain=name) | DetachHostdev(domain=name):
            domains = snapshot.domains
            if not isinstance(domains, tuple):
                return False
            return any(each.name == name and not each.state.is_active for each in domains)
        case _:
            return False


def _concerned(effect: Effect, result: Plan, allocations: Mapping[UUID, Allocation]) -> set[str]:
    """The names for whose sake an effect is planned."""
    if not isinstance(effect, SetVfs):
        return {effect.name}
    places = (*allocations.values(), *result.allocate)
    return {each.name for each in places if each.gpu.address == effect.gpu.address}


def _gpu_named(snapshot: Snapshot, reference: str) -> Gpu | None:
    try:
        return find_gpu(snapshot, reference)
    except errors.GpuNotFound:
        return None

"""What readers see: plain values with exactly the fields of `vgpuctl.surface`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model import codec
from vgpuctl.model.document import Affect
from vgpuctl.model.domain import Hostdev, MdevSource
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.finding import Finding
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import Holder
from vgpuctl.model.plan import GpuLayout, Plan, Problem
from vgpuctl.model.record import (
    AllocationDropped,
    AllocationPut,
    DriftFound,
    DriftGone,
    LogEntry,
    Noticed,
    OperationEnded,
    OperationRollingBack,
    OperationStarted,
    PauseSet,
    Record,
    StepEnded,
    StepStarted,
    WishDropped,
    WishPut,
)
from vgpuctl.model.start import HookLife, HookState
from vgpuctl.model.step import AttachHostdev, CreateVgpu, Step, describe
from vgpuctl.model.types import VgpuType
from vgpuctl.service.ledger import Operation, StepRun
from vgpuctl.service.proposal import ShownPlan

View = dict[str, Any]


def time_text(moment: datetime | None) -> str | None:
    """RFC 3339, UTC."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read(unknown: dict[str, str], name: str, fact: Fact[Any] | None) -> Any:
    """The value of a fact; where it is UNKNOWN, None and the reason in `unknown`."""
    if isinstance(fact, Unknown):
        unknown[name] = fact.reason
        return None
    return fact


def drift(result: Plan, *, paused: bool) -> list[Problem]:
    """What nobody will mend unasked, of a plan for everything: one problem for each vGPU."""
    found: dict[str, Problem] = {}
    for step in result.steps:
        match step.effect:
            case AttachHostdev(name=name, domain=domain, affect=affect):
                where = "running guest" if affect == {Affect.LIVE} else "XML"
                error: errors.VgpuctlError = errors.InvalidDomainState(
                    f"the {where} of domain {domain} does not have vGPU {name}",
                    hint=f"vgpuctl attach {domain} --vgpu {name}",
                )
            case CreateVgpu(name=name) if paused:
                error = errors.Conflict(
                    f"vGPU {name} is not there, and background changes are paused", hint="vgpuctl resume"
                )
            case _:
                continue
        found.setdefault(name, Problem(name, error))
    told = {each.subject for each in result.problems}
    return [each for name, each in found.items() if name not in told]


def hook_problems(hook: HookState) -> list[Problem]:
    """What is to be done so that libvirt calls the hook."""
    restart = "restart libvirtd (or virtqemud), which finds hooks only when it starts; guests go on"
    match hook.life:
        case HookLife.NOT_INSTALLED:
            text, hint = (
                f"libvirt's hook is not installed: there is no {hook.path}",
                f"install it, then {restart}",
            )
        case HookLife.NOT_CALLED:
            text, hint = f"libvirt started domain {hook.domain} and did not call {hook.path}", restart
        case _:
            return []
    return [Problem("libvirt", errors.HookNotCalled(text, hint=hint))]


def type_view(
    vgpu_type: VgpuType,
    model: str,
    *,
    gpu: str | None = None,
    free: int | None = None,
    why_not: str | None = None,
) -> View:
    """The `type` resource, of a GPU or of the catalogue."""
    return {
        "name": vgpu_type.name,
        "type_id": vgpu_type.type_id,
        "gpu": gpu,
        "model": model,
        "kind": str(vgpu_type.kind),
        "fb_mib": vgpu_type.fb_mib,
        "max_per_gpu": vgpu_type.max_per_gpu,
        "creatable": free,
        "heads": vgpu_type.heads,
        "max_resolution": vgpu_type.max_resolution,
        "licence": vgpu_type.licence,
        "raw_name": vgpu_type.raw_name,
        "why_not": why_not,
    }


def source_text(hostdev: Hostdev) -> str:
    """The mdev UUID or the PCI address that a hostdev names."""
    if isinstance(hostdev.source, MdevSource):
        return str(hostdev.source.uuid)
    return str(hostdev.source.address)


def holders_view(holders: tuple[Holder, ...] | None) -> list[View] | None:
    """Who holds a vGPU open."""
    if holders is None:
        return None
    return [{"pid": each.pid, "command": each.command, "domain": each.domain} for each in holders]


def problem_view(problem: Problem) -> View:
    """What stands in the way of a wish."""
    error = problem.error
    return {
        "subject": problem.subject,
        "code": error.code,
        "detail": error.message,
        "hint": error.hint,
    }


def finding_view(finding: Finding, steps: Iterable[str]) -> View:
    """One thing that is not as it should be."""
    return {
        "code": str(finding.code),
        "subject": finding.subject,
        "gpu": finding.gpu,
        "repair": str(finding.repair),
        "since": time_text(finding.since),
        "detail": finding.detail,
        "hint": finding.hint,
        "steps": list(steps),
    }


def step_view(step: Step, *, round_: int, state: str, problem: dict[str, Any] | None) -> View:
    """The `step` resource."""
    return {
        "number": step.number,
        "action": type(step.effect).__name__,
        "summary": describe(step.effect),
        "reason": step.reason,
        "lane": step.lane,
        "needs": list(step.needs),
        "touches": list(step.touches),
        "round": round_,
        "state": state,
        "problem": problem,
    }


def layout_view(told: GpuLayout) -> View:
    """What a plan makes of a card's GPU instances."""

    def places(found: tuple[GiPlace, ...]) -> list[View]:
        return [{"profile": each.profile, "start": each.start} for each in found]

    return {
        "gpu": str(told.gpu),
        "slices": told.slices,
        "kept": places(told.layout.kept),
        "destroyed": places(told.layout.destroyed),
        "created": places(told.layout.created),
        "compute_instances": [
            {"profile": each.place.profile, "start": each.place.start, "compute_instances": dict(each.counts)}
            for each in told.compute
        ],
        "source": "hardware" if told.from_hardware else "catalogue",
    }


def plan_view(shown: ShownPlan, revision: int, changes: list[View]) -> View:
    """The `plan` resource."""
    return {
        "id": shown.id,
        "revision": revision,
        "verdict": str(shown.plan.verdict),
        "steps": [step_view(each, round_=1, state="planned", problem=None) for each in shown.plan.steps],
        "changes": changes,
        "vgpus": [
            {
                "name": each.name,
                "type": each.type_name,
                "gpu": str(each.gpu.address),
                "vf": str(each.parent) if each.parent and each.parent != each.gpu.address else None,
            }
            for each in shown.plan.allocate
        ],
        "mig": [layout_view(each) for each in shown.plan.layouts],
        "touches": list(shown.plan.touches),
        "problems": [problem_view(each) for each in shown.plan.problems],
        "incomplete": shown.plan.incomplete,
        "notes": list(shown.change.notes),
    }


def operation_view(operation: Operation, planned: Iterable[tuple[int, Step]] = ()) -> View:
    """The `operation` resource."""
    runs = [*operation.runs, *(StepRun(step, round_) for round_, step in planned)]
    runs.sort(key=lambda each: (each.round, each.step.number))
    requester = operation.started.requester
    return {
        "id": str(operation.id),
        "kind": operation.started.kind,
        "subject": operation.started.subject,
        "state": str(operation.state),
        "requester": {"uid": requester.uid, "pid": requester.pid, "name": requester.name},
        "started_at": time_text(operation.started_at),
        "ended_at": time_text(operation.ended_at),
        "steps_done": sum(each.state == "done" for each in runs),
        "steps_total": len(runs),
        "steps": [
            step_view(each.step, round_=each.round, state=each.state, problem=each.problem) for each in runs
        ],
        "problem": operation.problem,
        "result": operation.result,
    }


def event_view(entry: LogEntry, operations: Mapping[UUID, Operation]) -> View:
    """The `event` resource; `operations` are those of which it is known what their steps are."""
    record = entry.record
    kind = re.sub(r"(?<!^)(?=[A-Z])", "-", type(record).__name__).lower()
    subject, summary, operation = _tell(record)
    if isinstance(record, StepEnded) and record.operation in operations:
        run = operations[record.operation].run(record.number, record.round)
        if run is not None:
            how, _, why = summary.partition(": ")
            subject, summary = run.step.lane, f"{how}: {describe(run.step.effect)}{why and f': {why}'}"
    return {
        "revision": entry.revision,
        "at": time_text(entry.at),
        "kind": kind,
        "subject": subject,
        "summary": summary,
        "operation": str(operation) if operation else None,
        "body": codec.encode(record, type(record)),
    }


def _short(operation: UUID) -> str:
    return f"operation {str(operation)[:8]}"


def _tell(record: Record) -> tuple[str, str, UUID | None]:
    """Subject, one line for people, and the operation of a record."""
    match record:
        case WishPut(wish=wish):
            return str(wish.key), f"in force, generation {wish.generation}", None
        case WishDropped(key=key):
            return str(key), "no longer in force", None
        case AllocationPut(allocation=place):
            where = place.parent or f"GPU {place.gpu.address}"
            if place.hold is not None:
                how = "kept for the managed-save image of" if place.hold.saved else "held by"
                return place.name, f"{place.type_name} on {where} is {how} domain {place.hold.domain}", None
            return place.name, f"{place.type_name} has its place on {where}", None
        case AllocationDropped(id=vgpu_id, name=name):
            return name or f"vGPU {str(vgpu_id)[:8]}", "its place is free again", None
        case OperationStarted(kind=kind, subject=subject, requester=who, id=key):
            return subject, f"{kind} admitted for {who.name}", key
        case StepStarted(step=step, operation=key):
            return step.lane, f"begins: {describe(step.effect)}", key
        case StepEnded(number=number, problem=problem, operation=key):
            how = f"failed: {problem.get('detail')}" if problem else "done"
            return f"step {number}", how, key
        case OperationRollingBack(id=key, problem=problem):
            return _short(key), f"is undone: {problem.get('detail')}", key
        case OperationEnded(id=key, state=state, problem=problem):
            return _short(key), f"{state}: {problem.get('detail')}" if problem else str(state), key
        case PauseSet(paused=paused, requester=who):
            by = f", says {who.name}" if who else ""
            return "daemon", f"background changes {'are paused' if paused else 'go on'}{by}", None
        case DriftFound(finding=finding):
            used = f" (used by {finding.user})" if finding.user else ""
            return finding.subject, f"{finding.code}: {finding.detail}{used}", None
        case DriftGone(code=code, subject=subject):
            return subject, f"{code} is over", None
        case Noticed(subject=subject, text=text):
            return subject, text, None

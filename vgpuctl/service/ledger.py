"""The state that the log adds up to: wishes, allocations and operations, folded record by record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from vgpuctl.model.allocation import Allocation
from vgpuctl.model.document import DocumentKey, ProfileDocument, Wish, Wishes
from vgpuctl.model.finding import Finding
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
    OperationState,
    PauseSet,
    Record,
    StepEnded,
    StepStarted,
    WishDropped,
    WishPut,
)
from vgpuctl.model.step import Step


@dataclass(slots=True)
class StepRun:
    """A step of an operation, and how far it is: planned, running, done or failed."""

    step: Step
    round: int
    boot_id: str = ""
    state: str = "planned"
    problem: dict[str, Any] | None = None


@dataclass(slots=True)
class Operation:
    """An operation, as far as the log tells; steps that were planned and not begun are not in it."""

    started: OperationStarted
    started_at: datetime
    state: OperationState = OperationState.RUNNING
    ended_at: datetime | None = None
    problem: dict[str, Any] | None = None
    result: dict[str, Any] = field(default_factory=dict)
    runs: list[StepRun] = field(default_factory=list)

    @property
    def id(self) -> UUID:
        """Its id."""
        return self.started.id

    @property
    def goes_forward(self) -> bool:
        """Whether it is never undone: a restore, and what only mends."""
        return self.started.forward or not self.started.requester.is_user

    @property
    def round(self) -> int:
        """The number of plans so far."""
        return max((run.round for run in self.runs), default=0)

    def run(self, number: int, round_: int) -> StepRun | None:
        """The run of a step."""
        return next((each for each in self.runs if (each.step.number, each.round) == (number, round_)), None)

    def copy(self) -> Operation:
        """A copy that later records do not change."""
        return replace(self, runs=[replace(run) for run in self.runs])

    def fold(self, record: Record, at: datetime) -> None:
        """Add a record of this operation."""
        match record:
            case StepStarted(round=round_, step=step, boot_id=boot_id):
                self.runs.append(StepRun(step, round_, boot_id, "running"))
            case StepEnded(round=round_, number=number, problem=problem):
                run = self.run(number, round_)
                if run is not None:
                    run.state, run.problem = ("failed" if problem else "done"), problem
            case OperationRollingBack(problem=problem):
                self.state, self.problem = OperationState.ROLLING_BACK, problem
            case OperationEnded(state=state, problem=problem, result=result):
                self.state, self.problem, self.result = state, problem, result
                self.ended_at = at
            case _:
                pass


def operation_of(entries: tuple[LogEntry, ...]) -> Operation | None:
    """The operation that a store's entries of it add up to."""
    operation: Operation | None = None
    for entry in entries:
        if isinstance(entry.record, OperationStarted):
            operation = Operation(entry.record, entry.at)
        elif operation is not None:
            operation.fold(entry.record, entry.at)
    return operation


ENDED_KEPT = 256
"""Ended operations kept in memory; older ones are read back from the store."""
STEPS_KEPT = 8192
"""Steps of ended operations kept in memory, some 1.5 kB each."""


@dataclass(slots=True)
class Ledger:
    """Everything that is remembered, in memory; the store holds the same on disk."""

    wishes: dict[DocumentKey, Wish] = field(default_factory=dict)
    allocations: dict[UUID, Allocation] = field(default_factory=dict)
    operations: dict[UUID, Operation] = field(default_factory=dict)
    paused: bool = False
    file_profiles: dict[str, ProfileDocument] = field(default_factory=dict)
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)

    def in_force(self) -> Wishes:
        """The wishes, as a value that later records do not change."""
        return Wishes(dict(self.wishes), self.file_profiles)

    def fold(self, record: Record, at: datetime) -> None:
        """Add a record."""
        match record:
            case WishPut(wish=wish):
                self.wishes[wish.key] = wish
            case WishDropped(key=key):
                self.wishes.pop(key, None)
            case AllocationPut(allocation=allocation):
                self.allocations[allocation.id] = allocation
            case AllocationDropped(id=vgpu_id):
                self.allocations.pop(vgpu_id, None)
            case OperationStarted(id=operation_id):
                self.operations[operation_id] = Operation(record, at)
            case StepStarted(operation=operation_id) | StepEnded(operation=operation_id):
                self.operations[operation_id].fold(record, at)
            case OperationRollingBack(id=operation_id):
                self.operations[operation_id].fold(record, at)
            case OperationEnded(id=operation_id):
                # To the end: what ended last is forgotten last, whenever it began.
                ended = self.operations[operation_id] = self.operations.pop(operation_id)
                ended.fold(record, at)
                self._forget_oldest()
            case PauseSet(paused=paused):
                self.paused = paused
            case DriftFound(finding=finding):
                self.findings[finding.key] = finding
            case DriftGone(code=code, subject=subject):
                self.findings.pop((code, subject), None)
            case Noticed():
                pass

    def _forget_oldest(self) -> None:
        ended = [key for key, each in self.operations.items() if each.state.has_ended]
        steps = 0
        for place, key in enumerate(reversed(ended)):
            steps += len(self.operations[key].runs)
            # The newest stays whatever it is: whoever has just ended is asked for.
            if place and (place >= ENDED_KEPT or steps > STEPS_KEPT):
                del self.operations[key]

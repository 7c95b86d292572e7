"""Operations as they go on: rounds of steps, other places, the way back, the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.plan import Plan
from vgpuctl.model.record import (
    DAEMON,
    LIBVIRT,
    AllocationDropped,
    AllocationPut,
    Noticed,
    OperationEnded,
    OperationRollingBack,
    OperationStarted,
    OperationState,
    Requester,
    WishDropped,
    WishPut,
)
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import Lane
from vgpuctl.service.backoff import Backoff
from vgpuctl.service.ledger import Operation
from vgpuctl.service.messages import StepDone
from vgpuctl.service.observations import Observations
from vgpuctl.service.places import Places
from vgpuctl.service.planning import Planning
from vgpuctl.service.run import Run
from vgpuctl.service.steps import Steps
from vgpuctl.service.turn import Turn
from vgpuctl.service.underway import UnderWay
from vgpuctl.service.wayback import what_stays

RETRIES = 2
"""How often an operation tries another place after the host refused one."""
ROUNDS = 8
"""Plans of one operation, at most: past that, plan and host do not come together."""
PATIENCE_S = 300.0
"""How long an operation waits for what cannot be read; at boot libvirt comes later than we do."""

RETRYABLE = frozenset({"kernel-refused", "read-back-mismatch", "conflict"})
"""Codes after which another VF or GPU may do."""

_PAUSED = errors.OperationCancelled("background changes are paused").to_problem()


class Progress:
    """Every operation that has not ended.  `lanes` are those in which a step runs.

    `on_end` is told when one has ended.
    """

    def __init__(
        self,
        turn: Turn,
        observations: Observations,
        places: Places,
        planning: Planning,
        *,
        lanes: set[Lane],
        on_end: Callable[[], None],
    ) -> None:
        self._turn = turn
        self._observations = observations
        self._places = places
        self._planning = planning
        self._on_end = on_end
        self._runs: dict[UUID, Run] = {}
        self.steps = Steps(turn, observations, places, self._runs, lanes)
        self.under_way = UnderWay(self._runs)
        self.backoff = Backoff()

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs."""
        return not self._runs

    @property
    def has_parked(self) -> bool:
        """Whether an operation waits for the next sweep, because something could not be read."""
        return any(run.is_parked for run in self._runs.values())

    def busy(self) -> frozenset[str]:
        """Every name that an operation works on now."""
        return frozenset(name for run in self._runs.values() for name in run.scope)

    def at_work(self) -> frozenset[str]:
        """The names of operations that go on by themselves; not of those that wait to read something."""
        return frozenset(name for run in self._runs.values() if not run.is_parked for name in run.scope)

    def runs(self, operation: UUID) -> bool:
        """Whether that operation has not ended."""
        return operation in self._runs

    def failure(self, operation: UUID) -> dict[str, Any] | None:
        """Why that operation failed, or is about to; None while, or because, all is well."""
        run = self._runs.get(operation)
        if run is not None:
            return run.failure
        found = self._turn.ledger.operations.get(operation)
        return found.problem if found is not None else None

    # -- rounds -----------------------------------------------------------------------------------

    def begin(self, operation: UUID, scope: frozenset[str], result: Plan) -> None:
        """Begin an operation that was admitted."""
        run = self._runs[operation] = Run(operation, scope, 0)
        run.is_start = self._turn.ledger.operations[operation].started.requester == LIBVIRT
        self._begin_round(run, result)

    def begin_for(
        self, requester: Requester, kind: str, subject: str, scope: frozenset[str], result: Plan
    ) -> UUID:
        """Begin an operation that changes no document, a restore or a start; its id."""
        operation = self._planning.new_uuid()
        self._turn.record(
            OperationStarted(
                id=operation,
                kind=kind,
                subject=subject,
                requester=requester,
                scope=tuple(sorted(scope)),
                undo=(),
            )
        )
        self.begin(operation, scope, result)
        return operation

    def take_up(self, operation: Operation) -> None:
        """Go on with what a killed daemon was in the middle of."""
        run = Run(operation.id, frozenset(operation.started.scope), operation.round)
        run.changed = any(each.state != "planned" for each in operation.runs)
        self._runs[operation.id] = run
        self.steps.take_up(operation)
        run.awaits = self._observations.need()

    def unpark(self) -> None:
        """Look again for those who wait because something could not be read."""
        number = self._observations.need()
        for run in self._runs.values():
            if run.is_parked:
                run.is_parked, run.awaits = False, number

    def go_on(self, number: int, snapshot: Snapshot) -> None:
        """The next round of whoever waited for this observation."""
        for run in list(self._runs.values()):
            if run.awaits is None or run.awaits > number:
                continue
            run.awaits = None
            if run.is_in_doubt:
                run.is_in_doubt = False
                self._round_over(run)
            else:
                self._next_round(run, snapshot)

    def step_done(self, item: StepDone) -> None:
        """A step has ended, well or not."""
        run = self._runs[item.operation]
        self.steps.end(run, item)
        if not run.pending and not run.running:
            self._round_over(run)

    def _begin_round(self, run: Run, result: Plan) -> None:
        """Reserve and release what the plan says, and line up its steps."""
        for allocation in result.release:
            self._turn.record(AllocationDropped(allocation.id, allocation.name))
        for allocation in result.allocate:
            if allocation.id not in self._turn.ledger.allocations:
                run.fresh.add(allocation.id)
            self._turn.record(AllocationPut(allocation))
        run.round += 1
        run.pending = {step.number: step for step in result.steps}
        run.running, run.done = {}, set()
        run.incomplete = result.incomplete
        if not run.pending:
            self._round_over(run)

    def _next_round(self, run: Run, snapshot: Snapshot) -> None:
        """Plan what is left, from what is now."""
        operation = self._turn.ledger.operations[run.operation]
        if not operation.started.requester.is_user:
            self._restore_on(run, snapshot)
            return
        if run.held_back is not None:
            self._end(run, OperationState.CANCELLED, run.held_back)
            return
        rolling_back = operation.state is OperationState.ROLLING_BACK
        result = self._planning.left(snapshot, run.scope, frozenset(run.avoid), operation)
        problem = result.problems[0].error.to_problem() if result.problems else None
        if result.is_unread and self._is_patient(run, result):
            return
        run.patience_ends_s = None
        if run.round >= (2 * ROUNDS if rolling_back else ROUNDS):
            problem = errors.ReadBackMismatch(
                f"after {run.round} plans the host is still not as wished"
            ).to_problem()
            if rolling_back:
                self._give_up(run, problem)
            else:
                self._roll_back(run, problem)
        elif rolling_back:
            run.is_undoing = True
            run.failure, run.leftovers = None, problem
            self._begin_round(run, replace(result, incomplete=result.incomplete and bool(result.steps)))
        elif problem is not None and result.steps and operation.goes_forward:
            run.failure = run.failure or problem
            self._begin_round(run, result)
        elif problem is not None:
            self._roll_back(run, run.failure or problem)
        else:
            run.failure = None
            self._begin_round(run, result)

    def _restore_on(self, run: Run, snapshot: Snapshot) -> None:
        """The next round of a restore: still only what can hurt nobody, and nothing while paused."""
        found = self._planning.restoration(run.scope, snapshot, frozenset(run.avoid))
        run.failed |= run.scope - found.names
        if run.held_back is not None or self._turn.ledger.paused:
            self._end(run, OperationState.CANCELLED, run.held_back or _PAUSED)
        elif found.plan.steps and run.round < ROUNDS:
            run.failure = None
            self._begin_round(run, found.plan)
        else:
            problem = found.problem or (run.failure if found.plan.steps else None)
            self._end(run, OperationState.FAILED if problem else OperationState.SUCCEEDED, problem)

    def _is_patient(self, run: Run, result: Plan) -> bool:
        """Whether to wait with the next round for what cannot be read now: libvirt at boot, a hung GPU."""
        if run.patience_ends_s is None:
            run.patience_ends_s = self._turn.monotonic_s() + PATIENCE_S
            text = f"waits: {result.problems[0].error.message}"
            self._turn.record(Noticed(f"operation {str(run.operation)[:8]}", "waiting", text))
        run.is_parked = self._turn.monotonic_s() < run.patience_ends_s
        return run.is_parked

    def _round_over(self, run: Run) -> None:
        """All steps of a round have ended, or none will begin any more."""
        if self._places.has_doubts(run.operation):
            # Whoever ends with a creation in doubt leaves a vGPU that nobody knows, if it is killed then.
            run.is_in_doubt = True
            run.awaits = self._observations.need()
            return
        operation = self._turn.ledger.operations[run.operation]
        rolling_back = operation.state is OperationState.ROLLING_BACK
        if rolling_back and not run.is_undoing:
            run.failure = None
            run.awaits = self._observations.need()
        elif run.held_back is not None:
            self._end(run, OperationState.CANCELLED, run.held_back)
        elif self._may_retry(run):
            run.retries += 1
            for allocation in list(self._turn.ledger.allocations.values()):
                if allocation.id in run.fresh and allocation.created_boot is None:
                    self._places.free(allocation.id)
            run.awaits = self._observations.need()
        elif run.failure is not None and rolling_back:
            self._give_up(run, run.failure)
        elif run.failure is not None:
            self._roll_back(run, run.failure)
        elif run.incomplete:
            run.awaits = self._observations.need()
        elif rolling_back:
            self._finish_rollback(run)
        else:
            self._end(run, OperationState.SUCCEEDED, None)

    def _may_retry(self, run: Run) -> bool:
        return (
            run.retries < RETRIES
            and not run.is_start
            and run.failure is not None
            and run.failure.get("code") in RETRYABLE
            and bool(run.avoid)
        )

    def _roll_back(self, run: Run, problem: dict[str, Any]) -> None:
        """Put the previous wishes in force again, and plan towards them once nothing runs."""
        operation = self._turn.ledger.operations[run.operation]
        if operation.goes_forward:
            self._end(run, OperationState.FAILED, problem)
            return
        for key, wish in operation.started.undo:
            current = self._turn.ledger.wishes.get(key)
            if wish is None:
                self._turn.record(WishDropped(key))
            else:
                # A generation never comes back: who has read the one in between must not be believed.
                generation = max(wish.generation, current.generation if current else 0) + 1
                self._turn.record(WishPut(replace(wish, generation=generation, changed_at=self._turn.now())))
        self._turn.record(OperationRollingBack(run.operation, problem))
        # What refused the new wish may well take back what it had.
        run.avoid.clear()
        run.retries = 0
        run.is_parked, run.patience_ends_s = False, None
        if not run.running:
            run.awaits = self._observations.need()

    def _finish_rollback(self, run: Run) -> None:
        operation = self._turn.ledger.operations[run.operation]
        cause = operation.problem or {}
        if run.leftovers is not None:
            self._give_up(run, run.leftovers)
        elif cause.get("code") == errors.OperationCancelled.code:
            self._end(run, OperationState.CANCELLED, cause)
        elif run.changed:
            text = f"{cause.get('detail')}; what had been done was undone"
            problem = errors.RolledBack(text, hint=cause.get("hint"), cause=cause).to_problem()
            self._end(run, OperationState.FAILED, problem)
        else:
            self._end(run, OperationState.FAILED, cause)

    def _give_up(self, run: Run, problem: dict[str, Any]) -> None:
        operation = self._turn.ledger.operations[run.operation]
        cause = (operation.problem or problem).get("detail")
        why = problem.get("detail")
        text = f"{cause}; it could not be undone" + (f": {why}" if why != cause else "")
        latest = self._observations.latest
        stays = what_stays(self._turn.ledger.in_force(), operation, latest) if latest is not None else []
        if stays:
            text += f"; what stays: {', '.join(stays)}"
        error = errors.NeedsOperator(
            text,
            hint=f"vgpuctl operation show {run.operation} tells how far it came",
            cause=operation.problem or problem,
            undoing=problem,
            stays=stays,
        )
        self._end(run, OperationState.NEEDS_OPERATOR, error.to_problem())

    def _end(self, run: Run, state: OperationState, problem: dict[str, Any] | None) -> None:
        operation = self._turn.ledger.operations[run.operation]
        names = [name for name in run.scope if "/" not in name]
        places = {each.name: each for each in self._turn.ledger.allocations.values() if each.name in names}
        result = {
            "vgpus": sorted(names),
            "documents": sorted(str(key) for key, _ in operation.started.undo),
            "places": {
                name: {"id": str(each.id), "type": each.type_name, "parent": str(each.parent)}
                for name, each in sorted(places.items())
            },
        }
        self._turn.record(OperationEnded(run.operation, state, problem, result))
        del self._runs[run.operation]
        self._observations.note_change(run.scope)
        if not operation.started.requester.is_user:
            # Paused or well ended, there is nothing to keep away from.
            ended_well = state is OperationState.SUCCEEDED or self._turn.ledger.paused
            failed = frozenset() if ended_well else frozenset(run.failed or run.scope)
            why = problem or errors.NotRestored("it did not come back").to_problem()
            self.backoff.note(run.scope, failed, self._turn.monotonic_s(), why)
            self.backoff.forget_all_but(self._turn.ledger.in_force().vgpus())
        self._on_end()

    # -- stopping ---------------------------------------------------------------------------------

    def cancel(self, operation: UUID, who: Requester) -> None:
        """Stop an operation and undo it; raises OperationNotRunning."""
        run = self._runs.get(operation)
        if run is None:
            raise errors.OperationNotRunning(f"operation {operation} has ended")
        known = self._turn.ledger.operations[operation]
        if known.state is OperationState.ROLLING_BACK:
            raise errors.OperationNotRunning(f"operation {operation} is being undone already")
        why = errors.OperationCancelled(f"{who.name} cancelled it", cancelled_by=asdict(who)).to_problem()
        if known.goes_forward:
            self._hold(run, why)
        else:
            run.pending.clear()
            self._roll_back(run, why)

    def hold_restores(self) -> None:
        """Begin no further step of a restore."""
        for run in list(self._runs.values()):
            if self._turn.ledger.operations[run.operation].started.requester == DAEMON:
                self._hold(run, _PAUSED)

    def _hold(self, run: Run, why: dict[str, Any]) -> None:
        run.held_back = why
        run.pending.clear()
        if not run.running and run.awaits is None:
            self._round_over(run)

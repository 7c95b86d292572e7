"""The decision loop, without I/O: requests, observations and completions go in, effects come out.

A turn is: put inputs in with `handle`, then `take` the records that must be on the disk before anything
else happens, and the effects to carry out after that.  Because a step's StepStarted is in the same
commit as whatever decided it, a killed daemon always knows what it was about to do.

Lanes: at most one step runs per GPU and per domain.  Scopes: two operations never work on the same
vGPU or document at once; the later one waits.  What an operation does is planned round by round until
nothing is left; a step that fails leads to a new plan on another place, at most `RETRIES` times, and
then to a plan back to the previous wishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import DocumentKey, DocumentKind, Wish, Wishes
from vgpuctl.model.edit import AdoptVgpus, Edit
from vgpuctl.model.fact import Unknown
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.plan import Plan, Problem
from vgpuctl.model.planner import plan
from vgpuctl.model.record import (
    DAEMON,
    AllocationDropped,
    AllocationPut,
    Noticed,
    OperationEnded,
    OperationRollingBack,
    OperationStarted,
    OperationState,
    PauseSet,
    Record,
    Requester,
    StepEnded,
    StepStarted,
    WishDropped,
    WishPut,
)
from vgpuctl.model.situation import Situation, observed_for
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import CreateVgpu, Effect, Lane, RemoveVgpu, SetVfs, Step, lane_of
from vgpuctl.service import restore
from vgpuctl.service.backoff import Backoff
from vgpuctl.service.ledger import Ledger, Operation, StepRun
from vgpuctl.service.messages import (
    Answer,
    CancelRequested,
    Draining,
    EngineEffect,
    Input,
    LookRequested,
    Observe,
    Observed,
    PauseRequested,
    RunStep,
    StepDone,
    Submitted,
    SweepDue,
    Withdrawn,
)
from vgpuctl.service.proposal import ShownPlan, propose, refuse_problems
from vgpuctl.service.restore import Restoration
from vgpuctl.service.run import Doubt, Run, Waiting, claimed

RETRIES = 2
"""How often an operation tries another place after the host refused one."""
ROUNDS = 8
"""Plans of one operation, at most: past that, plan and host do not come together."""
SHOWN_PLANS = 64
"""Shown plans that are kept so that exactly they can be run."""
PATIENCE = timedelta(minutes=5)
"""How long an operation waits for what cannot be read; at boot libvirt comes later than we do."""

_LATE = "vgpuctl operation list shows who works on the same; vgpuctl host show, what does not answer"

RETRYABLE = frozenset({"kernel-refused", "read-back-mismatch", "conflict"})
"""Codes after which another VF or GPU may do."""


class Engine:
    """Decides everything.  Deterministic: the same inputs give the same records and effects."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        catalog: Catalog,
        now: Callable[[], datetime],
        new_uuid: Callable[[], UUID],
        last: Engine | None = None,
    ) -> None:
        """Take up what `ledger` has of unended operations; `last` is the engine that is given up for this."""
        self.ledger = ledger
        self.snapshot: Snapshot | None = last.snapshot if last is not None else None
        self._catalog = catalog
        self._now = now
        self._new_uuid = new_uuid
        self._records: list[Record] = []
        self._effects: list[EngineEffect] = []
        # An observation that the last engine began shows what was before: its number must not pass.
        self._observation: int = last._observation if last is not None else 0  # noqa: SLF001
        self._observing = False
        self._again = False
        self._is_draining = False
        self._lookers: list[tuple[int, int]] = []
        self._waiting: list[Waiting] = []
        self._fresh_from: dict[str, int] = {}
        self._backoff = Backoff()
        self._shown: dict[str, ShownPlan] = {}
        self._runs: dict[UUID, Run] = {}
        self._lanes: set[Lane] = set()
        self._stirred: set[Lane] = set()
        self._interrupted: list[tuple[Operation, StepRun]] = []
        self._doubtful: list[Doubt] = []
        for operation in ledger.operations.values():
            if not operation.state.has_ended:
                self._take_up(operation)

    # -- turns ------------------------------------------------------------------------------------

    def handle(self, item: Input) -> None:
        """Decide what follows from one input."""
        match item:
            case Submitted():
                self._waiting.append(Waiting(item, self._need_observation()))
            case LookRequested(ticket=ticket):
                self._lookers.append((ticket, self._need_observation()))
            case Withdrawn(ticket=ticket):
                self._withdraw(ticket)
            case SweepDue():
                number = self._need_observation()
                for run in self._runs.values():
                    if run.is_parked:
                        run.is_parked, run.awaits = False, number
            case Draining():
                self._is_draining = True
            case Observed(number=number, snapshot=snapshot):
                self._observed(number, snapshot)
            case StepDone():
                self._step_done(item)
            case CancelRequested(ticket=ticket, operation=operation):
                self._cancel(ticket, operation)
            case PauseRequested(ticket=ticket, paused=paused):
                if self.ledger.paused != paused:
                    self._record(PauseSet(paused))
                    self._hold_restores()
                self._effects.append(Answer(ticket, paused))
        self._dispatch()

    def take(self) -> tuple[list[Record], list[EngineEffect]]:
        """What must be on the disk now, and what is to be done after that."""
        records, effects = self._records, self._effects
        self._records, self._effects = [], []
        return records, effects

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nobody waits."""
        return not (self._runs or self._waiting or self._lookers or self._observing)

    def shown(self, plan_id: str) -> ShownPlan | None:
        """The plan that was shown under that id."""
        return self._shown.get(plan_id)

    def busy(self) -> frozenset[str]:
        """Every name that an operation works on now."""
        return frozenset(name for run in self._runs.values() for name in run.scope)

    def planned(self, operation: UUID) -> list[tuple[int, Step]]:
        """The steps of a running operation that have not begun, with their round."""
        run = self._runs.get(operation)
        return [(run.round, step) for step in run.pending.values()] if run else []

    def _record(self, record: Record) -> None:
        self._records.append(record)
        self.ledger.fold(record, self._now())

    # -- observations -----------------------------------------------------------------------------

    def places(self, snapshot: Snapshot) -> dict[UUID, Allocation]:
        """The allocations; a creation under way, or in doubt, counts as made where the snapshot shows it."""
        found = dict(self.ledger.allocations)
        begun = [
            (step.effect, snapshot.boot_id) for run in self._runs.values() for step in run.running.values()
        ]
        begun += [(each.effect, each.boot_id) for each in self._doubtful]
        for effect, boot_id in begun:
            allocation = found.get(effect.vgpu) if isinstance(effect, CreateVgpu) else None
            if allocation is None or allocation.created_boot is not None:
                continue
            assert isinstance(effect, CreateVgpu)
            made = claimed(allocation, effect, boot_id)
            if observed_for(made, snapshot) is not None:
                found[allocation.id] = made
        return found

    def _need_observation(self) -> int:
        """The number of an observation that begins after now; begins it unless one is under way."""
        if self._observing:
            self._again = True
            return self._observation + 1
        self._observing = True
        self._stirred = set(self._lanes)
        self._observation += 1
        self._effects.append(Observe(self._observation))
        return self._observation

    def _shows_what_was_done(self, names: Iterable[str], number: int) -> bool:
        """Whether an observation began after the last operation on any of those names had ended."""
        return all(self._fresh_from.get(name, 0) <= number for name in names)

    def _stale_lanes(self) -> frozenset[str]:
        """The GPUs from which a vGPU has gone since the observation under way began."""
        return frozenset(name for name in self._fresh_from if name.startswith("gpu/"))

    def _quietened(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot without what may be torn: a card that changed while it was read.

        Which vGPUs exist is read file by file and joined with our allocations; what else would be
        creatable is true only of one moment.
        """
        torn = Unknown("the card changed while it was read")
        gpus = tuple(
            replace(gpu, creatable=torn) if f"gpu/{gpu.address}" in self._stirred else gpu
            for gpu in snapshot.gpus
        )
        return replace(snapshot, gpus=gpus)

    def _observed(self, number: int, snapshot: Snapshot) -> None:
        if number != self._observation or not self._observing:
            return
        self.snapshot = snapshot = self._quietened(snapshot)
        self._fresh_from = {name: first for name, first in self._fresh_from.items() if first > number}
        self._observing = False
        if self._again:
            self._again = False
            self._need_observation()
        self._end_interrupted()
        self._resolve_doubts(number, snapshot)
        lookers, self._lookers = self._lookers, []
        for ticket, wanted in lookers:
            if wanted <= number:
                self._effects.append(Answer(ticket, snapshot))
            else:
                self._lookers.append((ticket, wanted))
        for run in list(self._runs.values()):
            if run.awaits is not None and run.awaits <= number:
                run.awaits = None
                if run.is_in_doubt:
                    run.is_in_doubt = False
                    self._round_over(run)
                else:
                    self._next_round(run, snapshot)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if each.behind is not None or each.observation > number:
                self._waiting.append(each)
                continue
            try:
                self._admit(each, number, snapshot)
            except errors.VgpuctlError as error:
                self._effects.append(Answer(each.request.ticket, error=error))
        self._sweep(number, snapshot)

    def _withdraw(self, ticket: int) -> None:
        rest = [each for each in self._waiting if each.request.ticket != ticket]
        lookers = [each for each in self._lookers if each[0] != ticket]
        if (len(rest), len(lookers)) == (len(self._waiting), len(self._lookers)):
            return
        self._waiting, self._lookers = rest, lookers
        late = errors.DeadlineExceeded("it did not come to its turn in time; nothing was done", hint=_LATE)
        self._effects.append(Answer(ticket, error=late))
        self._next_in_turn()

    # -- admission --------------------------------------------------------------------------------

    def _admit(self, waiting: Waiting, number: int, snapshot: Snapshot) -> None:
        """Show a plan, or start an operation; waits on where another one works on the same."""
        request = waiting.request
        before = self._operation_of_key(request.idempotency_key)
        if before is not None:
            self._effects.append(Answer(request.ticket, before))
            return
        shown = None
        edit = request.edit
        if request.plan_id is not None:
            shown = self._shown.get(request.plan_id)
            if shown is None:
                raise errors.OperationNotFound(
                    f"no plan {request.plan_id!r} is kept", hint="show it again, then run it"
                )
            edit = shown.edit
        assert edit is not None
        try:
            made, scope, wishes = self._propose(edit, request.who, snapshot, shown.ids if shown else {})
        except errors.VgpuctlError:
            raise
        except Exception as error:
            # One odd request must not take everybody else's turn with it.
            raise internal(error) from error
        if not request.dry_run and (scope & self.busy() or self._is_behind(scope)):
            # _end asks for a new observation for whoever waits for the scope.
            self._waiting.append(Waiting(request, number, behind=scope))
            return
        names = scope | (self._stale_lanes() if isinstance(edit, AdoptVgpus) else frozenset())
        if not self._shows_what_was_done(names, number):
            self._waiting.append(Waiting(request, self._need_observation()))
            return
        if shown is not None and not made.does_the_same_as(shown):
            raise errors.PlanStale(
                "the host or the wishes changed since this plan was shown", hint="show it again"
            )
        if request.dry_run:
            self._shown[made.id] = made
            while len(self._shown) > SHOWN_PLANS:
                del self._shown[next(iter(self._shown))]
            self._effects.append(Answer(request.ticket, made))
            return
        refuse_problems(made.plan)
        operation = self._start(made, request, scope, wishes)
        self._effects.append(Answer(request.ticket, operation))

    def _operation_of_key(self, key: str | None) -> UUID | None:
        """The operation of that idempotency key, among those in memory; the store knows the others."""
        if key is None:
            return None
        operations = self.ledger.operations.values()
        return next((each.id for each in operations if each.started.idempotency_key == key), None)

    def _is_behind(self, scope: frozenset[str]) -> bool:
        """Whether somebody who came earlier waits for any of these names: the turn is theirs."""
        return any(each.behind is not None and scope & each.behind for each in self._waiting)

    def _propose(
        self, edit: Edit, who: Requester, snapshot: Snapshot, ids: dict[str, UUID]
    ) -> tuple[ShownPlan, frozenset[str], Wishes]:
        return propose(
            edit,
            who,
            snapshot,
            ids,
            before=self.ledger.in_force(),
            places=self.places(snapshot),
            catalog=self._catalog,
            now=self._now(),
            new_uuid=self._new_uuid,
        )

    def _start(self, made: ShownPlan, request: Submitted, scope: frozenset[str], wishes: Wishes) -> UUID:
        """Put the documents in force, reserve the places, and begin."""
        before = self.ledger.wishes
        undo: list[tuple[DocumentKey, Wish | None]] = []
        changes: list[Record] = []
        for key in sorted({*made.change.put, *made.change.drop}):
            old, new = before.get(key), wishes.documents.get(key)
            if old == new:
                continue
            undo.append((key, old))
            changes.append(WishPut(new) if new is not None else WishDropped(key))
        operation = self._new_uuid()
        self._record(
            OperationStarted(
                id=operation,
                kind=made.change.kind,
                subject=made.change.subject,
                requester=request.who,
                scope=tuple(sorted(scope)),
                undo=tuple(undo),
                idempotency_key=request.idempotency_key,
            )
        )
        for record in changes:
            self._record(record)
        for allocation in made.change.adopted:
            self._record(AllocationPut(allocation))
        run = Run(operation, scope, 0)
        self._runs[operation] = run
        self._begin_round(run, made.plan)
        return operation

    # -- rounds -----------------------------------------------------------------------------------

    def _begin_round(self, run: Run, result: Plan) -> None:
        """Reserve and release what the plan says, and line up its steps."""
        for allocation in result.release:
            self._record(AllocationDropped(allocation.id))
        for allocation in result.allocate:
            if allocation.id not in self.ledger.allocations:
                run.fresh.add(allocation.id)
            self._record(AllocationPut(allocation))
        run.round += 1
        run.pending = {step.number: step for step in result.steps}
        run.running, run.done = {}, set()
        run.incomplete = result.incomplete
        if not run.pending:
            self._round_over(run)

    def _next_round(self, run: Run, snapshot: Snapshot) -> None:
        """Plan what is left, from what is now."""
        operation = self.ledger.operations[run.operation]
        if operation.started.requester == DAEMON:
            self._restore_on(run, snapshot)
            return
        rolling_back = operation.state is OperationState.ROLLING_BACK
        desktops = any(key.kind is DocumentKind.DESKTOP for key, _ in operation.started.undo)
        result = self._plan(snapshot, run.scope, frozenset(run.avoid), desktops_change=desktops)
        problem = result.problems[0].error.to_problem() if result.problems else None
        if (
            result.problems
            and all(each.is_unknown for each in result.problems)
            and self._is_patient(run, result)
        ):
            return
        run.patience_ends = None
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
        elif problem is not None:
            self._roll_back(run, run.failure or problem)
        else:
            run.failure = None
            self._begin_round(run, result)

    def _is_patient(self, run: Run, result: Plan) -> bool:
        """Whether to wait with the next round for what cannot be read now: libvirt at boot, a hung GPU."""
        if run.patience_ends is None:
            run.patience_ends = self._now() + PATIENCE
            text = f"waits: {result.problems[0].error.message}"
            self._record(Noticed(f"operation {str(run.operation)[:8]}", "waiting", text))
        run.is_parked = self._now() < run.patience_ends
        return run.is_parked

    def _plan(
        self,
        snapshot: Snapshot,
        scope: frozenset[str],
        avoid: frozenset[GpuAddress],
        *,
        desktops_change: bool = False,
    ) -> Plan:
        """What is left to do for those names; a fault of ours in planning is a problem like another.

        Raised, it would come again with every observation, and nothing else would ever be decided.
        """
        try:
            return plan(
                Situation(
                    snapshot=snapshot,
                    wishes=self.ledger.in_force(),
                    allocations=self.places(snapshot),
                    catalog=self._catalog,
                    now=self._now(),
                    new_id=lambda _name: self._new_uuid(),
                    scope=scope,
                    avoid=avoid,
                    desktops_change=desktops_change,
                )
            )
        except Exception as error:  # noqa: BLE001
            return Plan(problems=(Problem("", internal(error)),))

    def _round_over(self, run: Run) -> None:
        """All steps of a round have ended, or none will begin any more."""
        if any(each.operation == run.operation for each in self._doubtful):
            # Whoever ends with a creation in doubt leaves a vGPU that nobody knows, if it is killed then.
            run.is_in_doubt = True
            run.awaits = self._need_observation()
            return
        rolling_back = self.ledger.operations[run.operation].state is OperationState.ROLLING_BACK
        if rolling_back and not run.is_undoing:
            run.failure = None
            run.awaits = self._need_observation()
        elif run.cancelled:
            self._end(run, OperationState.CANCELLED, self._held_back())
        elif self._may_retry(run):
            run.retries += 1
            for allocation in list(self.ledger.allocations.values()):
                if allocation.id in run.fresh and allocation.created_boot is None:
                    self._free_place(allocation.id)
            run.awaits = self._need_observation()
        elif run.failure is not None and rolling_back:
            self._give_up(run, run.failure)
        elif run.failure is not None:
            self._roll_back(run, run.failure)
        elif run.incomplete:
            run.awaits = self._need_observation()
        elif rolling_back:
            self._finish_rollback(run)
        else:
            self._end(run, OperationState.SUCCEEDED, None)

    def _held_back(self) -> dict[str, Any]:
        """Why a restore goes no further."""
        text = "background changes are paused" if self.ledger.paused else "it was cancelled"
        return errors.OperationCancelled(text).to_problem()

    def _may_retry(self, run: Run) -> bool:
        return (
            run.retries < RETRIES
            and run.failure is not None
            and run.failure.get("code") in RETRYABLE
            and bool(run.avoid)
        )

    def _roll_back(self, run: Run, problem: dict[str, Any]) -> None:
        """Put the previous wishes in force again, and plan towards them once nothing runs."""
        operation = self.ledger.operations[run.operation]
        if operation.started.requester == DAEMON:
            self._end(run, OperationState.FAILED, problem)
            return
        for key, wish in operation.started.undo:
            current = self.ledger.wishes.get(key)
            if wish is None:
                self._record(WishDropped(key))
            else:
                # A generation never comes back: who has read the one in between must not be believed.
                generation = max(wish.generation, current.generation if current else 0) + 1
                self._record(WishPut(replace(wish, generation=generation, changed_at=self._now())))
        self._record(OperationRollingBack(run.operation, problem))
        # What refused the new wish may well take back what it had.
        run.avoid.clear()
        run.retries = 0
        run.is_parked, run.patience_ends = False, None
        if not run.running:
            run.awaits = self._need_observation()

    def _finish_rollback(self, run: Run) -> None:
        operation = self.ledger.operations[run.operation]
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
        operation = self.ledger.operations[run.operation]
        text = f"{problem.get('detail')}; it could not be undone"
        error = errors.NeedsOperator(
            text,
            hint=f"vgpuctl operation show {run.operation} tells how far it came",
            cause=operation.problem or problem,
            undoing=problem,
        )
        self._end(run, OperationState.NEEDS_OPERATOR, error.to_problem())

    def _end(self, run: Run, state: OperationState, problem: dict[str, Any] | None) -> None:
        operation = self.ledger.operations[run.operation]
        names = [name for name in run.scope if "/" not in name]
        places = {each.name: each for each in self.ledger.allocations.values() if each.name in names}
        result = {
            "vgpus": sorted(names),
            "documents": sorted(str(key) for key, _ in operation.started.undo),
            "places": {
                name: {"id": str(each.id), "type": each.type_name, "parent": str(each.parent)}
                for name, each in sorted(places.items())
            },
        }
        self._record(OperationEnded(run.operation, state, problem, result))
        del self._runs[run.operation]
        if self._observing:
            self._fresh_from |= dict.fromkeys(run.scope, self._observation + 1)
        if operation.started.requester == DAEMON:
            # Paused or well ended, there is nothing to keep away from.
            ended_well = state is OperationState.SUCCEEDED or self.ledger.paused
            failed = frozenset() if ended_well else frozenset(run.failed or run.scope)
            self._backoff.note(run.scope, failed, self._now())
            self._backoff.forget_all_but(self.ledger.in_force().vgpus())
        self._next_in_turn()

    def _next_in_turn(self) -> None:
        """Look again for those who wait for their turn."""
        if any(each.behind is not None for each in self._waiting):
            number = self._need_observation()
            self._waiting = [
                each if each.behind is None else Waiting(each.request, number) for each in self._waiting
            ]

    # -- steps ------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Begin every step whose needs are done and whose lane is free."""
        if self._is_draining:
            return
        assert_boot = self.snapshot.boot_id if self.snapshot else ""
        for run in self._runs.values():
            for step in list(run.pending.values()):
                if step.lane in self._lanes or not run.done.issuperset(step.needs):
                    continue
                del run.pending[step.number]
                run.running[step.number] = step
                self._lanes.add(step.lane)
                self._stirred.add(step.lane)
                self._record(
                    StepStarted(operation=run.operation, round=run.round, step=step, boot_id=assert_boot)
                )
                self._effects.append(RunStep(run.operation, run.round, step))

    def _step_done(self, item: StepDone) -> None:
        run = self._runs[item.operation]
        step = run.running.pop(item.number)
        begun = self.ledger.operations[item.operation].run(item.number, item.round)
        boot_id = begun.boot_id if begun is not None else ""
        self._lanes.discard(step.lane)
        self._record(
            StepEnded(operation=item.operation, round=item.round, number=item.number, problem=item.problem)
        )
        if item.problem is None:
            run.done.add(item.number)
            run.changed = True
            self._settle(step.effect, boot_id)
        else:
            run.failure = run.failure or item.problem
            run.failed |= run.scope if isinstance(step.effect, SetVfs) else {step.effect.name}
            self._call_off(run, item.number)
            if isinstance(step.effect, CreateVgpu):
                run.avoid.add(step.effect.parent)
                is_fresh = step.effect.vgpu in run.fresh
                if item.problem.get("code") != errors.Conflict.code:
                    self._doubt(run.operation, step.effect, boot_id, is_fresh=is_fresh)
                elif is_fresh:
                    self._free_place(step.effect.vgpu)
        if not run.pending and not run.running:
            self._round_over(run)

    def _call_off(self, run: Run, failed: int) -> None:
        """Drop what cannot be done after a step failed.

        Forwards nothing more is begun.  Backwards, and in a restore, the rest is as welcome as before:
        one vGPU that fails must not keep the others away.
        """
        operation = self.ledger.operations[run.operation]
        if operation.state is OperationState.RUNNING and operation.started.requester != DAEMON:
            run.pending.clear()
            return
        gone = {failed}
        for step in list(run.pending.values()):
            if gone.intersection(step.needs):
                gone.add(step.number)
                del run.pending[step.number]

    def _settle(self, effect: Effect, boot_id: str) -> None:
        """Record what a step that succeeded means for allocations."""
        allocation = None
        if isinstance(effect, (CreateVgpu, RemoveVgpu)):
            allocation = self.ledger.allocations.get(effect.vgpu)
        if allocation is None:
            return
        if isinstance(effect, CreateVgpu):
            self._record(AllocationPut(claimed(allocation, effect, boot_id)))
        else:
            self._record(AllocationDropped(allocation.id))
            if self._observing:
                self._fresh_from[lane_of(effect)] = self._observation + 1

    def _doubt(self, operation: UUID, effect: CreateVgpu, boot_id: str, *, is_fresh: bool) -> None:
        self._doubtful.append(Doubt(operation, effect, boot_id, self._need_observation(), is_fresh))

    def _free_place(self, vgpu_id: UUID) -> None:
        """Let the next plan choose another place, unless somebody's XML names this one already."""
        allocation = self.ledger.allocations.get(vgpu_id)
        is_named = self.snapshot is None or allocation is None or restore.is_named(allocation, self.snapshot)
        if allocation is not None and not is_named:
            self._record(AllocationDropped(vgpu_id))

    def _cancel(self, ticket: int, operation: UUID) -> None:
        run = self._runs.get(operation)
        if run is None:
            error: errors.VgpuctlError = errors.OperationNotRunning(f"operation {operation} has ended")
            if operation not in self.ledger.operations:
                error = errors.OperationNotFound(f"no operation {operation}")
            self._effects.append(Answer(ticket, error=error))
            return
        if self.ledger.operations[operation].state is OperationState.ROLLING_BACK:
            error = errors.OperationNotRunning(f"operation {operation} is being undone already")
            self._effects.append(Answer(ticket, error=error))
            return
        run.pending.clear()
        if self.ledger.operations[operation].started.requester == DAEMON:
            run.cancelled = True
            if not run.running and run.awaits is None:
                self._round_over(run)
        else:
            self._roll_back(run, errors.OperationCancelled("it was cancelled").to_problem())
        self._effects.append(Answer(ticket, operation))

    def _hold_restores(self) -> None:
        """Begin no further step of a restore while paused."""
        for run in list(self._runs.values()) if self.ledger.paused else ():
            if self.ledger.operations[run.operation].started.requester == DAEMON:
                run.cancelled = True
                run.pending.clear()
                if not run.running and run.awaits is None:
                    self._round_over(run)

    # -- after a crash, and in the background -------------------------------------------------------

    def _take_up(self, operation: Operation) -> None:
        """Go on with what a killed daemon was in the middle of."""
        run = Run(operation.id, frozenset(operation.started.scope), operation.round)
        run.changed = any(each.state != "planned" for each in operation.runs)
        self._runs[operation.id] = run
        created: dict[UUID, StepRun] = {}
        for each in operation.runs:
            if each.state == "running":
                self._interrupted.append((operation, each))
            if isinstance(each.step.effect, CreateVgpu):
                created[each.step.effect.vgpu] = each
        for each in created.values():
            assert isinstance(each.step.effect, CreateVgpu)
            is_conflict = (each.problem or {}).get("code") == errors.Conflict.code
            if each.state in ("running", "failed") and not is_conflict:
                self._doubt(operation.id, each.step.effect, each.boot_id, is_fresh=False)
        run.awaits = self._need_observation()

    def _end_interrupted(self) -> None:
        """Close the steps that a killed daemon had begun; what came of them, the host will tell."""
        problem = {
            "code": "interrupted",
            "detail": "the daemon ended while this step ran; the host was read back and planned anew",
        }
        interrupted, self._interrupted = self._interrupted, []
        for operation, begun in interrupted:
            self._record(
                StepEnded(
                    operation=operation.id, round=begun.round, number=begun.step.number, problem=problem
                )
            )

    def _resolve_doubts(self, number: int, snapshot: Snapshot) -> None:
        """Read back creations that did not end well.

        A VF that shows the type which we were about to write, in the boot in which we were about to
        write it, is ours; our own log has it that the VF was empty before.  A GPU that cannot be read
        may have it.  Where nothing shows, a place that the operation chose is free again; one that was
        there before stays: a vGPU keeps its id when a restore fails.
        """
        doubtful, self._doubtful = self._doubtful, []
        for doubt in doubtful:
            effect = doubt.effect
            allocation = self.ledger.allocations.get(effect.vgpu)
            if doubt.observation > number:
                self._doubtful.append(doubt)
                continue
            if allocation is None or allocation.created_boot is not None:
                continue
            made = claimed(allocation, effect, doubt.boot_id)
            gpu = snapshot.gpu_at(effect.gpu.address)
            is_dark = gpu is not None and not gpu.is_readable
            if is_dark or observed_for(made, snapshot) is not None:
                self._record(AllocationPut(made))
            elif doubt.is_fresh:
                self._free_place(effect.vgpu)

    def _sweep(self, number: int, snapshot: Snapshot) -> None:
        """Begin to restore what is not as wished, one operation per GPU; drop places left over."""
        if self.ledger.paused:
            return
        now, busy, wishes = self._now(), self.busy(), self.ledger.in_force()

        def is_quiet(name: str) -> bool:
            return (
                name not in busy
                and self._backoff.is_over(name, now)
                and self._shows_what_was_done([name], number)
            )

        doubtful = {each.effect.vgpu for each in self._doubtful}
        for allocation in restore.leftovers(wishes, self.ledger.allocations.values(), snapshot):
            if is_quiet(allocation.name) and allocation.id not in doubtful:
                self._record(AllocationDropped(allocation.id))
        groups: dict[str, set[str]] = {}
        for name, gpu in restore.missing(wishes, self.ledger.allocations.values(), snapshot).items():
            if is_quiet(name):
                groups.setdefault(gpu, set()).add(name)
        for names in groups.values():
            found = self._restoration(names, snapshot)
            if not found.plan.steps:
                continue
            operation = self._new_uuid()
            self._record(
                OperationStarted(
                    id=operation,
                    kind="restore",
                    subject=min(found.names) if len(found.names) == 1 else f"{len(found.names)} vGPUs",
                    requester=DAEMON,
                    scope=tuple(sorted(found.names)),
                    undo=(),
                )
            )
            run = Run(operation, found.names, 0)
            self._runs[operation] = run
            self._begin_round(run, found.plan)

    def _restoration(
        self, names: Iterable[str], snapshot: Snapshot, avoid: frozenset[GpuAddress] = frozenset()
    ) -> Restoration:
        return restore.restoration(
            names,
            snapshot,
            self.ledger.allocations,
            lambda scope: self._plan(snapshot, scope, avoid),
        )

    def _restore_on(self, run: Run, snapshot: Snapshot) -> None:
        """The next round of a restore: still only what can hurt nobody, and nothing while paused."""
        found = self._restoration(run.scope, snapshot, frozenset(run.avoid))
        run.failed |= run.scope - found.names
        if run.cancelled or self.ledger.paused:
            self._end(run, OperationState.CANCELLED, self._held_back())
        elif found.plan.steps and run.round < ROUNDS:
            run.failure = None
            self._begin_round(run, found.plan)
        else:
            problem = found.problem or (run.failure if found.plan.steps else None)
            self._end(run, OperationState.FAILED if problem else OperationState.SUCCEEDED, problem)


def internal(error: Exception) -> errors.VgpuctlError:
    """A fault of ours, as users may see it."""
    found = errors.VgpuctlError(f"{type(error).__name__}: {error}")
    found.__cause__ = error
    return found

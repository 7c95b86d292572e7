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

from collections.abc import Callable, Mapping
from datetime import datetime
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import DocumentKey, Repair, Wish, Wishes
from vgpuctl.model.drift import findings
from vgpuctl.model.edit import AdoptVgpus
from vgpuctl.model.finding import Finding
from vgpuctl.model.record import (
    DAEMON,
    AllocationDropped,
    AllocationPut,
    OperationStarted,
    PauseSet,
    Record,
    WishDropped,
    WishPut,
)
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import Lane, Step
from vgpuctl.service import boot, restore
from vgpuctl.service.drifts import Drifts
from vgpuctl.service.filling import Filling
from vgpuctl.service.ledger import Ledger
from vgpuctl.service.messages import (
    CancelRequested,
    Draining,
    EngineEffect,
    Glimpsed,
    Input,
    LookRequested,
    Observed,
    PauseRequested,
    ReleaseTold,
    StartAsked,
    StepDone,
    Submitted,
    SweepDue,
    Withdrawn,
)
from vgpuctl.service.observations import Observations
from vgpuctl.service.places import Places
from vgpuctl.service.planning import Planning
from vgpuctl.service.progress import Progress
from vgpuctl.service.proposal import ShownPlan, refuse_problems
from vgpuctl.service.run import Waiting
from vgpuctl.service.starts import Starts
from vgpuctl.service.turn import Turn

SHOWN_PLANS = 64
"""Shown plans that are kept so that exactly they can be run."""

NVML = "host/nvml"
"""The name under which it is noted until when NVML was not asked."""

_PAUSED = errors.NotRestored("background changes are paused", hint="vgpuctl resume")
_FILLING = errors.NotRestored("the driver is still filling the VFs of its GPU")
_WAITS = errors.NotRestored("an operation on it waits for something that cannot be read yet")
_LATE = "vgpuctl operation list shows who works on the same; vgpuctl host show, what does not answer"


class Engine:
    """Decides everything.  Deterministic: the same inputs give the same records and effects."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        catalog: Catalog,
        now: Callable[[], datetime],
        monotonic_s: Callable[[], float],
        new_uuid: Callable[[], UUID],
        repair: Repair = Repair.AUTO,
        last: Engine | None = None,
    ) -> None:
        """Take up what `ledger` has of unended operations; `last` is the engine that is given up for this."""
        self.ledger = ledger
        self._catalog = catalog
        self._turn = Turn(ledger, now, monotonic_s)
        lanes: set[Lane] = set()
        self.observations: Observations = Observations(
            self._turn, lanes, last.observations if last is not None else None
        )
        self._places = Places(self._turn, self.observations)
        self._planning = Planning(self._turn, self.places, catalog, new_uuid, repair)
        self._drifts = Drifts(self._turn, self.observations, lanes)
        self._filling = Filling()
        self._progress = Progress(
            self._turn,
            self.observations,
            self._places,
            self._planning,
            lanes=lanes,
            on_end=self._next_in_turn,
        )
        self.starts: Starts = Starts(
            self._turn,
            self.observations,
            self._planning,
            self._progress,
            last=last.starts if last is not None else None,
        )
        self._lookers: list[tuple[int, int]] = []
        self._waiting: list[Waiting] = []
        self._shown: dict[str, ShownPlan] = {}
        self.outlook: boot.Outlook | None = None
        """What was not as wished at the last observation, once what it asked for had begun."""
        for operation in ledger.operations.values():
            if not operation.state.has_ended:
                self._progress.take_up(operation)

    # -- turns ------------------------------------------------------------------------------------

    def handle(self, item: Input) -> None:
        """Decide what follows from one input."""
        match item:
            case Submitted():
                self._waiting.append(Waiting(item, self.observations.need()))
            case LookRequested(ticket=ticket):
                self._lookers.append((ticket, self.observations.need()))
            case StartAsked():
                self.starts.ask(item)
            case ReleaseTold(ticket=ticket, release=release):
                self.starts.release(ticket, release)
            case Glimpsed(number=number, snapshot=snapshot):
                self.starts.glimpsed(number, snapshot)
            case Withdrawn(ticket=ticket):
                self._withdraw(ticket)
            case SweepDue():
                self._progress.unpark()
            case Draining():
                self._progress.steps.is_draining = True
            case Observed(number=number, snapshot=snapshot):
                self._observed(number, snapshot)
            case StepDone():
                self._step_done(item)
            case CancelRequested():
                self._cancel(item)
            case PauseRequested():
                self._pause(item)
        self.starts.go_on()
        self._progress.steps.dispatch()

    def take(self) -> tuple[list[Record], list[EngineEffect]]:
        """What must be on the disk now, and what is to be done after that."""
        return self._turn.take()

    @property
    def snapshot(self) -> Snapshot | None:
        """What was last seen of the host."""
        return self.observations.latest

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nobody waits."""
        waits = self._waiting or self._lookers or self.observations.under_way
        return self._progress.is_idle and self.starts.is_idle and not waits

    def shown(self, plan_id: str) -> ShownPlan | None:
        """The plan that was shown under that id."""
        return self._shown.get(plan_id)

    def busy(self) -> frozenset[str]:
        """Every name that an operation works on now."""
        return self._progress.busy()

    def planned(self, operation: UUID) -> list[tuple[int, Step]]:
        """The steps of a running operation that have not begun, with their round."""
        return self._progress.under_way.planned(operation)

    def places(self, snapshot: Snapshot) -> dict[UUID, Allocation]:
        """The allocations; a creation under way, or in doubt, counts as made where the snapshot shows it."""
        return self._places.seen(snapshot, self._progress.under_way.running())

    def differing(self, snapshot: Snapshot) -> tuple[Finding, ...]:
        """Everything that is not as it should be; what an operation works on is in it too."""
        ledger = self._turn.ledger
        found = findings(
            snapshot,
            ledger.in_force(),
            self.places(snapshot),
            self._planning.repair,
            self._catalog,
        )
        return tuple(self._drifts.remembered(each) for each in found)

    def set_repair(self, repair: Repair) -> None:
        """Another policy of the host's is in force."""
        self._planning.repair = repair

    def _observed(self, number: int, snapshot: Snapshot) -> None:
        seen = self.observations.came_in(number, snapshot)
        if seen is None:
            return
        self._progress.steps.end_interrupted()
        self._places.resolve(number, seen)
        self.starts.observed(number, seen)
        busy = self._progress.busy()

        def is_quiet(place: Allocation) -> bool:
            # An operation may go on for long after its vGPU was made: then the lane tells.
            is_still = place.name not in busy or self.observations.is_whole(f"gpu/{place.gpu.address}")
            return is_still and self.observations.show([place.name], number)

        self._places.note_losses(seen, is_quiet)
        lookers, self._lookers = self._lookers, []
        for ticket, wanted in lookers:
            if wanted <= number:
                self._turn.answer(ticket, seen)
            else:
                self._lookers.append((ticket, wanted))
        self._progress.go_on(number, seen)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if each.behind is not None or each.observation > number:
                self._waiting.append(each)
                continue
            try:
                self._admit(each, number, seen)
            except errors.VgpuctlError as error:
                self._turn.refuse(each.request.ticket, error)
        self._drifts.note(number, seen, self.differing(seen), self._progress.busy())
        refused = self._sweep(number, seen)
        if not self.observations.show((NVML,), number):
            self._unpark()
        self.outlook = boot.outlook(
            self._turn.ledger.in_force(),
            self._places.seen(seen, self._progress.under_way.running()).values(),
            seen,
            at_work=self._progress.at_work(),
            is_current=lambda name: self.observations.show([name], number),
            coming={name for name, why in refused.items() if why is _FILLING},
            refused=refused,
        )

    def _step_done(self, item: StepDone) -> None:
        was_shut = self._progress.under_way.shuts_nvml()
        if was_shut:
            self.observations.note_change((NVML,))
        self._progress.step_done(item)
        if was_shut and not self._progress.under_way.shuts_nvml():
            self._next_in_turn()
            self._unpark()

    def _unpark(self) -> None:
        """Look again for operations that could not read what NVML tells; their next sweep may be far."""
        if self._progress.has_parked:
            self._progress.unpark()

    def _cancel(self, item: CancelRequested) -> None:
        try:
            self._progress.cancel(item.operation, item.requester)
        except errors.VgpuctlError as error:
            self._turn.refuse(item.ticket, error)
        else:
            self._turn.answer(item.ticket, item.operation)

    def _pause(self, item: PauseRequested) -> None:
        if self._turn.ledger.paused != item.paused:
            self._turn.record(PauseSet(item.paused, item.requester))
            if item.paused:
                self._progress.hold_restores()
        self._turn.answer(item.ticket, item.paused)

    def _withdraw(self, ticket: int) -> None:
        rest = [each for each in self._waiting if each.request.ticket != ticket]
        lookers = [each for each in self._lookers if each[0] != ticket]
        is_start = self.starts.withdraw(ticket)
        if not is_start and (len(rest), len(lookers)) == (len(self._waiting), len(self._lookers)):
            return
        self._waiting, self._lookers = rest, lookers
        late = errors.DeadlineExceeded("it did not come to its turn in time; nothing was done", hint=_LATE)
        self._turn.refuse(ticket, late)
        self._next_in_turn()

    def _next_in_turn(self) -> None:
        """Look again for those who wait for their turn."""
        if any(each.behind is not None for each in self._waiting):
            number = self.observations.need()
            self._waiting = [
                each if each.behind is None else Waiting(each.request, number) for each in self._waiting
            ]

    # -- admission --------------------------------------------------------------------------------

    def _admit(self, waiting: Waiting, number: int, snapshot: Snapshot) -> None:
        """Show a plan, or start an operation; waits on where another one works on the same."""
        request = waiting.request
        before = self._operation_of_key(request.idempotency_key)
        if before is not None:
            request.check_asked(before.asked)
            self._turn.answer(request.ticket, before.id)
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
        ids = shown.ids if shown else {}
        try:
            made, scope, wishes = self._planning.proposal(edit, request.who, snapshot, ids)
        except errors.FactUnknown:
            if not self._waits_for_nvml(request, number, frozenset()):
                raise
            return
        if not request.dry_run and (scope & self._progress.busy() or self._is_behind(scope)):
            # Whoever ends asks for a new observation for those who wait.
            self._waiting.append(Waiting(request, number, behind=scope))
            return
        names = scope | (self.observations.changed_lanes() if isinstance(edit, AdoptVgpus) else frozenset())
        if not self.observations.show(names, number):
            self._waiting.append(Waiting(request, self.observations.need()))
            return
        # What a lenient change leaves out, nobody hears of again.
        is_short = made.plan.may_be_unread or made.change.lenient
        if is_short and self._waits_for_nvml(request, number, scope):
            return
        if shown is not None and not made.does_the_same_as(shown):
            raise errors.PlanStale(
                "the host or the wishes changed since this plan was shown", hint="show it again"
            )
        if request.dry_run:
            self._shown[made.id] = made
            while len(self._shown) > SHOWN_PLANS:
                del self._shown[next(iter(self._shown))]
            self._turn.answer(request.ticket, made)
            return
        refuse_problems(made.plan)
        operation = self._start(made, request, scope, wishes)
        self._turn.answer(request.ticket, operation)

    def _waits_for_nvml(self, request: Submitted, number: int, behind: frozenset[str]) -> bool:
        """Put off what could not be read because NVML is not asked while a GPU is changed; whether it was."""
        if self._progress.under_way.shuts_nvml():
            # Whoever only wants to see a plan is in nobody's way.
            behind = frozenset() if request.dry_run else behind
            self._waiting.append(Waiting(request, number, behind=behind))
        elif not self.observations.show((NVML,), number):
            self._waiting.append(Waiting(request, self.observations.need()))
        else:
            return False
        return True

    def _operation_of_key(self, key: str | None) -> OperationStarted | None:
        """The operation of that idempotency key, among those in memory; the store knows the others."""
        if key is None:
            return None
        started = (each.started for each in self._turn.ledger.operations.values())
        return next((each for each in started if each.idempotency_key == key), None)

    def _is_behind(self, scope: frozenset[str]) -> bool:
        """Whether somebody who came earlier waits for any of these names: the turn is theirs."""
        return any(each.behind is not None and scope & each.behind for each in self._waiting)

    def _start(self, made: ShownPlan, request: Submitted, scope: frozenset[str], wishes: Wishes) -> UUID:
        """Put the documents in force, reserve the places, and begin."""
        before = self._turn.ledger.wishes
        undo: list[tuple[DocumentKey, Wish | None]] = []
        changes: list[Record] = []
        for key in sorted({*made.change.put, *made.change.drop}):
            old, new = before.get(key), wishes.documents.get(key)
            if old == new:
                continue
            undo.append((key, old))
            changes.append(WishPut(new) if new is not None else WishDropped(key))
        operation = self._planning.new_uuid()
        self._turn.record(
            OperationStarted(
                id=operation,
                kind=made.change.kind,
                subject=made.change.subject,
                requester=request.who,
                scope=tuple(sorted(scope)),
                undo=tuple(undo),
                idempotency_key=request.idempotency_key,
                asked=request.asked if request.idempotency_key is not None else None,
                forward=made.change.forward,
            )
        )
        for record in changes:
            self._turn.record(record)
        for allocation in (*made.change.adopted, *made.change.rehomed):
            self._turn.record(AllocationPut(allocation))
        self._progress.begin(operation, scope, made.plan)
        return operation

    # -- in the background ------------------------------------------------------------------------

    def _sweep(self, number: int, snapshot: Snapshot) -> dict[str, errors.VgpuctlError]:
        """Begin to restore what is not as wished, one operation per GPU; drop places left over.

        Why what is not begun is not, by name.
        """
        wishes, places = self._turn.ledger.in_force(), self._turn.ledger.allocations.values()
        missing = restore.missing(wishes, places, snapshot)
        now_s = self._turn.monotonic_s()
        filling = {str(each) for each in self._filling.note(snapshot, now_s)}
        backoff = self._progress.backoff
        backoff.forget(restore.without_driver(wishes, places, snapshot))
        if self._turn.ledger.paused:
            return dict.fromkeys(missing, _PAUSED)

        busy = self._progress.busy()

        def is_quiet(name: str) -> bool:
            is_free = name not in busy and backoff.is_over(name, now_s)
            return is_free and self.observations.show([name], number)

        for allocation in restore.leftovers(wishes, places, snapshot):
            if is_quiet(allocation.name) and not self._places.is_doubtful(allocation.id):
                self._turn.record(AllocationDropped(allocation.id, allocation.name))
        refused = restore.held_back(missing, wishes, places, snapshot, self._planning.repair)
        groups: dict[str, set[str]] = {}
        for name, gpu in missing.items():
            if name in refused:
                continue
            if gpu in filling:
                refused[name] = _FILLING
                continue
            if is_quiet(name):
                groups.setdefault(gpu, set()).add(name)
            elif name in busy:
                refused[name] = _WAITS
            elif (why := backoff.why(name)) is not None:
                refused[name] = errors.VgpuctlError.from_problem(why)
        for names in groups.values():
            refused |= self._restore(names, snapshot)
        return refused

    def _restore(self, names: set[str], snapshot: Snapshot) -> Mapping[str, errors.VgpuctlError]:
        """Begin an operation for those of the names that can be restored; why the others cannot."""
        found = self._planning.restoration(names, snapshot)
        if found.plan.steps:
            subject = min(found.names) if len(found.names) == 1 else f"{len(found.names)} vGPUs"
            self._progress.begin_for(DAEMON, "restore", subject, found.names, found.plan)
        return found.kept_out

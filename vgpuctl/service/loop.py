"""The loop around the engine: one thread that decides and commits, others that act.

A turn takes everything that has come in, lets the engine decide, commits all records in one
transaction, and only then carries out effects and answers: many requests share one fsync, and
nothing happens that the disk does not know of.
"""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import Any

import structlog

from vgpuctl import errors
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import ProfileDocument, Repair
from vgpuctl.model.record import (
    AllocationDropped,
    AllocationPut,
    DriftFound,
    DriftGone,
    Noticed,
    OperationEnded,
    OperationStarted,
    Record,
)
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import describe, subjects_of
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.hook import HookDesk
from vgpuctl.ports.host import Host
from vgpuctl.ports.store import Saved, Store
from vgpuctl.service.engine import Engine
from vgpuctl.service.ledger import Ledger, Operation
from vgpuctl.service.messages import (
    Answer,
    CancelRequested,
    Draining,
    Glimpse,
    Glimpsed,
    Input,
    LookRequested,
    Observe,
    Observed,
    PauseRequested,
    ReleaseTold,
    RunStep,
    StartAsked,
    StepDone,
    Submitted,
    SweepDue,
    Withdrawn,
)
from vgpuctl.service.planning import internal
from vgpuctl.service.threads import Threads

log = structlog.get_logger("vgpuctl.loop")

SWEEP_S = 60.0
"""Between two looks at whether all is still as wished, when no event asks for one."""
PROBE_S = 0.5
"""The same while a start waits for GPUs: not every driver tells when it is ready."""
WAKE_S = 0.1
"""After an event: others follow it, and one look serves them all."""
REST = 3.0
"""Between two looks that events ask for, in times of the last one: our own steps make events as well."""
MOST_REST_S = 5.0
BUSY_S = 2.0
"""After an event of a vGPU while steps run."""
WITHDRAW_S = 5.0
"""How long the answer to a request that is given up may take."""
REOPEN_S = 1.0
"""Between two tries to go on after the store refused a commit."""


def ledger_of(saved: Saved, file_profiles: dict[str, ProfileDocument]) -> Ledger:
    """The state that a store holds, with the operations that a killed daemon left."""
    ledger = Ledger(
        dict(saved.wishes), dict(saved.allocations), {}, saved.paused, file_profiles, dict(saved.findings)
    )
    for entry in saved.unended:
        record = entry.record
        if isinstance(record, OperationStarted):
            ledger.operations[record.id] = Operation(record, entry.at)
            continue
        key = getattr(record, "operation", None) or getattr(record, "id", None)
        if key in ledger.operations:
            ledger.operations[key].fold(record, entry.at)
    return ledger


class Loop:
    """Runs an engine over a host and a store."""

    def __init__(
        self,
        host: Host,
        store: Store,
        clock: Clock,
        catalog: Catalog,
        file_profiles: dict[str, ProfileDocument],
        *,
        repair: Repair = Repair.AUTO,
        hooks: HookDesk | None = None,
    ) -> None:
        self.repair = repair
        self._hooks = hooks
        self._is_published = False
        self._host = host
        self._store = store
        self._clock = clock
        self._catalog = catalog
        self.file_profiles = file_profiles
        self._inbox: queue.SimpleQueue[Input | None] = queue.SimpleQueue()
        self._tickets: dict[int, Future[Any]] = {}
        self._held: set[int] = set()
        """The tickets that the engine knows of; the inputs of others are still in the inbox."""
        self._ticket = 0
        self._ticket_lock = threading.Lock()
        self.changed = threading.Condition(threading.RLock())
        """Held while the state changes; notified after every commit."""
        self.revision = 0
        self._threads = Threads()
        self._in_flight = 0
        self._next_sweep = 0.0
        self._rested = 0.0
        self._is_looking = False
        self._sweep_waits = False
        """Whether a sweep became due while the host was looked at; what it is about may be newer."""
        self._stopping = False
        self._has_stopped = False
        self.is_starting = False
        """Whether somebody waits for the first restore."""
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        self.beat_s = clock.monotonic_s()
        self.store_failure: errors.StoreFailure | None = None
        """Why the last change could not be saved; None once one could."""
        """When the loop last came round; a watchdog looks at it."""
        self.engine = self._open()

    def _open(self, last: Engine | None = None) -> Engine:
        saved = self._store.load()
        self.revision = saved.revision
        return Engine(
            ledger_of(saved, self.file_profiles),
            catalog=self._catalog,
            now=self._clock.now,
            monotonic_s=self._clock.monotonic_s,
            new_uuid=uuid.uuid4,
            repair=self.repair,
            last=last,
        )

    # -- from other threads -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin; takes up what a killed daemon left, and looks at the host."""
        started = Noticed("daemon", "started", "the daemon started")
        self.revision = self._store.commit([started], self._clock.now())
        self._thread.start()
        self.wake()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Take nothing more, let the steps that run end, stop.  What is left is taken up later."""
        self._stopping = True
        self._inbox.put(Draining())
        self._thread.join(timeout_s)

    @property
    def is_stopping(self) -> bool:
        """Whether nothing new is begun any more."""
        return self._stopping

    @property
    def has_stopped(self) -> bool:
        """Whether nothing goes on any more."""
        return self._has_stopped

    def ask(self, make: Callable[[int], Input], timeout_s: float) -> Any:
        """Put an input in and wait for its answer; raises the error that it is answered with.

        What is given up after `timeout_s` is never begun: DeadlineExceeded says that nothing was done.
        """
        future: Future[Any] = Future()
        with self._ticket_lock:
            self._ticket += 1
            ticket = self._ticket
            self._tickets[ticket] = future
        if self._stopping:
            self._tickets.pop(ticket, None)
            raise _stopping()
        self._inbox.put(make(ticket))
        try:
            return future.result(timeout_s)
        except FutureTimeoutError:
            self._inbox.put(Withdrawn(ticket))
        try:
            return future.result(WITHDRAW_S)
        except FutureTimeoutError:
            self._tickets.pop(ticket, None)
            raise errors.DeadlineExceeded("the daemon does not come to it; it may still happen") from None

    def wake(self, *, by_vgpu: bool = False) -> None:
        """Something happened on the host: look soon.

        `by_vgpu`: a vGPU came or went.  While steps run it was most likely theirs, and a look at
        everything for each would only hold them up.
        """
        now = self._clock.monotonic_s()
        due = max(now + WAKE_S, self._rested)
        if by_vgpu and self._in_flight:
            due = max(due, now + BUSY_S)
        if due < self._next_sweep:
            self._next_sweep = due
            self._inbox.put(None)

    # -- the loop's own thread --------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._take_up_sweep()
            items = self._gather()
            if self._is_sweep_due():
                items.append(SweepDue())
            if items:
                try:
                    self._turn(items)
                except Exception as error:
                    log.exception("the turn failed; going on from what is on the disk")
                    failure = error if isinstance(error, errors.VgpuctlError) else internal(error)
                    if isinstance(failure, errors.StoreFailure):
                        self.store_failure = failure
                    for ticket in [*self._held]:
                        self._answer(Answer(ticket, error=failure))
                    self._reopen(failure)
            if self._stopping and self._in_flight == 0:
                for ticket in [*self._tickets]:
                    self._answer(Answer(ticket, error=_stopping()))
                with self.changed:
                    self._has_stopped = True
                    self.changed.notify_all()
                return

    def _is_sweep_due(self) -> bool:
        now = self._clock.monotonic_s()
        if now < self._next_sweep or self._stopping:
            return False
        self._next_sweep = now + (PROBE_S if self.is_starting else SWEEP_S)
        self._sweep_waits = self._is_looking
        return not self._sweep_waits

    def _take_up_sweep(self) -> None:
        """The sweep that waited for an observation, after some rest."""
        if self._sweep_waits and not self._is_looking:
            self._sweep_waits = False
            due = 0.0 if self.is_starting else self._rested
            self._next_sweep = min(self._next_sweep, due)

    def _gather(self) -> list[Input]:
        """Everything that has come in; waits for the first, or until a sweep is due."""
        self.beat_s = self._clock.monotonic_s()
        wait = max(0.0, min(self._next_sweep - self._clock.monotonic_s(), 5.0))
        items: list[Input] = []
        try:
            first = self._inbox.get(timeout=wait)
            while True:
                if first is not None:
                    items.append(first)
                    if isinstance(first, StepDone):
                        self._in_flight -= 1
                    elif isinstance(first, Observed):
                        self._is_looking = False
                first = self._inbox.get_nowait()
        except queue.Empty:
            return items

    def _turn(self, items: list[Input]) -> None:
        self._held |= {ticket for item in items if (ticket := _ticket_of(item)) is not None}
        with self.changed:
            for item in items:
                if self._stopping and isinstance(item, Submitted | StartAsked):
                    self._answer(Answer(item.ticket, error=_stopping()))
                    continue
                self.engine.handle(item)
            records, effects = self.engine.take()
            if records:
                self.store_failure = None
                self.revision = self._store.commit(records, self._clock.now())
                _tell(records)
            self.changed.notify_all()
        self._publish(records)
        for effect in effects:
            match effect:
                case Answer():
                    self._answer(effect)
                case Observe(number=number):
                    self._threads.run("observe", partial(self._observe, number))
                    self._is_looking = True
                case Glimpse():
                    self._threads.run("glimpse", partial(self._glimpse, effect))
                case RunStep():
                    self._threads.run(effect.step.lane, partial(self._step, effect))
                    self._in_flight += 1

    def _publish(self, records: list[Record]) -> None:
        """Leave for libvirt's hook, which may find no daemon, which vGPUs are ours."""
        boot_id = self.engine.observations.boot_id
        if self._hooks is None or not boot_id:
            return
        if self._is_published and not any(
            isinstance(each, AllocationPut | AllocationDropped) for each in records
        ):
            return
        self._hooks.publish(boot_id, self.engine.ledger.allocations.values())
        self._is_published = True

    def _reopen(self, failure: errors.VgpuctlError) -> None:
        """Go on from what is on the disk, once no step runs; what was decided since is forgotten."""
        is_open = False
        self._is_looking = False
        while not is_open:
            try:
                with self.changed:
                    self.engine = self._open(self.engine)
                    self.changed.notify_all()
                is_open = True
            except errors.StoreFailure:
                log.exception("the state cannot be read")
            self._clock.sleep(REOPEN_S)
            if self._stopping:
                break
        self._next_sweep = self._clock.monotonic_s() + SWEEP_S
        while self._in_flight > 0:
            # How these steps ended, the new engine reads back from the host.
            for item in self._gather():
                ticket = _ticket_of(item)
                if ticket is not None:
                    self._answer(Answer(ticket, error=failure))
        self._next_sweep = self._clock.monotonic_s()

    def _answer(self, answer: Answer) -> None:
        self._held.discard(answer.ticket)
        future = self._tickets.pop(answer.ticket, None)
        if future is None:
            return
        if answer.error is not None:
            if answer.error.code == errors.VgpuctlError.code:
                log.error("a request failed unexpectedly", exc_info=answer.error)
            future.set_exception(answer.error)
        else:
            future.set_result(answer.value)

    # -- other threads ----------------------------------------------------------------------------

    def _observe(self, number: int) -> None:
        began = self._clock.monotonic_s()

        def told(seen: Snapshot) -> Observed:
            ended = self._clock.monotonic_s()
            self._rested = ended + min(MOST_REST_S, REST * (ended - began))
            return Observed(number, seen)

        self._look_at(self._host.observe, told)

    def _glimpse(self, effect: Glimpse) -> None:
        self._look_at(partial(self._host.glimpse, effect.gpus), lambda seen: Glimpsed(effect.number, seen))

    def _look_at(self, look_at: Callable[[], Snapshot], told: Callable[[Snapshot], Input]) -> None:
        while True:
            try:
                snapshot = look_at()
            except Exception:
                # Everything waits for what it shows: without it nothing would ever go on.
                log.exception("the host could not be looked at")
                self._clock.sleep(REOPEN_S)
                if self._stopping:
                    return
            else:
                self._inbox.put(told(snapshot))
                return

    def _step(self, effect: RunStep) -> None:
        step = effect.step
        bound = log.bind(
            operation=str(effect.operation), step=describe(step.effect), **subjects_of(step.effect)
        )
        problem: dict[str, Any] | None = None
        try:
            self._host.run(step.effect)
        except errors.VgpuctlError as error:
            problem = error.to_problem()
            bound.warning("step failed", code=error.code, error=error.message)
        except Exception as error:  # noqa: BLE001 -- a lane must answer, whatever happened in it
            problem = internal(error).to_problem()
            bound.exception("step failed unexpectedly")
        else:
            bound.info("step done")
        self._inbox.put(StepDone(effect.operation, effect.round, step.number, problem))


def _stopping() -> errors.Unavailable:
    """Nothing was begun: who asks the next daemon gets an answer (vgpuctl.client.operation)."""
    return errors.Unavailable("the daemon is stopping", stopping=True)


def _tell(records: list[Record]) -> None:
    """Say in the daemon's log, too, what has ended, what is not as it should be, and what is again."""
    for record in records:
        match record:
            case OperationEnded(problem=problem):
                level = log.warning if problem else log.info
                why = {"code": problem["code"], "reason": problem.get("detail")} if problem else {}
                level("operation ended", operation=str(record.id), state=str(record.state), **why)
            case DriftFound(finding=found):
                log.warning(
                    "drift", code=found.code, subject=found.subject, gpu=found.gpu, detail=found.detail
                )
            case DriftGone():
                log.info("drift gone", code=record.code, subject=record.subject)
            case _:
                pass


def _ticket_of(item: Input) -> int | None:
    """Who waits for an answer to an input."""
    match item:
        case (
            Submitted(ticket=ticket)
            | StartAsked(ticket=ticket)
            | ReleaseTold(ticket=ticket)
            | LookRequested(ticket=ticket)
            | CancelRequested(ticket=ticket)
            | PauseRequested(ticket=ticket)
        ):
            return ticket
        case _:
            return None


def look(loop: Loop, timeout_s: float) -> None:
    """Wait for an observation that begins after now."""
    loop.ask(LookRequested, timeout_s)

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
from vgpuctl.model.document import ProfileDocument
from vgpuctl.model.record import Noticed, OperationStarted
from vgpuctl.model.step import describe
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.host import Host
from vgpuctl.ports.store import Saved, Store
from vgpuctl.service.engine import (
    Answer,
    Engine,
    Input,
    LookRequested,
    Observe,
    Observed,
    RunStep,
    StepDone,
    Submitted,
    SweepDue,
)
from vgpuctl.service.ledger import Ledger, Operation

log = structlog.get_logger("vgpuctl.loop")

SWEEP_S = 60.0
"""Between two looks at whether all is still as wished, when no event asks for one."""
WAKE_S = 0.5
"""After an event: others follow it, and one look serves them all."""
REOPEN_S = 1.0
"""Between two tries to go on after the store refused a commit."""


def ledger_of(saved: Saved, file_profiles: dict[str, ProfileDocument]) -> Ledger:
    """The state that a store holds, with the operations that a killed daemon left."""
    ledger = Ledger(dict(saved.wishes), dict(saved.allocations), {}, saved.paused, file_profiles)
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
    ) -> None:
        self._host = host
        self._store = store
        self._clock = clock
        self._catalog = catalog
        self.file_profiles = file_profiles
        self._inbox: queue.SimpleQueue[Input | None] = queue.SimpleQueue()
        self._tickets: dict[int, Future[Any]] = {}
        self._ticket = 0
        self._ticket_lock = threading.Lock()
        self.changed = threading.Condition(threading.RLock())
        """Held while the state changes; notified after every commit."""
        self.revision = 0
        self._in_flight = 0
        self._next_sweep = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)
        self.beat_s = clock.monotonic_s()
        """When the loop last came round; a watchdog looks at it."""
        self.engine = self._open()

    def _open(self) -> Engine:
        saved = self._store.load()
        self.revision = saved.revision
        return Engine(
            ledger_of(saved, self.file_profiles),
            catalog=self._catalog,
            now=self._clock.now,
            new_uuid=uuid.uuid4,
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
        self._inbox.put(None)
        self._thread.join(timeout_s)

    def ask(self, make: Callable[[int], Input], timeout_s: float | None = None) -> Any:
        """Put an input in and wait for its answer; raises the error that it is answered with."""
        future: Future[Any] = Future()
        with self._ticket_lock:
            self._ticket += 1
            ticket = self._ticket
            self._tickets[ticket] = future
        if self._stopping:
            self._tickets.pop(ticket, None)
            raise errors.Unavailable("the daemon is stopping")
        self._inbox.put(make(ticket))
        try:
            return future.result(timeout_s)
        except FutureTimeoutError:
            self._tickets.pop(ticket, None)
            raise errors.DeadlineExceeded("the host could not be observed in time") from None

    def wake(self) -> None:
        """Something happened on the host: look soon."""
        self._next_sweep = min(self._next_sweep, self._clock.monotonic_s() + WAKE_S)
        self._inbox.put(None)

    # -- the loop's own thread --------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            items = self._gather()
            self.beat_s = self._clock.monotonic_s()
            if self._stopping and self._in_flight == 0:
                self._fail_tickets(errors.Unavailable("the daemon is stopping"))
                return
            if self._clock.monotonic_s() >= self._next_sweep and not self._stopping:
                self._next_sweep = self._clock.monotonic_s() + SWEEP_S
                items.append(SweepDue())
            if items:
                try:
                    self._turn(items)
                except errors.StoreFailure as error:
                    log.exception("state could not be saved")
                    self._fail_tickets(error)
                    self._reopen()

    def _gather(self) -> list[Input]:
        """Everything that has come in; waits for the first, or until a sweep is due."""
        wait = max(0.0, min(self._next_sweep - self._clock.monotonic_s(), 5.0))
        items: list[Input] = []
        try:
            first = self._inbox.get(timeout=wait)
            while True:
                if first is not None:
                    items.append(first)
                    if isinstance(first, StepDone):
                        self._in_flight -= 1
                first = self._inbox.get_nowait()
        except queue.Empty:
            return items

    def _turn(self, items: list[Input]) -> None:
        with self.changed:
            for item in items:
                if self._stopping and isinstance(item, Submitted):
                    self._answer(Answer(item.ticket, error=errors.Unavailable("the daemon is stopping")))
                    continue
                self.engine.handle(item)
            records, effects = self.engine.take()
            if records:
                self.revision = self._store.commit(records, self._clock.now())
            self.changed.notify_all()
        for effect in effects:
            match effect:
                case Answer():
                    self._answer(effect)
                case Observe(number=number):
                    self._spawn("observe", partial(self._observe, number))
                case RunStep():
                    if self._stopping:
                        continue
                    self._in_flight += 1
                    self._spawn(effect.step.lane, partial(self._step, effect))

    def _reopen(self) -> None:
        """Go on from what is on the disk, once no step runs; what was decided since is forgotten."""
        while True:
            while self._in_flight > 0:
                self._gather()
            self._clock.sleep(REOPEN_S)
            if self._stopping:
                return
            try:
                with self.changed:
                    snapshot = self.engine.snapshot
                    self.engine = self._open()
                    self.engine.snapshot = snapshot
            except errors.StoreFailure as error:
                self._fail_tickets(error)
                continue
            self._next_sweep = self._clock.monotonic_s()
            return

    def _answer(self, answer: Answer) -> None:
        future = self._tickets.pop(answer.ticket, None)
        if future is None:
            return
        if answer.error is not None:
            future.set_exception(answer.error)
        else:
            future.set_result(answer.value)

    def _fail_tickets(self, error: errors.VgpuctlError) -> None:
        for ticket in list(self._tickets):
            self._answer(Answer(ticket, error=error))

    # -- other threads ----------------------------------------------------------------------------

    def _spawn(self, name: str, run: Callable[[], None]) -> None:
        threading.Thread(target=run, name=name, daemon=True).start()

    def _observe(self, number: int) -> None:
        self._inbox.put(Observed(number, self._host.observe()))

    def _step(self, effect: RunStep) -> None:
        step = effect.step
        kind, _, name = step.lane.partition("/")
        bound = log.bind(operation=str(effect.operation), step=describe(step.effect), **{kind: name})
        problem: dict[str, Any] | None = None
        try:
            self._host.run(step.effect)
        except errors.VgpuctlError as error:
            problem = error.to_problem()
            bound.warning("step failed", code=error.code, error=error.message)
        except Exception as error:  # noqa: BLE001 -- a lane must answer, whatever happened in it
            problem = errors.VgpuctlError(f"{type(error).__name__}: {error}").to_problem()
            bound.exception("step failed unexpectedly")
        else:
            bound.info("step done")
        self._inbox.put(StepDone(effect.operation, effect.round, step.number, problem))


def look(loop: Loop, timeout_s: float) -> None:
    """Wait for an observation that begins after now."""
    loop.ask(LookRequested, timeout_s)

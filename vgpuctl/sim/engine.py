"""The engine: runs the machine for many callers, keeps its state, and blocks those who would block."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from vgpuctl.errors import InvalidInput
from vgpuctl.ports.kernel import Uevent
from vgpuctl.sim.controls import control
from vgpuctl.sim.machine import Machine
from vgpuctl.sim.models import Models, ModelSource
from vgpuctl.sim.outcome import Operation, Outcome
from vgpuctl.sim.state import State

EVENTS_KEPT = 10_000
_POLL_S = 0.5


class Engine:
    """One simulated host in this process; callable from any thread.

    `now` is the machine's time in seconds; `save` is called with every new state, before anybody
    sees what came of it.
    """

    def __init__(
        self,
        state: State,
        source: ModelSource,
        now: Callable[[], float] = time.time,
        save: Callable[[State], None] | None = None,
    ) -> None:
        self._changed = threading.Condition()
        self._source = source
        self._now = now
        self._save = save
        self._events: deque[tuple[int, Uevent]] = deque(maxlen=EVENTS_KEPT)
        # Above every number of an engine that ran this host before: callers count on.
        self._sequence = time.time_ns() // 1_000_000
        self._install(state)

    @property
    def state(self) -> State:
        """The state now."""
        return self._state

    def install(self, state: State) -> None:
        """Put another host in the place of this one."""
        with self._changed:
            self._install(state)
            if self._save is not None:
                self._save(state)
            self._changed.notify_all()

    def _install(self, state: State) -> None:
        self._models = Models(self._source, (each.model for each in state.boards))
        self._machine = Machine(self._models)
        self._state = state

    def call(
        self,
        verb: str,
        *arguments: Any,
        timeout_s: float | None = None,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> Any:
        """Do one operation; raises OSError with the kernel's errno.

        Blocks as the kernel would: TimeoutError after `timeout_s`, and sooner when `is_gone` says
        that the caller is no longer there; what was begun goes on without it.
        """
        operation = Operation(verb, arguments)
        if self._state.slow_ms:
            time.sleep(self._state.slow_ms / 1000)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while True:
                outcome = self._machine.step(self._state, operation, self._now())
                self._accept(outcome)
                if outcome.then is None:
                    break
                operation = outcome.then
                self._wait(deadline, is_gone)
        if outcome.errno:
            raise OSError(outcome.errno, os.strerror(outcome.errno), outcome.about)
        return outcome.result

    def control(self, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do to the host what life does; raises VgpuctlError."""
        with self._changed:
            if self._state.capture is not None:
                raise InvalidInput("a replayed capture can only be read")
            outcome = control(self._state, self._models, action, arguments)
            self._accept(outcome)
        result: dict[str, Any] = outcome.result
        return result

    def events(self, since: int | None, wait_s: float) -> tuple[int, tuple[Uevent, ...]]:
        """The uevents after number `since` (None: from now on) and the last number; waits for one."""
        with self._changed:
            if since is None:
                return self._sequence, ()
            self._changed.wait_for(lambda: self._sequence > since, wait_s)
            return self._sequence, tuple(event for number, event in self._events if number > since)

    def close(self) -> None:
        """Nothing: a host in this process ends with it."""

    def _accept(self, outcome: Outcome) -> None:
        if outcome.state is self._state:
            return
        if self._save is not None:
            self._save(outcome.state)
        self._state = outcome.state
        for event in outcome.events:
            self._sequence += 1
            self._events.append((self._sequence, event))
        self._changed.notify_all()

    def _wait(self, deadline: float | None, is_gone: Callable[[], bool]) -> None:
        left = _POLL_S if deadline is None else min(_POLL_S, deadline - time.monotonic())
        if left <= 0 or is_gone():
            raise TimeoutError("blocked in the kernel")
        self._changed.wait(left)

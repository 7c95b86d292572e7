"""Calls that may never return, and somebody who does not wait for them."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_STALL_S: Final = 0.02
"""Without an answer for so long, while we do not compute either, somebody hangs or is slow."""
_MOST_STALL_S: Final = 0.25
"""The same, whatever we compute meanwhile."""


def begin(name: str, work: Callable[[], None]) -> None:
    """Have `work` done on a thread that does not keep the process alive."""
    threading.Thread(target=work, name=name, daemon=True).start()


class Hanging(Exception):
    """The call has not returned in time; or an earlier one of the same key still has not."""


class Call(Generic[T]):
    """One call, and what came of it."""

    def __init__(self, name: str, ask: Callable[[], T]) -> None:
        self.name = name
        self._ask = ask
        self._done = threading.Event()
        self._value: T | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call."""
        try:
            self._value = self._ask()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for the result
            self._error = error
        finally:
            self._done.set()

    def give_up(self) -> None:
        """End it before it was run."""
        self._error = Hanging(f"{self.name} was not asked in time")
        self._done.set()

    @property
    def hangs(self) -> bool:
        """Whether it is still under way."""
        return not self._done.is_set()

    def have_a_start(self) -> None:
        """Wait while it computes, not while it waits itself: see `Watch.each`."""
        until = time.monotonic() + _MOST_STALL_S
        while time.monotonic() < until:
            cpu_s = time.process_time()
            if self._done.wait(_STALL_S) or time.process_time() - cpu_s < _STALL_S / 2:
                return

    def result(self, deadline_s: float) -> T:
        """The value or the exception of the call; Hanging when `deadline_s` (monotonic) passes first."""
        if not self._done.wait(max(0.0, deadline_s - time.monotonic())):
            msg = f"{self.name} did not answer in time"
            raise Hanging(msg)
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # the call has ended without an error


class Watch:
    """Starts calls, at most one at a time per key: what hangs is not asked again until it returns."""

    def __init__(self) -> None:
        self._under_way: dict[str, Call[object]] = {}
        self._lock = threading.Lock()

    def hangs(self, key: str) -> bool:
        """Whether an earlier call of that key has not returned."""
        with self._lock:
            call = self._under_way.get(key)
            return call is not None and call.hangs

    def start(self, key: str, ask: Callable[[], T]) -> Call[T]:
        """Start `ask`; raises Hanging while an earlier call of the same key is still under way.

        And where no thread is to be had for it.
        """
        call = self._new(key, ask)
        try:
            begin(key, call.run)
        except RuntimeError as error:
            call.give_up()
            msg = f"{key} could not be asked: {error}"
            raise Hanging(msg) from error
        return call

    def each(self, asks: Mapping[str, Callable[[], T]], deadline_s: float) -> dict[str, Call[T] | Hanging]:
        """Make every call, or leave it at `deadline_s`; those that still hang are Hanging.

        One thread makes them one by one, and while it waits for one of them others go on with the
        rest: on a host that answers, threads would only take Python's lock from one another.
        """
        calls: dict[str, Call[T] | Hanging] = {}
        for key, ask in asks.items():
            try:
                calls[key] = self._new(key, ask)
            except Hanging as error:
                calls[key] = error
        _Crew([each for each in calls.values() if isinstance(each, Call)]).work_until(deadline_s)
        return calls

    def _new(self, key: str, ask: Callable[[], T]) -> Call[T]:
        with self._lock:
            earlier = self._under_way.get(key)
            if earlier is not None and earlier.hangs:
                msg = f"{key} has not answered since an earlier attempt"
                raise Hanging(msg)
            call = Call(key, ask)
            self._under_way[key] = call  # type: ignore[assignment]  # only its state is looked at
            return call


class _Crew(Generic[T]):
    """Threads that share out calls; there are more of them only while those that there are wait."""

    def __init__(self, calls: list[Call[T]]) -> None:
        self._waiting = deque(calls)
        self._left = len(calls)
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def work_until(self, deadline_s: float) -> None:
        """Return when all calls have ended, or at the deadline; none is begun after it."""
        idle_from = time.monotonic()
        self._hire()
        while self._left:
            cpu_s = time.process_time()
            left_s = deadline_s - time.monotonic()
            try:
                self._ended.get(timeout=max(0.0, min(_STALL_S, left_s)))
            except queue.Empty:
                if left_s <= 0:
                    break
                is_busy = time.process_time() - cpu_s > _STALL_S / 2
                if not is_busy or time.monotonic() - idle_from > _MOST_STALL_S:
                    self._hire()
                    idle_from = time.monotonic()
            else:
                self._left -= 1
                idle_from = time.monotonic()
        for call in self._rest():
            call.give_up()

    def _hire(self) -> None:
        if self._waiting:
            with contextlib.suppress(RuntimeError):  # no thread is to be had; it is tried again soon
                begin("reader", self._work)

    def _work(self) -> None:
        for call in self._rest():
            call.run()
            self._ended.put(None)

    def _rest(self) -> Iterator[Call[T]]:
        while True:
            try:
                yield self._waiting.popleft()
            except IndexError:
                return


def deadline_in(seconds: float) -> float:
    """The monotonic time `seconds` from now."""
    return time.monotonic() + seconds

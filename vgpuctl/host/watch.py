"""Calls that may never return, and somebody who does not wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Hanging(Exception):
    """The call has not returned in time; or an earlier one of the same key still has not."""


class Call(Generic[T]):
    """One call on a daemon thread of its own, so that a hung one does not keep the process alive."""

    def __init__(self, name: str, ask: Callable[[], T]) -> None:
        self.name = name
        self._ask = ask
        self._done = threading.Event()
        self._value: T | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._value = self._ask()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asks for the result
            self._error = error
        finally:
            self._done.set()

    @property
    def hangs(self) -> bool:
        """Whether it is still under way."""
        return not self._done.is_set()

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
        """Start `ask`; raises Hanging while an earlier call of the same key is still under way."""
        with self._lock:
            earlier = self._under_way.get(key)
            if earlier is not None and earlier.hangs:
                msg = f"{key} has not answered since an earlier attempt"
                raise Hanging(msg)
            call = Call(key, ask)
            self._under_way[key] = call  # type: ignore[assignment]  # only its state is looked at
            return call


def deadline_in(seconds: float) -> float:
    """The monotonic time `seconds` from now."""
    return time.monotonic() + seconds

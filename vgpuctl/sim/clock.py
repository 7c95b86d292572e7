"""Clocks of a simulated host: one that only sleeping moves."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """A clock that only `sleep` and `advance` move: tests of waiting take no time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0

    def now(self) -> datetime:
        """The time of day: the first of 2026, and what has been slept since."""
        return _EPOCH + timedelta(seconds=self.monotonic_s())

    def monotonic_s(self) -> float:
        """Seconds since the clock was made."""
        with self._lock:
            return self._seconds

    def sleep(self, seconds: float) -> None:
        """Advance by `seconds`, at once."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        with self._lock:
            self._seconds += max(0.0, seconds)

    def put_back(self, seconds: float) -> None:
        """Begin again at `seconds`, with a host that is put back as a whole."""
        with self._lock:
            self._seconds = seconds

"""Time."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall clock for records, monotonic clock for deadlines."""

    def now(self) -> datetime:
        """The time of day, with a time zone (UTC)."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that only grow."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

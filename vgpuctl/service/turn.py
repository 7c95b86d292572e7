"""One turn of the engine: what must be on the disk, and what is done and answered after that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from vgpuctl import errors
from vgpuctl.model.record import Record
from vgpuctl.service.ledger import Ledger
from vgpuctl.service.messages import Answer, EngineEffect


class Turn:
    """Collects records, which are in force at once for whoever decides next, and effects."""

    def __init__(self, ledger: Ledger, now: Callable[[], datetime], monotonic_s: Callable[[], float]) -> None:
        self.ledger = ledger
        self.now = now
        self.monotonic_s = monotonic_s
        self._records: list[Record] = []
        self._effects: list[EngineEffect] = []

    def record(self, record: Record) -> None:
        """Something is so from now on."""
        self._records.append(record)
        self.ledger.fold(record, self.now())

    def do(self, effect: EngineEffect) -> None:
        """Something is to be done once the records are on the disk."""
        self._effects.append(effect)

    def answer(self, ticket: int, value: Any) -> None:
        """Tell a ticket's owner."""
        self.do(Answer(ticket, value))

    def refuse(self, ticket: int, error: errors.VgpuctlError) -> None:
        """Tell a ticket's owner what stands against it."""
        self.do(Answer(ticket, error=error))

    def take(self) -> tuple[list[Record], list[EngineEffect]]:
        """Everything so far; the next turn begins with nothing."""
        records, effects = self._records, self._effects
        self._records, self._effects = [], []
        return records, effects

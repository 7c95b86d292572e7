"""The store: the log of everything, and the state that it adds up to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from vgpuctl.model.allocation import Allocation
from vgpuctl.model.document import DocumentKey, Wish
from vgpuctl.model.finding import Finding
from vgpuctl.model.record import LogEntry, Record


@dataclass(slots=True)
class Saved:
    """What a store holds when it is opened.

    `unended` are the entries of operations without an OperationEnded, oldest first: what a killed
    daemon was in the middle of.
    """

    revision: int = 0
    paused: bool = False
    wishes: dict[DocumentKey, Wish] = field(default_factory=dict)
    allocations: dict[UUID, Allocation] = field(default_factory=dict)
    unended: tuple[LogEntry, ...] = ()
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)


class Store(Protocol):
    """An append-only log with a revision; one writer, any number of readers."""

    def load(self) -> Saved:
        """The state as of the last commit."""
        ...

    def commit(self, records: Iterable[Record], at: datetime) -> int:
        """Append all records, or none; they are on the disk when this returns the last revision.

        Raises StoreFailure when they are not (a full disk); nothing was appended then.
        """
        ...

    def entries(self, since: int, limit: int = 1000) -> tuple[LogEntry, ...]:
        """The entries above revision `since`; raises RevisionGone when those were pruned."""
        ...

    def operation_entries(self, operation: UUID) -> tuple[LogEntry, ...]:
        """Every entry of one operation, oldest first; empty when there is none."""
        ...

    def operations(self, limit: int = 100) -> tuple[UUID, ...]:
        """The newest operations, newest first."""
        ...

    def operation_by_key(self, idempotency_key: str) -> UUID | None:
        """The operation that was started with that idempotency key."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...

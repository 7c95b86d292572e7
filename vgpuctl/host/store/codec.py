"""Records to rows of the log and back.

The kinds and the JSON belong to the schema: whoever changes one so that an old row no longer reads
writes a migration.  A record of a kind that only a newer vgpuctl knows reads as a Noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vgpuctl.model import codec
from vgpuctl.model.record import (
    AllocationDropped,
    AllocationPut,
    DriftFound,
    DriftGone,
    LogEntry,
    Noticed,
    OperationEnded,
    OperationRollingBack,
    OperationStarted,
    PauseSet,
    Record,
    StepEnded,
    StepStarted,
    WishDropped,
    WishPut,
)

KINDS: dict[str, type] = {
    "wish-put": WishPut,
    "wish-dropped": WishDropped,
    "allocation-put": AllocationPut,
    "allocation-dropped": AllocationDropped,
    "operation-started": OperationStarted,
    "step-started": StepStarted,
    "step-ended": StepEnded,
    "operation-rolling-back": OperationRollingBack,
    "operation-ended": OperationEnded,
    "pause-set": PauseSet,
    "noticed": Noticed,
    "drift-found": DriftFound,
    "drift-gone": DriftGone,
}
_NAMES = {kind: name for name, kind in KINDS.items()}

UNREADABLE = "unreadable-record"
"""The `kind` of the Noticed that stands for a record which this version cannot read."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record as the log's columns."""

    kind: str
    operation: str | None
    subject: str
    body: str


def row_of(record: Record) -> Row:
    """The columns of `record`; TypeError or ValueError when it cannot be written."""
    kind = type(record)
    operation, subject = _labels(record)
    return Row(_NAMES[kind], operation, _printable(subject), codec.dumps(record, kind))


def record_of(kind: str, body: str) -> Record:
    """The record of a row; raises codec.DecodeError where this version cannot read it."""
    if kind not in KINDS:
        msg = f"record kind {kind!r} is not known here"
        raise codec.DecodeError(msg)
    record: Record = codec.loads(body, KINDS[kind])
    return record


def entry_of(row: tuple[Any, ...], *, strict: bool = False) -> LogEntry:
    """The entry of a row (revision, at, kind, subject, body).

    A record that this version cannot read becomes a Noticed; with `strict`, a codec.DecodeError.
    """
    revision, at, kind, subject, body = row
    try:
        record = record_of(kind, body)
    except codec.DecodeError as error:
        if strict:
            raise
        record = Noticed(subject, UNREADABLE, f"a {kind} record that this version cannot read: {error}")
    return LogEntry(revision, time_of(at), record)


def text_of(at: datetime) -> str:
    """A time as RFC 3339 text in UTC, which sorts as the times do."""
    text: str = codec.encode(at, datetime)
    return text


def time_of(text: str) -> datetime:
    """The time that `text_of` wrote."""
    at: datetime = codec.decode(text, datetime)
    return at


def _labels(record: Record) -> tuple[str | None, str]:
    """The operation that a record belongs to, and what it is about, for people who read the log."""
    match record:
        case WishPut(wish):
            return None, str(wish.key)
        case WishDropped(key):
            return None, str(key)
        case AllocationPut(allocation):
            return None, allocation.name
        case AllocationDropped(id=id_):
            return None, str(id_)
        case OperationStarted():
            return str(record.id), record.subject
        case StepStarted():
            return str(record.operation), record.step.lane
        case StepEnded():
            return str(record.operation), f"step {record.number}"
        case OperationRollingBack() | OperationEnded():
            return str(record.id), ""
        case PauseSet():
            return None, ""
        case DriftFound(finding):
            return None, finding.subject
        case Noticed() | DriftGone():
            return None, record.subject


def _printable(text: str) -> str:
    """Text that SQLite takes: file names from the kernel may hold bytes that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

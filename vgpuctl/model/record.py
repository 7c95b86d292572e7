"""Records: the closed union of what the log holds.  State is what the records add up to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Union
from uuid import UUID

from vgpuctl.model.allocation import Allocation
from vgpuctl.model.document import DocumentKey, Wish
from vgpuctl.model.finding import Finding
from vgpuctl.model.step import Step


class OperationState(StrEnum):
    """How far an operation is."""

    RUNNING = "running"
    ROLLING_BACK = "rolling-back"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Failed; what it had done was undone, but for an operation that only mends, which keeps it."""
    CANCELLED = "cancelled"
    NEEDS_OPERATOR = "needs-operator"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (OperationState.RUNNING, OperationState.ROLLING_BACK)


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asked: a local user known by SO_PEERCRED, or the daemon itself (uid None)."""

    uid: int | None
    pid: int | None
    name: str

    @property
    def is_user(self) -> bool:
        """Whether somebody asked through the API."""
        return self.uid is not None


DAEMON = Requester(uid=None, pid=None, name="vgpuctl")
LIBVIRT = Requester(uid=None, pid=None, name="libvirt")
"""A domain is being started, and its hook asks for what it needs."""


@dataclass(frozen=True, slots=True)
class WishPut:
    """A document is in force from now on."""

    wish: Wish


@dataclass(frozen=True, slots=True)
class WishDropped:
    """A document is no longer in force."""

    key: DocumentKey


@dataclass(frozen=True, slots=True)
class AllocationPut:
    """A wish has this place from now on."""

    allocation: Allocation


@dataclass(frozen=True, slots=True)
class AllocationDropped:
    """A place is free again; whose it was, entries of the first versions do not say."""

    id: UUID
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationStarted:
    """An operation was admitted.  `undo` are the wishes that it replaced (None: was not there)."""

    id: UUID
    kind: str
    subject: str
    requester: Requester
    scope: tuple[str, ...]
    undo: tuple[tuple[DocumentKey, Wish | None], ...]
    idempotency_key: str | None = None
    asked: str | None = None
    """A hash of what was asked for with that key."""
    forward: bool = False
    """Whether it is never undone: what it could not do stays told as drift."""


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A Step is about to be done: written, and on the disk, before the host is touched."""

    operation: UUID
    round: int
    step: Step
    boot_id: str


@dataclass(frozen=True, slots=True)
class StepEnded:
    """A Step is done and was read back; or it failed with `problem`."""

    operation: UUID
    round: int
    number: int
    problem: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class OperationRollingBack:
    """The operation failed; the previous wishes are in force again and are planned towards."""

    id: UUID
    problem: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OperationEnded:
    """The operation has ended."""

    id: UUID
    state: OperationState
    problem: dict[str, Any] | None
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PauseSet:
    """Background changes stop, or go on; who wanted it, entries of the first versions do not say."""

    paused: bool
    requester: Requester | None = None


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something happened on the host that nobody asked us for."""

    subject: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class DriftFound:
    """Something is not as it should be since then; again when another uses it."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class DriftGone:
    """It is as it should be again, or no longer there."""

    code: str
    subject: str


Record = Union[
    WishPut,
    WishDropped,
    AllocationPut,
    AllocationDropped,
    OperationStarted,
    StepStarted,
    StepEnded,
    OperationRollingBack,
    OperationEnded,
    PauseSet,
    Noticed,
    DriftFound,
    DriftGone,
]


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A record in the log: its revision, its time, and the record."""

    revision: int
    at: datetime
    record: Record

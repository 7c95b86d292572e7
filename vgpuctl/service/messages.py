"""What goes into the engine, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Union
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model import codec
from vgpuctl.model.edit import Edit
from vgpuctl.model.fact import Fact
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.record import Requester
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.start import DomainRelease, DomainStart
from vgpuctl.model.step import Step


@dataclass(frozen=True, slots=True)
class Submitted:
    """Somebody asks for an edit: to be shown (`dry_run`), or to be carried out.

    With `plan_id`, exactly the plan that was shown under that id, or PlanStale.
    """

    ticket: int
    who: Requester
    edit: Edit | None
    plan_id: str | None = None
    dry_run: bool = False
    idempotency_key: str | None = None

    @property
    def asked(self) -> str:
        """A hash of what is asked for, whoever asks and however."""
        text = codec.dumps(self.edit, Edit | None) + (self.plan_id or "")
        return sha256(text.encode()).hexdigest()

    def check_asked(self, before: str | None) -> None:
        """Refuse where what was asked for with this key before is something else."""
        if before not in (None, self.asked):
            raise errors.IdempotencyKeyReused(
                f"idempotency key {self.idempotency_key!r} was used for another request",
                hint="take a new key for each request, and the same one only to ask again",
            )


@dataclass(frozen=True, slots=True)
class LookRequested:
    """Somebody wants a snapshot that began after now."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Observed:
    """The observation of that number has come in."""

    number: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step has ended; `problem` is None when it was carried out and read back."""

    operation: UUID
    round: int
    number: int
    problem: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants an operation stopped and undone."""

    ticket: int
    operation: UUID
    requester: Requester


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """Background changes shall stop, or go on."""

    ticket: int
    paused: bool
    requester: Requester


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Whoever has that ticket waits no longer: what was not begun for it never is."""

    ticket: int


@dataclass(frozen=True, slots=True)
class SweepDue:
    """Time, or an event, to see whether everything is still as wished."""


@dataclass(frozen=True, slots=True)
class Draining:
    """The daemon is about to end: no further step begins."""


@dataclass(frozen=True, slots=True)
class StartAsked:
    """libvirt's hook asks whether a domain may start; libvirt does not answer anything until it has.

    `starts` are the tokens of the starts whose end the hook has not noted, by the domain's UUID.
    """

    ticket: int
    start: DomainStart
    starts: Fact[Mapping[UUID, str]]


@dataclass(frozen=True, slots=True)
class ReleaseTold:
    """libvirt's hook tells that a domain has ended."""

    ticket: int
    release: DomainRelease


@dataclass(frozen=True, slots=True)
class Glimpsed:
    """What the kernel alone shows of some GPUs; the answer to Glimpse."""

    number: int
    snapshot: Snapshot


Input = Union[
    Submitted,
    StartAsked,
    ReleaseTold,
    Glimpsed,
    LookRequested,
    Observed,
    StepDone,
    CancelRequested,
    PauseRequested,
    Withdrawn,
    SweepDue,
    Draining,
]


@dataclass(frozen=True, slots=True)
class Observe:
    """Look at the host, and answer with Observed."""

    number: int


@dataclass(frozen=True, slots=True)
class Glimpse:
    """Look at those GPUs without libvirt, which waits for us, and answer with Glimpsed."""

    number: int
    gpus: frozenset[GpuAddress]


@dataclass(frozen=True, slots=True)
class RunStep:
    """Carry out a step in its lane, and answer with StepDone."""

    operation: UUID
    round: int
    step: Step


@dataclass(frozen=True, slots=True)
class Answer:
    """What a ticket's owner gets: a value, or an error to raise."""

    ticket: int
    value: Any = None
    error: errors.VgpuctlError | None = None


EngineEffect = Union[Observe, Glimpse, RunStep, Answer]

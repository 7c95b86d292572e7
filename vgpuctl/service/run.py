"""What is in memory of operations that run or wait, and not in the log."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from vgpuctl.model.allocation import Allocation
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.step import CreateVgpu, Lane, Step
from vgpuctl.service.messages import Submitted


@dataclass(slots=True)
class Waiting:
    """A request that waits for an observation, or for another operation to end."""

    request: Submitted
    observation: int
    behind: frozenset[str] | None = None
    """The names for which it waits its turn; None while it only waits for the observation."""


@dataclass(slots=True)
class Run:
    """What is in memory of a running operation and not in the log."""

    operation: UUID
    scope: frozenset[str]
    round: int
    pending: dict[int, Step] = field(default_factory=dict)
    running: dict[int, Step] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    incomplete: bool = False
    awaits: int | None = None
    is_in_doubt: bool = False
    is_parked: bool = False
    """Whether it waits for the next sweep, because something could not be read."""
    patience_ends_s: float | None = None
    failure: dict[str, Any] | None = None
    leftovers: dict[str, Any] | None = None
    held_back: dict[str, Any] | None = None
    """Why an operation without a way back goes no further; whatever else is cancelled is undone."""
    is_undoing: bool = False
    """Whether a plan back to the previous wishes was made."""
    changed: bool = False
    retries: int = 0
    avoid: set[GpuAddress] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    fresh: set[UUID] = field(default_factory=set)
    """Allocations that this operation made: only these may be made anew elsewhere."""
    is_start: bool = False
    """Whether libvirt waits for it, with a domain locked."""

    def lane_of(self, step: Step) -> Lane:
        """The lane of a step; those of a start have lanes of their own beside their GPU's.

        A step in a GPU's lane may ask libvirt, which waits for the start.
        """
        return f"{step.lane}/start/{self.operation}/{step.number}" if self.is_start else step.lane


@dataclass(frozen=True, slots=True)
class Doubt:
    """A creation of which it is not known whether it happened; the observation will tell."""

    operation: UUID
    effect: CreateVgpu
    boot_id: str
    observation: int
    is_fresh: bool


def claimed(allocation: Allocation, effect: CreateVgpu, boot_id: str) -> Allocation:
    """The allocation once its vGPU stands where the step made it."""
    return replace(
        allocation, parent=effect.parent, framework=effect.framework, created_boot=boot_id, lost=False
    )

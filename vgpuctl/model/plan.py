"""A plan: what has to be done so that what is becomes what should be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vgpuctl.errors import FactUnknown, VgpuctlError
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.document import ComputeWish
from vgpuctl.model.mig import Layout
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.step import Step


class Verdict(StrEnum):
    """Whether what is and what should be agree."""

    MATCH = "match"
    DRIFT = "drift"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Problem:
    """A wish that this plan cannot fulfil, and why.  `subject` is a vGPU's or a domain's name."""

    subject: str
    error: VgpuctlError

    @property
    def is_unknown(self) -> bool:
        """Whether the wish is blocked by something that could not be read."""
        return self.error.code in {"fact-unknown", "libvirt-unreachable"}

    @property
    def may_be_unknown(self) -> bool:
        """Whether it might be none if more could be read: a GPU that nobody can judge may have room."""
        passed_over = self.error.facts.get("gpus", ())
        return self.is_unknown or any(each["code"] == FactUnknown.code for each in passed_over)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuLayout:
    """What a plan makes of a card's GPU instances, on its axis of `slices` memory slices.

    `compute` are the compute instances that a document asks for.
    `from_hardware` says whether the driver named the placements, or (while MIG is off) the catalogue.
    """

    gpu: GpuAddress
    slices: int
    layout: Layout
    from_hardware: bool
    compute: tuple[ComputeWish, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps, the allocations that they are made for, and what stands in the way.

    `incomplete` says that the steps lead to a host which has to be observed before the rest can be
    planned (VFs that are turned on show their types only then).
    """

    steps: tuple[Step, ...] = ()
    allocate: tuple[Allocation, ...] = ()
    release: tuple[Allocation, ...] = ()
    problems: tuple[Problem, ...] = ()
    incomplete: bool = False
    layouts: tuple[GpuLayout, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """MATCH when there is nothing to do; UNKNOWN when something could not be read."""
        if any(problem.is_unknown for problem in self.problems):
            return Verdict.UNKNOWN
        if self.steps or self.problems or self.release:
            return Verdict.DRIFT
        return Verdict.MATCH

    @property
    def is_unread(self) -> bool:
        """Whether nothing stands in the way but what could not be read."""
        return bool(self.problems) and all(problem.is_unknown for problem in self.problems)

    @property
    def may_be_unread(self) -> bool:
        """Whether nothing would perhaps stand in the way if more could be read."""
        return bool(self.problems) and all(problem.may_be_unknown for problem in self.problems)

    @property
    def touches(self) -> tuple[str, ...]:
        """The domains whose running guest would notice."""
        return tuple(sorted({name for step in self.steps for name in step.touches}))

"""Starts of domains: what libvirt's hook asks, decided without anything that waits for libvirt.

libvirt holds the domain while its hook waits for us, and whoever lists domains waits for that.  Hence a
start is judged by a glimpse of the kernel, its steps run beside the lanes, and it waits for no operation
that has a step which asks libvirt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.allocation import Allocation, Hold
from vgpuctl.model.record import LIBVIRT, AllocationPut, Noticed
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.start import DomainRelease, DomainStart, hold_of, hold_seen, is_ended_by
from vgpuctl.service.glimpses import Glimpses
from vgpuctl.service.messages import StartAsked
from vgpuctl.service.observations import Observations
from vgpuctl.service.planning import Planning
from vgpuctl.service.progress import Progress
from vgpuctl.service.startcheck import AGAIN, StartCheck
from vgpuctl.service.turn import Turn


@dataclass(slots=True)
class _Asked:
    """A start that has no answer yet.

    It waits for a glimpse that begins after it came, then perhaps for the operation that makes what is
    missing, or for `coming`, which somebody else is making.
    """

    request: StartAsked
    glimpse: int | None = None
    operation: UUID | None = None
    coming: frozenset[str] = frozenset()
    places: tuple[Allocation, ...] = ()

    @property
    def start(self) -> DomainStart:
        return self.request.start


class Starts:
    """Every start that libvirt waits for, and the holds that follow from them."""

    def __init__(
        self,
        turn: Turn,
        observations: Observations,
        planning: Planning,
        progress: Progress,
        *,
        last: Starts | None,
    ) -> None:
        self._turn = turn
        self._observations = observations
        self._progress = progress
        self._check = StartCheck(turn, observations, planning, progress)
        self.glimpses: Glimpses = Glimpses(turn, observations, last.glimpses if last is not None else None)
        self._asked: list[_Asked] = []

    @property
    def is_idle(self) -> bool:
        """Whether libvirt waits for nothing."""
        return not self._asked

    # -- what comes in ----------------------------------------------------------------------------

    def ask(self, request: StartAsked) -> None:
        """A domain wants to start."""
        self._asked.append(_Asked(request))
        self._look()

    def withdraw(self, ticket: int) -> bool:
        """The hook has given up: whatever is still made for that start, the domain does not hold.

        False where no start has that ticket.
        """
        rest = [each for each in self._asked if each.request.ticket != ticket]
        is_one, self._asked = len(rest) < len(self._asked), rest
        return is_one

    def release(self, ticket: int, release: DomainRelease) -> None:
        """A domain has let go: end the holds of that very start."""
        for allocation in [self._turn.ledger.allocations.get(each) for each in release.vgpus]:
            if allocation is None or not is_ended_by(allocation, release, self.glimpses.boot_id):
                continue
            assert allocation.hold is not None
            hold = replace(allocation.hold, saved=True) if release.saved else None
            self._put(allocation, hold)
        self._turn.answer(ticket, None)

    def glimpsed(self, number: int, snapshot: Snapshot) -> None:
        """Judge the starts that waited for this glimpse."""
        seen = self.glimpses.came_in(number, snapshot)
        if seen is None:
            return
        for each in [*self._asked]:
            if each.glimpse is not None and each.glimpse <= number:
                each.glimpse = None
                self._judge(each, seen)
        self._look()

    def go_on(self) -> None:
        """After every input: answer those whose vGPUs were made, or could not be."""
        for each in [*self._asked]:
            if each.operation is not None:
                self._operation_of(each, each.operation)
            elif each.coming and each.coming != self._progress.under_way.coming(each.coming):
                each.coming = frozenset()
        self._look()

    def observed(self, number: int, snapshot: Snapshot) -> None:
        """End the holds that are none any more, by what libvirt shows; it is no start that it shows."""
        waiting = {vgpu.vgpu for each in self._asked for vgpu in each.start.vgpus}
        for allocation in list(self._turn.ledger.allocations.values()):
            if allocation.hold is None or allocation.id in waiting:
                continue
            if not self._observations.show([_mark(allocation.id)], number):
                continue
            hold = hold_seen(allocation, snapshot)
            if hold != allocation.hold:
                self._put(allocation, hold)

    # -- judging ----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Glimpse at the GPUs of every start that waits for it."""
        waiting = [each for each in self._asked if each.operation is None and not each.coming]
        if waiting and not self.glimpses.under_way:
            number = self.glimpses.begin(vgpu for each in waiting for vgpu in each.start.vgpus)
            for each in waiting:
                each.glimpse = number

    def _judge(self, asked: _Asked, seen: Snapshot) -> None:
        try:
            places, missing = self._check.places(asked.start, asked.request.starts, seen)
            if missing:
                self._make(asked, places, missing, seen)
            else:
                self._allow(asked, places)
        except errors.VgpuctlError as error:
            self._refuse(asked, error)

    def _make(self, asked: _Asked, places: list[Allocation], missing: frozenset[str], seen: Snapshot) -> None:
        """Begin the operation that makes the missing vGPUs; wait where somebody else does so already."""
        busy = missing & self._progress.busy()
        if busy:
            coming = self._progress.under_way.coming(busy)
            if coming != busy:
                name = min(busy - coming)
                raise errors.Conflict(f"vGPU {name} is not there yet: an operation works on it", hint=AGAIN)
            asked.coming = coming
            return
        result = self._check.plan(places, missing, seen)
        asked.places = tuple(places)
        asked.operation = self._progress.begin_for(LIBVIRT, "start", asked.start.domain, missing, result)

    def _operation_of(self, asked: _Asked, operation: UUID) -> None:
        """Answer a start whose operation has ended, or has failed and still cleans up."""
        problem = self._progress.failure(operation)
        if problem is not None:
            self._refuse(asked, errors.VgpuctlError.from_problem(problem))
        elif not self._progress.runs(operation):
            places = [self._turn.ledger.allocations.get(each.id, each) for each in asked.places]
            try:
                for each in places:
                    # Of several vGPUs those that were there may have been taken meanwhile.
                    self._check.holder(each, asked.start, asked.request.starts, self.glimpses.boot_id)
            except errors.VgpuBusy as error:
                self._refuse(asked, error)
            else:
                self._allow(asked, places)

    # -- answers ----------------------------------------------------------------------------------

    def _allow(self, asked: _Asked, places: list[Allocation]) -> None:
        """Let the domain start; from now on it holds its vGPUs."""
        self._asked.remove(asked)
        for allocation in places:
            self._put(allocation, hold_of(asked.start, allocation, self.glimpses.boot_id))
        self._turn.answer(asked.request.ticket, None)

    def _refuse(self, asked: _Asked, error: errors.VgpuctlError) -> None:
        self._asked.remove(asked)
        self._turn.record(Noticed(asked.start.domain, "start-refused", f"may not start: {error.message}"))
        self._turn.refuse(asked.request.ticket, error)

    def _put(self, allocation: Allocation, hold: Hold | None) -> None:
        self._turn.record(AllocationPut(replace(allocation, hold=hold)))
        self._observations.note_change([_mark(allocation.id)])


def _mark(vgpu: UUID) -> str:
    """The name under which changes of a hold are noted, beside those of vGPUs and documents."""
    return f"hold/{vgpu}"

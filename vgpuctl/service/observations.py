"""Observations: which one is under way, and what the one that came in can be believed to show."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from vgpuctl.model.fact import Unknown
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import Lane
from vgpuctl.service.messages import Observe
from vgpuctl.service.turn import Turn


class Observations:
    """At most one at a time; each has a number, and shows what was done before it began.

    `lanes` are those in which a step runs; `last` is what an engine that was given up had.
    """

    def __init__(self, turn: Turn, lanes: Collection[Lane], last: Observations | None) -> None:
        self._turn = turn
        self._lanes = lanes
        # One that the last engine began shows what was before: its number must not pass.
        self.number: int = last.number if last is not None else 0
        self.latest: Snapshot | None = last.latest if last is not None else None
        self.under_way = False
        self._again = False
        self._stirred: set[Lane] = set()
        self._torn: set[Lane] = set()
        self._fresh_from: dict[str, int] = {}

    @property
    def boot_id(self) -> str:
        """The boot that was last seen."""
        return self.latest.boot_id if self.latest is not None else ""

    def need(self) -> int:
        """The number of an observation that begins after now; begins it unless one is under way."""
        if self.under_way:
            self._again = True
            return self.number + 1
        self.under_way = True
        self._stirred = set(self._lanes)
        self.number += 1
        self._turn.do(Observe(self.number))
        return self.number

    def stir(self, lane: Lane) -> None:
        """A step begins there: what is being observed may be torn."""
        self._stirred.add(lane)

    def note_change(self, names: Iterable[str]) -> None:
        """Those have changed now: what is being observed may show them as they were."""
        if self.under_way:
            self._fresh_from |= dict.fromkeys(names, self.number + 1)

    def show(self, names: Iterable[str], number: int) -> bool:
        """Whether an observation began after the last change of any of those names."""
        return all(self._fresh_from.get(name, 0) <= number for name in names)

    def is_whole(self, lane: Lane) -> bool:
        """Whether no step ran in that lane while the latest one was made."""
        return lane not in self._torn

    def changed_lanes(self) -> frozenset[Lane]:
        """The GPUs from which a vGPU has gone since the observation under way began."""
        return frozenset(name for name in self._fresh_from if name.startswith("gpu/"))

    def came_in(self, number: int, snapshot: Snapshot) -> Snapshot | None:
        """The snapshot as far as it can be believed; None for one that nobody here asked for."""
        if number != self.number or not self.under_way:
            return None
        self.latest = self._quietened(snapshot)
        self._fresh_from = {name: first for name, first in self._fresh_from.items() if first > number}
        self.under_way = False
        if self._again:
            self._again = False
            self.need()
        return self.latest

    def _quietened(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot without what may be torn: a card that changed while it was read.

        Which vGPUs exist is read file by file and joined with our allocations; what else would be
        creatable is true only of one moment.
        """
        torn = Unknown("the card changed while it was read")
        stirred = self._torn = {lane.partition("/start/")[0] for lane in self._stirred}
        gpus = tuple(
            replace(gpu, creatable=torn) if f"gpu/{gpu.address}" in stirred else gpu for gpu in snapshot.gpus
        )
        return replace(snapshot, gpus=gpus)

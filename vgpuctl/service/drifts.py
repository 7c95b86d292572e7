"""Drift as it comes and goes: told once when it appears, and once when it is gone."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from vgpuctl.model.drift import is_unread
from vgpuctl.model.finding import Drift, Finding
from vgpuctl.model.record import DriftFound, DriftGone
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import Lane
from vgpuctl.service.observations import Observations
from vgpuctl.service.turn import Turn


class Drifts:
    """Compares what is found with what was told.  `lanes` are those in which a step runs."""

    def __init__(self, turn: Turn, observations: Observations, lanes: Collection[Lane]) -> None:
        self._turn = turn
        self._observations = observations
        self._lanes = lanes

    def remembered(self, finding: Finding) -> Finding:
        """The finding with when it was first seen, and who was last seen to use it."""
        before = self._turn.ledger.findings.get(finding.key)
        if before is None:
            return finding
        return replace(finding, since=before.since, user=finding.user or before.user)

    def note(self, number: int, snapshot: Snapshot, found: Iterable[Finding], busy: frozenset[str]) -> None:
        """Record what is new and what is gone; what is being worked on stays as it was told."""
        now = {each.key: each for each in found}
        told = self._turn.ledger.findings
        for key, finding in now.items():
            before = told.get(key)
            if before is not None and (before.user, before.names) == (finding.user, finding.names):
                continue
            if self._is_settled(finding, number, busy):
                self._turn.record(DriftFound(replace(finding, since=finding.since or snapshot.taken_at)))
        for key, before in list(told.items()):
            if key not in now and self._is_settled(before, number, busy) and not is_unread(before, snapshot):
                self._turn.record(DriftGone(before.code, before.subject))

    def _is_settled(self, finding: Finding, number: int, busy: frozenset[str]) -> bool:
        names = {finding.subject, *finding.names}
        lane = f"gpu/{finding.gpu}"
        if finding.code is Drift.FOREIGN_VGPU and lane in self._lanes:
            return False  # it may be one of ours that comes or goes just now
        return not names & busy and self._observations.show([*names, lane], number)

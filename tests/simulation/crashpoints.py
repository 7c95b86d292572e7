"""A daemon killed at any point leaves a host that the next daemon makes right (ADR 2).

A scenario runs once to count its points: before and after every commit, step and call that changes the
host, inside a commit, and inside the calls that take long.  Then it runs once for each point, is killed
there, and another daemon starts on what is left.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation.coverage import STEPS, listed
from tests.simulation.ground import put_disk_under
from tests.simulation.scenarios import CARDS, SCENARIOS, TYPES, Names, Scenario
from tests.support.stage import LOG, Daemon, Fuse, Saved, Stage, faults_of, one_life
from tests.support.world import WHO
from vgpuctl import errors
from vgpuctl.model.document import Document
from vgpuctl.model.edit import ApplyDocuments, PruneVgpus, RepairDrift
from vgpuctl.model.record import OperationState
from vgpuctl.model.step import (
    GPU_WIDE,
    RemoveVgpu,
    SetMigMode,
    SetVfs,
)
from vgpuctl.ports.nvml import SetMode
from vgpuctl.service.ledger import Operation
from vgpuctl.service.messages import CancelRequested

MOMENTS = ("begun", "looked", "inside", "written", "ended")
"""Of a step: in the log; about to write; in a write that takes long; written; done.

Of a commit: before, between its records, after.
"""
_ROWS = {LOG: "a commit", **dict.fromkeys(STEPS)}


def moment_of(point: str, step: str) -> str:
    """The column of a point."""
    when, _, what = point.partition(" ")
    if when == "inside":
        return "inside"
    if what in (step, "commit"):
        return "begun" if when == "before" else "ended"
    return "looked" if when == "before" else "written"


class CrashMatrix:
    """How many kills there were in each cell, a step and a moment, and how many left something wrong."""

    def __init__(self) -> None:
        self.cells: Counter[tuple[str, str]] = Counter()
        self.by_scenario: Counter[str] = Counter()

    def count(self, scenario: str, fuse: Fuse, number: int) -> None:
        """A kill at that point."""
        step = fuse.steps[number]
        self.cells[step, moment_of(fuse.names[number], step)] += 1
        self.by_scenario[scenario] += 1

    def table(self) -> list[str]:
        """The matrix, 80 columns wide, with what is empty and why."""
        lines = [f"{'killed while':<22}" + "".join(f"{each:>9}" for each in (*MOMENTS, "in all"))]
        empty, cannot = [], []
        for step, label in _ROWS.items():
            cells = [self.cells[step, each] for each in MOMENTS]
            shown = []
            for moment, count in zip(MOMENTS, cells, strict=True):
                reason = why_not(step, moment)
                if count or reason is None:
                    shown.append(str(count) if count else "-")
                    empty += [] if count else [f"{step}/{moment}"]
                else:
                    shown.append(".")
                    cannot.append(f"  {step}/{moment}: {reason}")
            numbers = "".join(f"{each:>9}" for each in (*shown, sum(cells)))
            lines.append(f"{label or step:<22}{numbers}")
        lines += ["", f"{len(cannot)} cells cannot be (.):", *cannot, f"{len(empty)} empty (-)"]
        return lines + (listed("empty", empty) if empty else [])


def why_not(step: str, moment: str) -> str | None:
    """Why nothing can be killed in that cell."""
    if step == LOG and moment in ("looked", "written"):
        return "a commit is one write"
    long = (LOG, SetVfs.__name__, SetMigMode.__name__, RemoveVgpu.__name__)
    if moment == "inside" and step not in long:
        is_nvml = step in [each.__name__ for each in GPU_WIDE]
        return f"one {'call of NVML' if is_nvml else 'write'}, which is done or is not"
    return None


def put_inside(stage: Stage) -> None:
    """What the calls that take long leave when the daemon dies in them."""
    kernel = stage.sim.kernel

    def sriov_manage(address: str, **more: Any) -> Mapping[str, Callable[[], object]]:
        def half_way() -> None:
            stage.sim.control("fail", {"what": "sriov-manage", "gpu": address, "count": 1})
            kernel.sriov_manage(address, **more)

        return {
            "inside sriov-manage, which dies too": half_way,
            "inside sriov-manage, which goes on": lambda: kernel.sriov_manage(address, **more),
        }

    def write(path: str, text: str, *_args: Any) -> Mapping[str, Callable[[], object]]:
        is_removal = path.endswith("/remove") or (path.endswith("/current_vgpu_type") and text == "0")
        if not is_removal:
            return {}
        what = {"vgpu": path.split("/")[-2]} if path.endswith("/remove") else {"parent": path.split("/")[-3]}

        def held() -> None:
            stage.sim.control("hold", what)
            with contextlib.suppress(OSError):
                kernel.write_abandonable(path, text, 1.0)

        return {"inside a removal, which waits for who holds it": held}

    def order(order: Any, _timeout_s: float) -> Mapping[str, Callable[[], object]]:
        if not isinstance(order, SetMode):
            return {}
        gpu = str(order.gpu)

        def pending() -> None:
            stage.sim.control("hold", {"parent": gpu})
            with contextlib.suppress(errors.VgpuctlError):
                stage.sim.control("mig", {"gpu": gpu, "enabled": order.enabled})
            stage.sim.control("release", {"parent": gpu})

        return {"inside MIG mode, which stays pending": pending}

    stage.kernel.inside = {"sriov_manage": sriov_manage, "write_abandonable": write}
    stage.nvml.inside = {"order": order}


@dataclass
class Play:
    """A scenario on a stage, again and again."""

    stage: Stage
    scenario: Scenario
    names: Names
    saved: Saved = field(init=False)
    before: tuple[Document, ...] = ()
    target: tuple[Document, ...] = ()

    def prepare(self) -> None:
        """Find out what it comes to when nothing is killed."""
        daemon = Daemon(self.stage)
        for edit in self.scenario.before(self.names):
            assert daemon.do(edit).state is OperationState.SUCCEEDED
        self.before = daemon.documents()
        daemon.close()
        self.scenario.arrange(self.stage, self.names)
        daemon = Daemon(self.stage)
        self.before = daemon.documents()
        daemon.close()
        self.saved = self.stage.save()
        daemon = Daemon(self.stage)
        if self.scenario.edit is not None:
            assert daemon.do(self.scenario.edit(self.names)).state is OperationState.SUCCEEDED
        self.target = daemon.documents()
        daemon.close()

    def act(self, fuse: Fuse) -> None:
        """One daemon's life, up to its death where the fuse blows."""
        self.stage.restore(self.saved)
        self.scenario.trouble(self.stage)
        with one_life(self.stage, fuse) as daemon:
            put_disk_under(daemon, lambda: fuse.point("inside commit"))
            daemon.turn(self.scenario.input(daemon, self.names))
            if self.scenario.cancel:
                while 1 not in daemon.answers:
                    daemon.turn(daemon.perform(daemon.effects.pop(0)))
                daemon.turn(CancelRequested(2, daemon.answers[1].value, WHO))

    def go_on(self) -> list[str]:
        """The next daemon's life, with every fault over, and what is wrong after it."""
        self.stage.sim.control("heal", {})
        daemon = Daemon(self.stage)
        try:
            daemon.settle()
            operations = daemon.operations()
            needs_a_person = self._person(daemon)
            if self.scenario.again and self.scenario.edit is not None:
                with contextlib.suppress(errors.NotFound):  # it is done already
                    daemon.do(self.scenario.edit(self.names))
                daemon.settle()
            if not needs_a_person:
                operations = daemon.operations()
            return self._wrong(daemon, operations, needs_a_person=needs_a_person)
        finally:
            daemon.close()

    def _person(self, daemon: Daemon) -> bool:
        """What a person has to do where the daemon must not: whether there was anything."""
        sim = self.stage.sim
        parked = [each for each in sim.engine.state.boards if each.parked]
        for board in parked:
            sim.kernel.sriov_manage(str(board.address), enable=True, timeout_s=60.0)
        holds = sim.engine.state.holds
        for hold in holds:
            sim.control("release", {"vgpu": str(hold.uuid)} if hold.uuid else {"parent": str(hold.address)})
        if not parked and not holds:
            return False
        daemon.settle()
        for edit in (PruneVgpus(), RepairDrift(), ApplyDocuments(documents=daemon.documents())):
            daemon.do(edit)
            daemon.settle()
        return True

    def _wrong(self, daemon: Daemon, operations: list[Operation], *, needs_a_person: bool) -> list[str]:
        found = faults_of(daemon)
        documents = daemon.documents()
        if documents not in (self.before, self.target):
            found.append(f"neither old nor new: {documents}")
        for each in operations:
            if each.state is OperationState.NEEDS_OPERATOR and not needs_a_person:
                found.append(f"needs an operator: {each.problem}")
        mine = [each for each in operations if each.started.requester == WHO]
        last = mine[0] if self.scenario.edit is not None and mine else None
        if last is not None and len(mine) > len(self.scenario.before(self.names)):
            kept = last.state is OperationState.SUCCEEDED
            if documents != (self.target if kept else self.before):
                found.append(f"{last.state}, and not so")
        return found


@contextlib.contextmanager
def prepared(directory: Path, host: str, name: str) -> Iterator[Play]:
    """A scenario, ready to be killed."""
    stage = Stage(directory, CARDS[host])
    stage.block_at_once()
    play = Play(stage, SCENARIOS[name], TYPES[host])
    try:
        play.prepare()
        put_inside(stage)
        yield play
    finally:
        stage.close()


def kill_everywhere(play: Play, label: str, matrix: CrashMatrix, *, all_points: bool) -> dict[str, list[str]]:
    """What is wrong, by the point; without `all_points` only where something outside has changed."""
    counting = Fuse()
    play.act(counting)
    found = play.go_on()
    wrong = {"nowhere": found} if found else {}
    for number in range(len(counting.names)) if all_points else counting.instants():
        play.act(Fuse(number))
        matrix.count(label, counting, number)
        found = play.go_on()
        if found:
            wrong[f"{number} {counting.steps[number]}: {counting.names[number]}"] = found
    return wrong

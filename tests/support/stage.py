"""A daemon without threads, on a host that can be put back: each crash and each schedule is exact.

The simulated cards, SQLite, and libvirt's test driver are the same as in `world`; the loop around the
engine is replaced by `Daemon`, which does one thing after the other, in an order that a test chooses.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import libvirt
import pytest

from tests.support.world import CATALOG, PROFILES, WHO, libvirt_file
from vgpuctl import errors
from vgpuctl.host import watch
from vgpuctl.host.libvirt.connection import LibvirtHypervisor
from vgpuctl.host.local import LocalHost
from vgpuctl.host.store.sqlite import SqliteStore
from vgpuctl.model.document import Document
from vgpuctl.model.domain import vgpu_of_alias
from vgpuctl.model.edit import ApplyDocuments, Edit
from vgpuctl.model.frameworks import rules_of
from vgpuctl.model.gpu import ObservedVgpu
from vgpuctl.model.plan import Verdict
from vgpuctl.model.situation import observed_for
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.service.engine import Engine
from vgpuctl.service.ledger import Operation, operation_of
from vgpuctl.service.loop import ledger_of
from vgpuctl.service.messages import (
    Answer,
    EngineEffect,
    Glimpse,
    Glimpsed,
    Input,
    Observe,
    Observed,
    RunStep,
    StepDone,
    Submitted,
    SweepDue,
)
from vgpuctl.service.proposal import ShownPlan
from vgpuctl.sim.host import SimHost
from vgpuctl.sim.models import ModelSource
from vgpuctl.sim.spec import Spec

_STORE = ("commit",)
_LIBVIRT = ("attach", "detach")
_KERNEL = ("write", "write_abandonable", "replace", "sriov_manage")
_NVML = ("order",)
_CHANGES = {f"after {name}" for name in (*_STORE, *_LIBVIRT, *_KERNEL, *_NVML)}


_BLOCKED_S = 60.0


def _at_once(_name: str, work: Callable[[], None]) -> None:
    work()


LOG = "log"
"""Where the other rows of a matrix are the kinds of steps."""


class Killed(BaseException):
    """SIGKILL, as far as Python code can feel it."""


class Fuse:
    """Counts the points at which a daemon can be killed, and kills it at one of them, for good."""

    def __init__(self, blows_at: int | None = None) -> None:
        self.blows_at = blows_at
        self.names: list[str] = []
        self.steps: list[str] = []
        """What each point belongs to: the kind of the step that runs there, or the log."""
        self.step = LOG
        self.is_blown = False

    def instants(self) -> list[int]:
        """The points that differ: nothing outside of the daemon changes between the others."""
        differ = {number for number, name in enumerate(self.names) if number == 0 or name in _CHANGES}
        return sorted(differ | {number for number, name in enumerate(self.names) if "inside" in name})

    def point(self, name: str, dying: Callable[[], object] = lambda: None) -> None:
        """A point; `dying` is what the host still does when the daemon is killed there."""
        if self.is_blown:
            raise Killed(name)
        self.names.append(name)
        self.steps.append(self.step)
        if len(self.names) - 1 == self.blows_at:
            self.is_blown = True
            dying()
            raise Killed(name)


class Instead(Exception):
    """Raised around a call that answers this instead."""

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value


def _as_usual(*_args: Any, **_more: Any) -> None:
    """Nothing else happens around a call."""


class Fused:
    """Something whose calls of those names are points, before and after.

    `instead` and `afterwards` are called around each with its name and arguments, and may raise; `inside`
    says what a call that takes long leaves half done, by name, with the point's own name.
    """

    def __init__(self, inner: Any, names: tuple[str, ...]) -> None:
        self.inner = inner
        self._names = names
        self.fuse = Fuse()
        self.calls = 0
        self.instead: Callable[..., None] = _as_usual
        self.afterwards: Callable[..., None] = _as_usual
        self.inside: dict[str, Callable[..., Mapping[str, Callable[[], object]]]] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in self._names:
            return found

        def call(*args: Any, **more: Any) -> Any:
            self.calls += 1
            self.fuse.point(f"before {name}")
            try:
                self.instead(name, *args, **more)
                if name in self.inside:
                    for point, dying in self.inside[name](*args, **more).items():
                        self.fuse.point(point, dying)
                result = found(*args, **more)
                self.afterwards(name, *args, **more)
            except Instead as other:
                result = other.value
            self.fuse.point(f"after {name}")
            return result

        return call


class Stage:
    """A host and its libvirt, on which one daemon after the other runs."""

    def __init__(
        self, directory: Path, cards: Spec | str, domains: int = 3, *, source: ModelSource | None = None
    ) -> None:
        """`source` is what the simulated driver knows, where that is not the catalogue."""
        self.directory = directory
        self.db = directory / "state.db"
        self.sim = SimHost.in_memory(cards, source)
        uri = libvirt_file(directory, domains)
        self.libvirt = LibvirtHypervisor(uri)
        self.hypervisor = Fused(self.libvirt, _LIBVIRT)
        self.kernel = Fused(self.sim.kernel, _KERNEL)
        self.nvml = Fused(self.sim.nvml, _NVML)
        self.host = self._host()
        self.ids = random.Random(1)
        # The watchers of hanging calls take a thread for each; nothing hangs here.
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(watch, "begin", _at_once)
        self.foreign: set[tuple[str, str]] = set()
        self._seen: tuple[Any, Snapshot] | None = None
        self._restored = 0

    def close(self) -> None:
        self._patch.undo()
        self.libvirt.close()

    def _host(self) -> LocalHost:
        return LocalHost(
            kernel=self.kernel,
            nvml=self.nvml,
            handles=self.sim.handles,
            hypervisor=self.hypervisor,
            catalog=CATALOG,
            clock=self.sim.clock,
            simulated=True,
            gpu_timeout_s=10.0,
        )

    def forget(self) -> None:
        """A daemon's memory of the host ends with it."""
        self.host = self._host()
        self._seen = None

    def set_fuse(self, fuse: Fuse) -> None:
        """What stands around the host is part of that daemon's life from now on."""
        self.kernel.fuse = self.hypervisor.fuse = self.nvml.fuse = fuse

    def block_at_once(self) -> None:
        """What would block in the kernel is given up at once: nobody else runs who could end it."""

        def give_up(deadline: float | None, _is_gone: Callable[[], bool]) -> None:
            if deadline is None:
                raise watch.Hanging("blocked in the kernel")
            self.sim.clock.advance(_BLOCKED_S)
            raise TimeoutError("blocked in the kernel")

        self._patch.setattr(self.sim.engine, "_wait", give_up)

    def new_uuid(self) -> UUID:
        return UUID(int=self.ids.getrandbits(128), version=4)

    # -- putting it back --------------------------------------------------------------------------

    def save(self) -> Saved:
        """The whole stage, while no daemon runs."""
        saved = self.directory / "saved.db"
        shutil.copy(self.db, saved) if self.db.exists() else saved.unlink(missing_ok=True)
        return Saved(
            self.sim.engine.state,
            self.sim.clock.monotonic_s(),
            saved,
            self._xml(),
            self.ids.getstate(),
            set(self.foreign),
        )

    def restore(self, saved: Saved) -> None:
        for each in self.directory.glob("state.db*"):
            each.unlink()
        if saved.db.exists():
            shutil.copy(saved.db, self.db)
        self.sim.engine.install(saved.state)
        self.sim.clock.put_back(saved.clock_s)
        for text in saved.xml:
            self.on_libvirt(lambda connection, text=text: connection.defineXML(text))
        self._restored += 1
        self.ids.setstate(saved.ids)
        self.foreign = set(saved.foreign)
        self.set_fuse(Fuse())
        for each in (self.kernel, self.hypervisor, self.nvml):
            each.instead = each.afterwards = _as_usual
        self.forget()

    def _xml(self) -> tuple[str, ...]:
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        return self.on_libvirt(
            lambda connection: tuple(each.XMLDesc(flags) for each in connection.listAllDomains())
        )

    def on_libvirt(self, work: Callable[[Any], Any]) -> Any:
        """Work on a connection of libvirt's, beside the daemon."""
        self.hypervisor.calls += 1
        return self.libvirt._link.call("testing", work, 10.0)

    def observe(self) -> Snapshot:
        """What the host shows; read anew only when the cards or some XML have changed."""
        key = (self.sim.engine.state, self.hypervisor.calls, self._restored)
        is_late = any(each.vfs_ready_at is not None for each in self.sim.engine.state.boards)
        if is_late or self._seen is None or self._seen[0][0] is not key[0] or self._seen[0][1:] != key[1:]:
            snapshot = self.host.observe()
            self._seen = ((self.sim.engine.state, *key[1:]), snapshot)
        return self._seen[1]

    # -- what others do ---------------------------------------------------------------------------

    def make_foreign(self, gpu: str, vgpu_type: str) -> None:
        """Somebody else makes a vGPU."""
        made = self.sim.control("foreign", {"gpu": gpu, "type": vgpu_type})
        self.foreign.add((made["parent"], str(made["uuid"])))


@dataclass
class Saved:
    state: Any
    clock_s: float
    db: Path
    xml: tuple[str, ...]
    ids: Any
    foreign: set[tuple[str, str]]


@dataclass
class Daemon:
    """One life of a daemon.  Effects wait in `effects` until somebody lets them happen."""

    stage: Stage
    fuse: Fuse = field(default_factory=Fuse)
    effects: list[EngineEffect] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)
    tickets: Any = field(default_factory=lambda: count(1_000_000))
    run: Callable[[Any], None] | None = None
    observe: Callable[[], Snapshot] | None = None

    def __post_init__(self) -> None:
        stage = self.stage
        stage.forget()
        stage.set_fuse(self.fuse)
        self.store = Fused(SqliteStore(stage.db), _STORE)
        self.store.fuse = self.fuse
        self.open()

    def open(self, last: Engine | None = None) -> None:
        """Begin from what is on the disk; instead of `last`, whose commit failed."""
        self.engine = Engine(
            ledger_of(self.store.load(), PROFILES),
            catalog=CATALOG,
            now=self.stage.sim.clock.now,
            monotonic_s=self.stage.sim.clock.monotonic_s,
            new_uuid=self.stage.new_uuid,
            last=last,
        )

    def close(self) -> None:
        self.store.close()

    def turn(self, *items: Input) -> None:
        """Decide, commit, and line up what follows."""
        for each in items:
            self.engine.handle(each)
        records, effects = self.engine.take()
        if records:
            self.store.commit(records, self.stage.sim.clock.now())
        for effect in effects:
            if isinstance(effect, Answer):
                assert effect.ticket not in self.answers, "answered twice"
                self.answers[effect.ticket] = effect
            else:
                self.effects.append(effect)

    def perform(self, effect: EngineEffect) -> Input:
        """Carry out an effect; its answer."""
        if isinstance(effect, Observe):
            return Observed(effect.number, (self.observe or self.stage.observe)())
        if isinstance(effect, Glimpse):
            return Glimpsed(effect.number, self.stage.host.glimpse(effect.gpus))
        assert isinstance(effect, RunStep)
        problem = None
        kind = self.fuse.step = type(effect.step.effect).__name__
        self.fuse.point(f"before {kind}")
        try:
            (self.run or self.stage.host.run)(effect.step.effect)
        except errors.VgpuctlError as error:
            problem = error.to_problem()
        self.fuse.point(f"after {kind}")
        self.fuse.step = LOG
        return StepDone(effect.operation, effect.round, effect.step.number, problem)

    def until_idle(self) -> None:
        for _ in range(10_000):
            if not self.effects:
                return
            self.turn(self.perform(self.effects.pop(0)))
        raise AssertionError("it never comes to rest")

    def submit(self, edit: Edit, **more: Any) -> int:
        ticket = next(self.tickets)
        self.turn(Submitted(ticket, WHO, edit, **more))
        return ticket

    def do(self, edit: Edit) -> Operation:
        """Run an edit to its end; raises what refuses it."""
        ticket = self.submit(edit)
        self.until_idle()
        return self.operation(ticket)

    def operation(self, ticket: int) -> Operation:
        answer = self.answers[ticket]
        if answer.error is not None:
            raise answer.error
        found = operation_of(self.store.operation_entries(answer.value))
        assert found is not None
        return found

    def operations(self) -> list[Operation]:
        found = [operation_of(self.store.operation_entries(each)) for each in self.store.operations(100)]
        return [each for each in found if each is not None]

    def settle(self) -> None:
        """What the loop does by itself when it is left alone for long enough."""
        for _ in range(3):
            self.turn(SweepDue())
            self.until_idle()
            self.stage.sim.clock.advance(7200)

    def documents(self) -> tuple[Document, ...]:
        return tuple(wish.document for _, wish in sorted(self.engine.ledger.wishes.items()))


def key_of(vgpu: ObservedVgpu) -> tuple[str, str]:
    return str(vgpu.parent), str(vgpu.mdev_uuid)


def faults_of(daemon: Daemon, *, ended_well: bool = True) -> list[str]:
    """Every rule that does not hold now, while nothing runs.

    Without `ended_well`, a wish may be unfulfilled where the plan names the problem.
    """
    stage = daemon.stage
    snapshot = stage.observe()
    saved = daemon.store.load()
    found: list[str] = []
    if saved.unended:
        found.append(f"operations without an end: {len(saved.unended)} entries")
    if (saved.wishes, saved.allocations) != (daemon.engine.ledger.wishes, daemon.engine.ledger.allocations):
        found.append("memory and disk disagree")
    owners: dict[tuple[str, str], list[str]] = {}
    for allocation in saved.allocations.values():
        vgpu = observed_for(allocation, snapshot)
        if vgpu is None and ended_well:
            found.append(f"{allocation.name} has a place and no vGPU")
        if vgpu is not None:
            owners.setdefault(key_of(vgpu), []).append(allocation.name)
    found += [f"{place} belongs to {names}" for place, names in owners.items() if len(names) > 1]
    for vgpu in snapshot.vgpus():
        if key_of(vgpu) not in owners and key_of(vgpu) not in stage.foreign:
            found.append(f"{key_of(vgpu)} belongs to nobody")
    places: dict[str, list[str]] = {}
    for allocation in saved.allocations.values():
        if allocation.framework is not None and rules_of(allocation.framework).ONE_VGPU_PER_PARENT:
            places.setdefault(str(allocation.parent), []).append(allocation.name)
    if ended_well:
        found += [f"{place} was given to {names}" for place, names in places.items() if len(names) > 1]
    found += _xml_faults(daemon, snapshot, ended_well=ended_well)
    shown = show(daemon, ApplyDocuments(documents=daemon.documents()))
    wished = daemon.engine.ledger.in_force().vgpus()
    orphans = [each.name for each in saved.allocations.values() if each.name not in wished]
    if orphans and ended_well:
        found.append(f"places without a wish: {orphans}")
    if isinstance(shown, errors.VgpuctlError):
        found.append(f"the documents cannot be planned: {shown}")
    elif shown.plan.verdict is not Verdict.MATCH and ended_well:
        steps = [each.effect for each in shown.plan.steps]
        found.append(f"still {shown.plan.verdict}: {steps} {[str(e.error) for e in shown.plan.problems]}")
    return found


def _xml_faults(daemon: Daemon, snapshot: Snapshot, *, ended_well: bool) -> list[str]:
    found = []
    ledger = daemon.engine.ledger
    wished = ledger.in_force().vgpus()
    assert isinstance(snapshot.domains, tuple)
    for domain in snapshot.domains:
        for hostdev in domain.config or ():
            vgpu_id = vgpu_of_alias(hostdev.alias)
            if vgpu_id is None:
                continue
            allocation = ledger.allocations.get(vgpu_id)
            if allocation is None:
                found.append(f"{domain.name} names {vgpu_id}, which is nobody's")
            elif not ended_well:
                continue
            elif observed_for(allocation, snapshot) is None:
                found.append(f"{domain.name} names {allocation.name}, which does not exist")
            elif allocation.name in wished and wished[allocation.name].domain != domain.name:
                found.append(f"{domain.name} has {allocation.name} of {wished[allocation.name].domain}")
    return found


def show(daemon: Daemon, edit: Edit) -> ShownPlan | errors.VgpuctlError:
    """The plan of an edit, or what refuses it."""
    ticket = daemon.submit(edit, dry_run=True)
    daemon.until_idle()
    answer = daemon.answers[ticket]
    return answer.error if answer.error is not None else answer.value


@contextmanager
def one_life(stage: Stage, fuse: Fuse) -> Iterator[Daemon]:
    """A daemon until it is idle; or, where the fuse blows, to its death, which ends the block."""
    daemon = Daemon(stage, fuse)
    try:
        yield daemon
        daemon.until_idle()
    except Killed:
        pass  # as the caller wished
    finally:
        daemon.store.fuse = Fuse()
        daemon.close()


def wrong_after_kills(
    stage: Stage, live: Callable[[Daemon], None], go_on: Callable[[Daemon], None], at_least: int = 1
) -> dict[str, list[str]]:
    """What is wrong in the end, by the point at which a daemon that lives so was killed.

    `go_on` is what the one after it does.  There are `at_least` so many points.
    """

    def act(fuse: Fuse) -> None:
        with one_life(stage, fuse) as daemon:
            live(daemon)

    def found() -> list[str]:
        daemon = Daemon(stage)
        try:
            go_on(daemon)
            return faults_of(daemon)
        finally:
            daemon.close()

    saved, counting = stage.save(), Fuse()
    act(counting)
    wrong = {"never": found()}
    assert len(counting.names) >= at_least
    for number, name in enumerate(counting.names):
        stage.restore(saved)
        act(Fuse(number))
        wrong[f"{number} {name}"] = found()
    return {point: faults for point, faults in wrong.items() if faults}

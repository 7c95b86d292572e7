"""Many clients, many troubles, any order: what holds when all is quiet again.

Each seed is one deterministic history: edits of overlapping scopes, steps that end in any order or fail,
observations torn, libvirt away, a GPU that cannot be read, others who make and remove vGPUs, cancels,
pauses, commits that fail, kills.  Then the troubles end, the daemon is left alone, and the invariants
of `faults_of` are checked.  A seed that fails is replayed by its number.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.support.stage import Daemon, Stage, faults_of, key_of, show
from tests.support.world import WHO
from vgpuctl import errors
from vgpuctl.model.document import (
    DesktopDocument,
    DesktopVgpu,
    DocumentKey,
    ProfileDocument,
    VgpuDocument,
)
from vgpuctl.model.edit import (
    AdoptVgpus,
    ApplyDocuments,
    AttachVgpu,
    CreateVgpus,
    DeleteVgpu,
    DetachVgpu,
    Edit,
)
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import GpuState, ObservedVgpu
from vgpuctl.model.record import (
    AllocationPut,
    OperationEnded,
    OperationRollingBack,
    OperationStarted,
    OperationState,
    StepEnded,
    StepStarted,
    WishDropped,
    WishPut,
)
from vgpuctl.model.situation import observed_for
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import AttachHostdev, CreateVgpu, DetachHostdev, Effect, RemoveVgpu
from vgpuctl.service.messages import (
    CancelRequested,
    LookRequested,
    Observe,
    Observed,
    PauseRequested,
    RunStep,
    Submitted,
    SweepDue,
    Withdrawn,
)
from vgpuctl.service.proposal import ShownPlan

pytestmark = pytest.mark.slow

HOSTS = {
    "mdev": ("t4:mdev,t4:mdev", ("T4-8Q", "T4-4Q")),
    "sriov-mdev": ("a2:sriov-mdev,a2:sriov-mdev", ("A2-8Q", "A2-4Q")),
    "vendor-vfio": ("a2:vendor-vfio,a2:vendor-vfio", ("A2-8Q", "A2-4Q")),
}
GPUS = ("0000:41:00.0", "0000:61:00.0")
SEEDS = 40
TURNS = 60


@dataclass
class Host:
    """What stands between a daemon and its host, and makes trouble."""

    stage: Stage
    dice: random.Random
    calm: bool = False
    seen: list[Snapshot] = field(default_factory=list)

    def run(self, effect: Effect) -> None:
        if not self.calm and self.dice.random() < 0.15:
            self._refuse(effect)
        self.stage.host.run(effect)
        if not self.calm and self.dice.random() < 0.05:
            # It was done, and nobody can tell: the worst of all answers.
            raise errors.ReadBackMismatch("it does not show yet")

    def _refuse(self, effect: Effect) -> None:
        match effect:
            case CreateVgpu() if self.dice.random() < 0.4:
                others_take(self.stage, self.dice, str(effect.gpu.address), effect.type_name)
            case AttachHostdev() | DetachHostdev():
                raise errors.LibvirtRefused("no")
            case _:
                raise errors.KernelRefused("EIO")

    def observe(self) -> Snapshot:
        snapshot = self.stage.observe()
        if self.calm:
            return snapshot
        if self.dice.random() < 0.1:
            gone = Unknown("libvirt is away")
            snapshot = replace(snapshot, hypervisor=gone, domains=gone)
        if self.dice.random() < 0.1:
            dark = self.dice.choice(GPUS)
            snapshot = replace(
                snapshot,
                gpus=tuple(
                    replace(each, state=GpuState.UNREADABLE, vgpus=(), vfs=(), types=(), framework=None)
                    if str(each.address) == dark
                    else each
                    for each in snapshot.gpus
                ),
            )
        return snapshot


def others_take(stage: Stage, dice: random.Random, gpu: str, vgpu_type: str) -> None:
    """Somebody else makes a vGPU on the first free parent, which is often the one just chosen."""
    try:
        stage.make_foreign(gpu, vgpu_type)
    except errors.VgpuctlError:
        pass


def others_remove(stage: Stage, dice: random.Random) -> None:
    """Somebody removes a vGPU, of ours or not, that no running step is about."""
    vgpus = stage.observe().vgpus()
    if not vgpus:
        return
    remove_behind_our_back(stage, dice.choice(vgpus))


def remove_behind_our_back(stage: Stage, vgpu: ObservedVgpu) -> None:
    if vgpu.mdev_uuid is not None:
        stage.sim.kernel.write(f"sys/bus/mdev/devices/{vgpu.mdev_uuid}/remove", "1")
    else:
        stage.sim.kernel.write(f"sys/bus/pci/devices/{vgpu.parent}/nvidia/current_vgpu_type", "0")
    stage.foreign.discard((str(vgpu.parent), str(vgpu.mdev_uuid)))


def any_edit(dice: random.Random, types: tuple[str, ...], *, desktops: bool) -> Edit:
    name = dice.choice("abc")
    vgpu_type = dice.choice(types)
    domain = f"win{dice.randint(1, 3)}"
    profile = ProfileDocument(name="p", types=(vgpu_type,))
    edits: list[Callable[[], Edit]] = [
        lambda: CreateVgpus(type=vgpu_type, name=name),
        lambda: CreateVgpus(type=vgpu_type, name=name, count=dice.randint(2, 4)),
        lambda: DeleteVgpu(vgpu=name),
        lambda: DeleteVgpu(vgpu=f"{name}-1"),
        lambda: ApplyDocuments(documents=(profile, VgpuDocument(name=name, profile="p"))),
        lambda: ApplyDocuments(
            documents=(VgpuDocument(name=name, type=vgpu_type),), prune=dice.random() < 0.3
        ),
        AdoptVgpus,
    ]
    if desktops:
        entry = (
            DesktopVgpu(name=domain, profile="p")
            if dice.random() < 0.5
            else DesktopVgpu(name=name, vgpu=name)
        )
        edits += [
            lambda: AttachVgpu(domain=domain, type=vgpu_type),
            lambda: AttachVgpu(domain=domain, vgpu=name),
            lambda: DetachVgpu(domain=domain),
            lambda: ApplyDocuments(documents=(profile, DesktopDocument(name=domain, vgpus=(entry,)))),
        ]
    return dice.choice(edits)()


@dataclass
class History:
    """One seed's history."""

    stage: Stage
    types: tuple[str, ...]
    desktops: bool
    dice: random.Random
    told: list[str] = field(default_factory=list)
    asked: set[int] = field(default_factory=set)
    tickets: int = 0

    def begin(self) -> None:
        self.host = Host(self.stage, self.dice)
        self.daemon = self._daemon()

    def _daemon(self) -> Daemon:
        return Daemon(self.stage, run=self.host.run, observe=self.host.observe)

    def play(self, turns: int) -> None:
        for _ in range(turns):
            self._one()

    def _one(self) -> None:
        dice, daemon = self.dice, self.daemon
        chance = dice.random()
        if chance < 0.55 and daemon.effects:
            self._let_happen()
        elif chance < 0.75:
            self._ask(any_edit(dice, self.types, desktops=self.desktops))
        elif chance < 0.80:
            running = [
                each.id for each in daemon.engine.ledger.operations.values() if not each.state.has_ended
            ]
            if running:
                self._turn(CancelRequested(self._ticket(), dice.choice(sorted(running))))
        elif chance < 0.83:
            self._turn(PauseRequested(self._ticket(), paused=dice.random() < 0.5))
        elif chance < 0.86:
            self._turn(SweepDue())
        elif chance < 0.88:
            self._turn(LookRequested(self._ticket()))
        elif chance < 0.90:
            self._turn(Withdrawn(dice.randint(1, self.tickets or 1)))
        elif chance < 0.93:
            others_take(self.stage, dice, dice.choice(GPUS), dice.choice(self.types))
        elif chance < 0.95:
            if not any(isinstance(each, RunStep) for each in daemon.effects):
                others_remove(self.stage, dice)
        elif chance < 0.96:
            self._reload()
        elif chance < 0.98:
            self._full_disk()
        else:
            self._kill()
        self.stage.sim.clock.advance(dice.choice((0, 1, 100)))

    def _ticket(self) -> int:
        self.tickets += 1
        self.asked.add(self.tickets)
        return self.tickets

    def _turn(self, item: Any) -> None:
        self.told.append(str(item))
        self.daemon.turn(item)

    def _ask(self, edit: Edit) -> None:
        key = self.dice.choice((None, None, f"key-{self.dice.randint(1, 5)}"))
        dry_run = key is None and self.dice.random() < 0.1
        self._turn(Submitted(self._ticket(), WHO, edit, dry_run=dry_run, idempotency_key=key))

    def _let_happen(self) -> None:
        """One effect happens; its end is told at once, or later than others that happen after it."""
        effects = self.daemon.effects
        effect = effects.pop(self.dice.randrange(len(effects)))
        if isinstance(effect, (Observe, RunStep)):
            answer = self.daemon.perform(effect)
            if self.dice.random() < 0.5:
                effects.append(answer)
            else:
                self._turn(answer)
        else:
            self._turn(effect)

    def _reload(self) -> None:
        if any(isinstance(each, RunStep) for each in self.daemon.effects):
            return
        self.stage.sim.control("reload-driver", {})
        self.stage.foreign.clear()

    def _full_disk(self) -> None:
        """A commit fails: what was decided is forgotten, steps that run are waited for."""
        daemon = self.daemon
        steps = [each for each in daemon.effects if isinstance(each, RunStep)]
        commit = daemon.store.commit

        def full(*_args: Any) -> int:
            raise errors.StoreFailure("database or disk is full")

        daemon.store.commit = full
        try:
            self._turn(SweepDue())
            self._ask(any_edit(self.dice, self.types, desktops=self.desktops))
            late = [each for each in daemon.effects if isinstance(each, (Observe, Observed))]
            if late:
                effect = late[0]
                daemon.effects.remove(effect)
                self._turn(daemon.perform(effect) if isinstance(effect, Observe) else effect)
        except errors.StoreFailure:
            for step in steps:
                daemon.perform(step)
            observations = [each for each in daemon.effects if isinstance(each, (Observe, Observed))]
            daemon.open(daemon.engine)
            self.asked.clear()
            daemon.effects = observations
            self.told.append("reopened")
        daemon.store.commit = commit

    def _kill(self) -> None:
        """Some of what was under way still happens, or does not; nobody hears of it."""
        for effect in self.daemon.effects:
            if isinstance(effect, RunStep) and self.dice.random() < 0.5:
                self.daemon.perform(effect)
        self.daemon.close()
        self.daemon = self._daemon()
        self.asked.clear()
        self.told.append("killed")
        if self.dice.random() < 0.3:
            self.stage.sim.control("reboot", {})
            self.stage.foreign.clear()
            self.told.append("rebooted")

    def settle(self) -> None:
        self.host.calm = True
        daemon = self.daemon
        while daemon.effects:
            self._let_happen()
        daemon.turn(PauseRequested(self._ticket(), paused=False))
        daemon.until_idle()
        daemon.settle()


@pytest.mark.parametrize("framework", HOSTS)
def test_any_history_comes_to_rest(framework: str, tmp_path: Path):
    cards, types = HOSTS[framework]
    stage = Stage(tmp_path, cards)
    daemon = Daemon(stage)
    daemon.close()
    saved = stage.save()
    wrong: dict[int, Any] = {}
    try:
        for seed in range(SEEDS):
            stage.restore(saved)
            history = History(stage, types, framework != "vendor-vfio", random.Random(seed))
            history.begin()
            try:
                history.play(TURNS)
                history.settle()
                found = problems(history)
            finally:
                history.daemon.close()
            if found:
                wrong[seed] = found
    finally:
        stage.close()
    assert not wrong


def problems(history: History) -> list[str]:
    """What is wrong once all is quiet; then others go, the documents are applied, leftovers deleted."""
    daemon, stage = history.daemon, history.stage
    found = [f"ticket {each} was never answered" for each in sorted(history.asked - set(daemon.answers))]
    found += told_and_kept(daemon)
    found += faults_of(daemon, ended_well=False)
    kernel = {key_of(each) for each in stage.observe().vgpus()}
    taken = {
        (str(each.record.allocation.parent), str(each.record.allocation.id))
        for each in daemon.store.entries(0, 100_000)
        if isinstance(each.record, AllocationPut) and each.record.allocation.adopted
    }
    taken |= {(parent, "None") for parent, _ in taken}
    gone = stage.foreign - kernel - taken
    found += [f"the vGPU of others on {each} is gone" for each in gone if each[0] not in unsure(daemon)]
    if found:
        return found
    remove_foreign(stage, daemon)
    daemon.settle()
    wished = daemon.engine.ledger.in_force().vgpus()
    for allocation in list(daemon.engine.ledger.allocations.values()):
        if allocation.name not in wished:
            daemon.do(DeleteVgpu(vgpu=str(allocation.id)))
    shown = show(daemon, ApplyDocuments(documents=daemon.documents()))
    assert isinstance(shown, ShownPlan), shown
    short = [each for each in shown.plan.problems if each.error.code == "no-capacity"]
    if short:
        return []
    operation = daemon.do(ApplyDocuments(documents=daemon.documents()))
    if operation.state is not OperationState.SUCCEEDED:
        found.append(f"the documents cannot be applied: {operation.problem}")
    return found + faults_of(daemon)


def unsure(daemon: Daemon) -> set[str]:
    """Where a step on a vendor vGPU ended nobody knows how.

    hardware.md 1.4: a vGPU of the vendor framework has no name but its VF and its type: of those that
    somebody else makes on that very VF at that very moment, ours cannot be told.
    """
    effects: dict[tuple[UUID, int, int], Effect] = {}
    found = set()
    for entry in daemon.store.entries(0, 100_000):
        match entry.record:
            case StepStarted(operation=operation, round=round_, step=step):
                effects[operation, round_, step.number] = step.effect
            case StepEnded(operation=operation, round=round_, number=number, problem=dict()):
                effect = effects[operation, round_, number]
                if isinstance(effect, (CreateVgpu, RemoveVgpu)):
                    found.add(str(effect.parent))
    return found


def remove_foreign(stage: Stage, daemon: Daemon) -> None:
    places = daemon.engine.ledger.allocations.values()
    snapshot = stage.observe()
    ours = [observed_for(each, snapshot) for each in places]
    for vgpu in snapshot.vgpus():
        if vgpu not in ours:
            remove_behind_our_back(stage, vgpu)


def told_and_kept(daemon: Daemon) -> list[str]:
    """An operation's documents are in force when it has succeeded, and else those before it."""
    documents: dict[DocumentKey, Any] = {}
    new: dict[UUID, dict[DocumentKey, Any]] = {}
    started: dict[UUID, OperationStarted] = {}
    filling: dict[DocumentKey, Any] = {}
    found = []
    for entry in daemon.store.entries(0, 100_000):
        match entry.record:
            case WishPut(wish=wish):
                documents[wish.key] = filling[wish.key] = wish.document
            case WishDropped(key=key):
                documents.pop(key, None)
                filling[key] = None
            case OperationStarted(id=key):
                started[key] = entry.record
                filling = new[key] = {}
            case OperationRollingBack():
                filling = {}
            case OperationEnded(id=key, state=state):
                filling = {}
                operation = started[key]
                undone = {each: wish and wish.document for each, wish in operation.undo}
                wanted = new[key] if state is OperationState.SUCCEEDED else undone
                if any(documents.get(each) != wanted[each] for each in undone):
                    found.append(
                        f"{operation.kind} {operation.subject} {state}, and its documents are not so"
                    )
            case _:
                filling = {}
    return found

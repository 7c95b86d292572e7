"""One seed's history: clients, guests, other people, troubles, deaths, and what all that comes to.

Everything is drawn from the seed, in one order: which effect happens next, which client asks for what,
what goes wrong and when.  Two runs of a seed are the same to the byte, in any process.
"""

from __future__ import annotations

import hashlib
import random
import traceback
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.simulation import troubles
from tests.simulation.aims import Aim, aim_of
from tests.simulation.clients import DOMAINS, any_edit, first_edits, leading_to
from tests.simulation.coverage import Coverage, Moment
from tests.simulation.ground import Ground
from tests.simulation.guests import Guests
from tests.simulation.settings import Setting
from tests.support.stage import Daemon, Killed, Stage
from tests.support.world import WHO
from vgpuctl import errors
from vgpuctl.host.store.codec import row_of
from vgpuctl.host.watch import Hanging
from vgpuctl.model.edit import Edit
from vgpuctl.model.record import LIBVIRT, PauseSet
from vgpuctl.model.step import (
    AttachHostdev,
    CreateVgpu,
    DetachHostdev,
    DisableAutostart,
    Effect,
    RemoveVgpu,
    SetVfs,
    describe,
)
from vgpuctl.service.messages import (
    CancelRequested,
    Draining,
    EngineEffect,
    Glimpse,
    Glimpsed,
    Input,
    LookRequested,
    Observe,
    Observed,
    PauseRequested,
    RunStep,
    StepDone,
    Submitted,
    SweepDue,
    Withdrawn,
)
from vgpuctl.service.planning import internal

TURNS = 60
STRIKES = {SetVfs: 0.3, CreateVgpu: 0.3, RemoveVgpu: 0.6}
"""How many steps of a kind meet a trouble; of those that are rarer, nearly all."""
_MOST = 0.9
_TRIES = 5
_HITS = 2
"""How often a seed's aim is to be met; then it is a trouble like others."""


@dataclass
class History:
    """A seed, on a stage."""

    seed: int
    stage: Stage
    setting: Setting
    coverage: Coverage
    told: list[str] = field(default_factory=list)
    asked: set[int] = field(default_factory=set)
    keys: dict[str, Edit] = field(default_factory=dict)
    """What was asked for under each idempotency key."""
    key_of: dict[int, str] = field(default_factory=dict)
    promised: dict[str, UUID] = field(default_factory=dict)
    """The operation that a client was told of, by its key."""
    wrong: list[str] = field(default_factory=list)
    tickets: int = 0
    turns: int = 0
    moment: Moment | None = None
    """When a trouble comes to the step that runs."""
    written: list[RunStep] = field(default_factory=list)
    """Creations that hang, and have written before."""
    is_calm: bool = False
    is_aiming: bool = False
    hits: int = 0
    """How often the seed's aim was met."""

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.ground = Ground(self.stage, self.setting, self.dice)
        self.guests = self.ground.guests = Guests(self.ground)
        self.aim = aim_of(self.seed)
        self._open()

    def tell(self, text: str) -> None:
        """A line of the trace."""
        self.told.append(f"{self.turns:4} {text}")

    def digest(self) -> str:
        """What two runs of a seed have in common: every line of the trace, and every record."""
        found = hashlib.sha256("\n".join(self.told).encode())
        for entry in self.daemon.store.entries(0, 100_000):
            row = row_of(entry.record)
            found.update(f"{entry.at} {row.kind} {row.subject} {row.body}\n".encode())
        return found.hexdigest()

    def close(self) -> None:
        """Nothing runs any more; the stage is free for the next one."""
        self.guests.leave()
        self.daemon.close()

    # -- a daemon's life --------------------------------------------------------------------------

    def _open(self) -> None:
        self.daemon = Daemon(self.stage, run=self._run)
        self.ground.begin(self.daemon)
        if self.daemon.engine.ledger.paused != is_paused(self.daemon.store):
            self.wrong.append("whether it is paused was forgotten")
        self.asked.clear()
        self.guests.asked.clear()

    def _die(self, how: str) -> None:
        """Some of what was under way still happens, or does not; nobody hears of it."""
        self.tell(f"** {how}")
        effects, self.daemon.effects = self.daemon.effects, []
        self.daemon.store.fuse.is_blown = False
        for effect in effects:
            if isinstance(effect, RunStep) and self.dice.random() < 0.5:
                self._quietly(effect)
        self.daemon.close()
        self.ground.stuck.clear()
        self.written.clear()
        match how:
            case troubles.POWER:
                self.guests.die()
                self.ground.lose_power()
            case troubles.SWAP:
                self.guests.die()
                self.ground.swap()
            case troubles.MOVE:
                self.guests.die()
                self.ground.move()
        self._open()

    def _quietly(self, effect: RunStep) -> None:
        """A step happens, and nobody hears how it ended."""
        try:
            self.stage.host.run(effect.step.effect)
        except (errors.VgpuctlError, Hanging):
            pass

    def _reopen(self, failure: errors.StoreFailure) -> None:
        """A commit failed: what was decided is forgotten, steps that run are waited for (service/loop)."""
        self.tell(f"** a commit failed: {failure.facts.get('reason')}")
        daemon = self.daemon
        effects, daemon.effects = daemon.effects, []
        for effect in effects:
            if isinstance(effect, RunStep):
                self._quietly(effect)
        self.ground.stuck.clear()
        self.written.clear()
        daemon.open(daemon.engine)
        self.asked.clear()
        self.guests.asked.clear()
        daemon.effects = [
            each for each in effects if isinstance(each, (Observe, Observed, Glimpse, Glimpsed))
        ]

    # -- turns ------------------------------------------------------------------------------------

    def play(self, turns: int = TURNS) -> None:
        """Let happen what the seed says."""
        self._begin()
        for _ in range(turns):
            self.turns += 1
            try:
                self._one()
            except Killed as death:
                self._die(str(death))
            self.ground.pass_time()
        self._go_for_it()

    def _go_for_it(self) -> None:
        """What the seed aims at and has not met is tried with nothing else in its way."""
        self.is_calm = self.is_aiming = True
        for _ in range(_TRIES):
            if self.hits:
                break
            self.turns += 1
            self.ground.heal()
            self.ground.full = 0
            try:
                if self.aim.trouble.name == troubles.SAVE:
                    for name in DOMAINS:
                        self._start(name)
                if self.aim.step == DisableAutostart.__name__:
                    self.ground.make_foreign(self.dice.choice(self.ground.gpus()), autostart=True)
                self._ask(
                    leading_to(self.aim.step, self.dice, self.setting) or any_edit(self.dice, self.setting)
                )
                for _ in range(TURNS):
                    if self.daemon.effects and not self.hits:
                        self.let_happen()
            except Killed as death:
                self._die(str(death))
        self.is_calm = self.is_aiming = False

    def _begin(self) -> None:
        """Most histories find a host with something on it."""
        self.turn(SweepDue())
        if self.dice.random() < 0.8:
            self.is_calm = True
            self.ground.make_foreign(self.dice.choice(self.ground.gpus()), autostart=self.dice.random() < 0.5)
            for edit in first_edits(self.aim.step, self.dice, self.setting):
                self._ask(edit)
                self._finish()
            self.ground.make_foreign(self.ground.gpus()[-1])
            if self.aim.step == DisableAutostart.__name__:
                for gpu in self.ground.gpus():
                    self.ground.make_foreign(gpu, autostart=True)
            if self.aim.trouble.name == troubles.SAVE:
                for name in DOMAINS:
                    self._start(name)
                    self._finish()
            self.is_calm = False

    def turn(self, item: Input) -> None:
        """Something comes in, is decided on, committed; then answers go out, and effects are begun."""
        self.tell(say(item))
        before = set(self.daemon.answers)
        try:
            self.daemon.turn(item)
        except errors.StoreFailure as failure:
            self._reopen(failure)
        for ticket in sorted(self.daemon.answers.keys() - before):
            self._answered(ticket)
        self._check_lanes()

    def _answered(self, ticket: int) -> None:
        answer = self.daemon.answers[ticket]
        self.tell(f"  -> {ticket}: {answer.error or 'yes'}")
        key = self.key_of.get(ticket)
        if key is not None and answer.error is None:
            self._promise(key, answer.value)
        self.guests.answered(answer)

    def _check_lanes(self) -> None:
        """Two steps of one lane never run at once; those of a start may."""
        lanes: list[str] = []
        operations = self.daemon.engine.ledger.operations
        for each in (*self.daemon.effects, *self.ground.stuck):
            if not isinstance(each, RunStep) or each.operation not in operations:
                continue
            if operations[each.operation].started.requester != LIBVIRT:
                lanes.append(each.step.lane)
        twice = {each for each in lanes if lanes.count(each) > 1}
        if twice and not self.wrong:
            self.wrong.append(f"two steps run at once in {sorted(twice)}")

    def _one(self) -> None:
        dice, daemon = self.dice, self.daemon
        chance = dice.random()
        if chance < 0.58 and daemon.effects:
            self.let_happen()
        elif chance < 0.71:
            is_aimed = dice.random() < (0.3 if self.hits else 0.7)
            edit = leading_to(self.aim.step, dice, self.setting) if is_aimed else None
            self._ask(edit or any_edit(dice, self.setting))
        elif chance < 0.74:
            running = [
                each.id for each in daemon.engine.ledger.operations.values() if not each.state.has_ended
            ]
            if running:
                self.turn(CancelRequested(self._ticket(), dice.choice(sorted(running)), WHO))
        elif chance < 0.765:
            self.turn(PauseRequested(self._ticket(), paused=dice.random() < 0.5, requester=WHO))
        elif chance < 0.79:
            self.turn(SweepDue())
        elif chance < 0.805:
            self.turn(LookRequested(self._ticket()))
        elif chance < 0.82:
            self.turn(Withdrawn(dice.randint(1, self.tickets or 1)))
        elif chance < 0.91:
            self._guest()
        elif chance < 0.97:
            self._others()
        elif chance < 0.98:
            self.ground.end_late_writes()
        else:
            raise Killed(dice.choice(troubles.DEATHS))

    def _ticket(self) -> int:
        self.tickets += 1
        self.asked.add(self.tickets)
        return self.tickets

    def _ask(self, edit: Edit) -> None:
        chance = self.dice.random()
        if chance < 0.2:
            self._ask_with(f"key-{len(self.keys)}", edit)
        elif chance < 0.35 and self.keys:
            key = self.dice.choice([*self.keys])
            self._ask_with(key, self.keys[key])
        else:
            self.turn(Submitted(self._ticket(), WHO, edit, dry_run=self.dice.random() < 0.1))

    def _ask_with(self, key: str, edit: Edit) -> None:
        """Ask under a key, for the first time or again; the store is asked first, as by `Service.submit`."""
        self.keys[key] = edit
        before = self.daemon.store.operation_by_key(key)
        if before is not None:
            self.tell(f"{key} again: it is operation {str(before)[:8]}")
            self._promise(key, before)
            return
        ticket = self._ticket()
        self.key_of[ticket] = key
        self.turn(Submitted(ticket, WHO, edit, idempotency_key=key))

    def _promise(self, key: str, operation: UUID) -> None:
        """A client is told of an operation: the same one whenever it asks with that key."""
        if self.promised.setdefault(key, operation) != operation:
            self.wrong.append(f"{key} was {self.promised[key]}, and is {operation} now")

    def _guest(self) -> None:
        name = self.dice.choice(DOMAINS)
        if name in self.guests.running and self.dice.random() < 0.6:
            if self.dice.random() < 0.25:
                self.tell(f"** guest {name} is saved")
                self.guests.save(name)
            else:
                self.tell(f"** guest {name} ends")
                self.guests.stop(name)
        elif name in self.guests.saved and self.dice.random() < 0.2:
            self.tell(f"** the image of {name} is dropped")
            self.guests.drop_image(name)
        elif self.guests.releases and self.dice.random() < 0.3:
            self.hear_releases(1)
        else:
            self._start(name)

    def _start(self, name: str) -> None:
        """Somebody starts a domain."""
        start = self.guests.start(name, self.tickets + 1)
        if start is not None:
            self._ticket()
            self.turn(start)

    def hear_releases(self, count: int) -> None:
        """The hook tells that guests have ended."""
        for _ in range(count):
            told = self.guests.tell()
            if told is not None:
                self.turn(type(told)(self._ticket(), told.release))

    def _others(self) -> None:
        """What happens on a host beside us, while no step runs that it could be mistaken for."""
        dice, ground = self.dice, self.ground
        gpu = dice.choice(ground.gpus())
        is_busy = any(isinstance(each, RunStep) for each in self.daemon.effects)
        deeds = ["make", "define", "open", "fill", "copy"]
        if not is_busy:
            deeds += ["take", "take", "vfs", "reload"]
        deed = dice.choice(deeds)
        self.tell(f"** others: {deed} {gpu}")
        match deed:
            case "make":
                ground.make_foreign(gpu)
            case "define":
                ground.make_foreign(gpu, autostart=True)
            case "open":
                ground.open_by_a_stranger()
            case "fill":
                ground.full = dice.randint(1, 3)
            case "copy":
                ground.copy_hostdev()
            case "take":
                ground.take_any()
            case "vfs":
                ground.turn_off_vfs(gpu)
            case "reload":
                ground.reload()

    def let_happen(self) -> None:
        """One effect happens; its end is told at once, or later than others that happen after it."""
        effects = self.daemon.effects
        ready = [number for number, each in enumerate(effects) if not self._waits_for_a_start(each)]
        if not ready:
            self._give_up_a_start()
            return
        effect = effects.pop(self.dice.choice(ready))
        if not isinstance(effect, (Observe, Glimpse, RunStep)):
            self.turn(effect)  # it happened before; now it is told
            return
        answer = self._perform(effect)
        if answer is None:
            return
        if self.dice.random() < 0.5:
            effects.append(answer)
        else:
            self.turn(answer)

    def _waits_for_a_start(self, effect: EngineEffect) -> bool:
        """libvirt answers nobody while it waits for its hook (ADR 7)."""
        if not self.guests.asked:
            return False
        is_step = isinstance(effect, RunStep) and isinstance(
            effect.step.effect, AttachHostdev | DetachHostdev
        )
        return is_step or isinstance(effect, Observe)

    def _give_up_a_start(self) -> None:
        """The hook's deadline: right where a GPU hangs, wrong where the start itself waits for libvirt."""
        ticket = min(self.guests.asked)
        if not self.ground.stuck:
            self.wrong.append(f"the start of {self.guests.asked[ticket].domain} waits for libvirt")
        self.turn(Withdrawn(ticket))
        self.guests.asked.pop(ticket, None)
        self.asked.discard(ticket)

    def _perform(self, effect: EngineEffect) -> Input | None:
        """Carry out an effect; None where it does not end now."""
        if isinstance(effect, Observe):
            self.ground.seen()
        if isinstance(effect, RunStep) and effect in self.written:
            self.written.remove(effect)
            return self._read_back(effect)
        self.moment = None
        try:
            return self.daemon.perform(effect)
        except Hanging:
            assert isinstance(effect, RunStep)
            self.tell(f"** {describe(effect.step.effect)}: hangs")
            self.ground.stuck.append(effect)
            if self.moment is Moment.AFTER and isinstance(effect.step.effect, CreateVgpu):
                self.written.append(effect)
            return None

    def _read_back(self, effect: RunStep) -> StepDone:
        """A creation that hung once it was written goes on where it was: it reads what stands there."""
        step = effect.step.effect
        assert isinstance(step, CreateVgpu)
        there = [each.type_id for each in self.ground.vgpus() if each.parent == step.parent]
        problem = None
        if step.type_id not in there:
            problem = errors.ReadBackMismatch(f"{step.parent} does not show it").to_problem()
        return StepDone(effect.operation, effect.round, effect.step.number, problem)

    def _run(self, effect: Effect) -> None:
        strike = self._strike(effect)
        self.moment = strike.moment if strike is not None else None
        was_going = self._goes_from_under_somebody(effect)
        try:
            if strike is None:
                self.stage.host.run(effect)
            else:
                strike.run()
        except (errors.VgpuctlError, Hanging):
            raise
        except Exception as error:
            # service/loop answers so, too; it is a fault of ours all the same.
            self.told.append("".join(traceback.format_exception(error)))
            self.wrong.append(f"{describe(effect)}: {type(error).__name__}: {error}")
            raise internal(error) from error
        finally:
            is_race = strike is not None and strike.moment in (Moment.INSIDE, Moment.AFTER)
            if not was_going and not is_race and self._goes_from_under_somebody(effect):
                self.wrong.append(f"{describe(effect)}: somebody has it open, and it was told to go")
            if strike is not None and strike.happened:
                kind = type(effect).__name__
                self.hits += Aim(kind, strike.trouble, strike.moment) == self.aim
                self.coverage.count(kind, strike.trouble.name, strike.moment)
                self.tell(f"** {strike.trouble.name} {strike.moment.name.lower()} {describe(effect)}")

    def _goes_from_under_somebody(self, effect: Effect) -> bool:
        """Whether the vGPU that is to be removed waits in the kernel for whoever has it open."""
        if not isinstance(effect, RemoveVgpu):
            return False
        state = self.stage.sim.engine.state
        return any(
            each.uuid == effect.vgpu and each.removing and state.holds_vgpu(each)
            for board in state.boards
            for each in board.vgpus
        )

    def _strike(self, effect: Effect) -> troubles.Strike | None:
        dice = self.dice
        is_free = self.is_aiming or (not self.is_calm and dice.random() < _MOST)
        if type(effect).__name__ == self.aim.step and self.hits < _HITS and is_free:
            return troubles.Strike(self.ground, effect, self.aim.trouble, self.aim.moment)
        if self.is_calm:
            return None
        if dice.random() >= STRIKES.get(type(effect), _MOST):
            return None
        likely = troubles.LIKELY.get(type(effect), ())
        chance = dice.random()
        if likely and chance < 0.3:
            trouble = troubles.named(dice.choice(likely))
        else:
            trouble = self.aim.trouble if chance < 0.6 else dice.choice(troubles.TROUBLES)
        can = [each for each in Moment if trouble.not_for(type(effect).__name__, each) is None]
        return troubles.Strike(self.ground, effect, trouble, dice.choice(can)) if can else None

    # -- the end ----------------------------------------------------------------------------------

    def settle(self) -> None:
        """All troubles end, and the daemon is left alone for long enough."""
        self.is_calm = True
        self.ground.full = 0
        self.ground.heal()
        self.ground.end_late_writes()
        for stranger in self.ground.strangers:
            self.ground.control("release", **stranger)
        self.ground.strangers.clear()
        self.tell("** all is well")
        self._finish()
        self.turn(PauseRequested(self._ticket(), paused=False, requester=WHO))
        self.rest()

    def rest(self) -> None:
        """Whatever can happen has happened."""
        self.hear_releases(len(self.guests.releases))
        for _ in range(3):
            self.turn(SweepDue())
            self._finish()
            self.stage.sim.clock.advance(7200)

    def _finish(self) -> None:
        for _ in range(10_000):
            self.daemon.effects += self.ground.stuck
            self.ground.stuck.clear()
            if not self.daemon.effects:
                return
            self.let_happen()
        raise AssertionError("it never comes to rest")

    def do(self, edit: Edit) -> Any:
        """Run an edit to its end, and return the operation; raises what refuses it."""
        ticket = self._ticket()
        self.turn(Submitted(ticket, WHO, edit))
        self._finish()
        return self.daemon.operation(ticket)


def is_paused(store: Any) -> bool:
    """Whether the last word of the log is that background changes are paused."""
    said = [each.record.paused for each in store.entries(0, 100_000) if isinstance(each.record, PauseSet)]
    return bool(said) and said[-1]


def say(item: Input) -> str:
    """An input, in a line of the trace."""
    match item:
        case Submitted(ticket=ticket, edit=edit, dry_run=dry_run):
            return f"{ticket}: {'show ' if dry_run else ''}{_sorted(edit)}"
        case Observed(number=number) | Glimpsed(number=number):
            return f"{type(item).__name__} {number}"
        case StepDone(operation=operation, round=round_, number=number, problem=problem):
            how = "done" if problem is None else f"failed: {problem.get('detail')}"
            return f"step {str(operation)[:8]}/{round_}/{number} {how}"
        case SweepDue() | Draining():
            return type(item).__name__
        case _:
            return str(item)


def _sorted(edit: Edit | None) -> str:
    """An edit as text; a frozenset would show in an order that differs between processes."""
    fields = (f"{name}={value!r}" for name in edit.__slots__ if (value := getattr(edit, name)) is not None)
    return f"{type(edit).__name__}({', '.join(fields)})"

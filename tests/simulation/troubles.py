"""What goes wrong around a step: answers of the kernel and of libvirt, events, deaths."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.simulation.coverage import Moment
from tests.simulation.ground import Ground
from tests.support.stage import Instead, Killed
from vgpuctl import errors
from vgpuctl.model.fact import Unknown
from vgpuctl.model.step import (
    AttachHostdev,
    CreateComputeInstance,
    CreateGpuInstance,
    CreateVgpu,
    DestroyComputeInstance,
    DestroyGpuInstance,
    DetachHostdev,
    DisableAutostart,
    Effect,
    RemoveVgpu,
    SetMigMode,
    SetVfs,
)
from vgpuctl.ports.nvml import NvmlDone

_LIBVIRT = frozenset({AttachHostdev.__name__, DetachHostdev.__name__})
_NVML = frozenset(
    each.__name__
    for each in (
        SetMigMode,
        CreateGpuInstance,
        DestroyGpuInstance,
        CreateComputeInstance,
        DestroyComputeInstance,
    )
)
_FILE = frozenset({DisableAutostart.__name__})
_UNKNOWN_ERROR = 999


@dataclass
class Call:
    """The call that changes the host, where a trouble comes in between; `again` makes it once more."""

    name: str = ""
    again: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Trouble:
    """`act` makes it happen, and raises what the call comes to; False where it cannot happen now.

    `not_for` says for which steps and moments it cannot come at all, and why.
    """

    name: str
    act: Callable[[Ground, Effect, Moment, Call], bool]
    not_for: Callable[[str, Moment], str | None] = lambda _step, _moment: None


def _gpu(ground: Ground, effect: Effect) -> str:
    """The GPU of a step; any where it has none."""
    if isinstance(effect, (AttachHostdev, DetachHostdev)):
        boards = ground.stage.sim.engine.state.boards
        return str(ground.dice.choice(boards).address)
    return str(effect.gpu.address)


def _only_in_a_write(step: str, moment: Moment) -> str | None:
    if step in _LIBVIRT:
        return "the kernel is not written to by steps that ask libvirt"
    if step in _NVML:
        return "MIG is changed through NVML, which answers with codes of its own"
    return _only_in_a_call(step, moment)


def _not_after_a_creation(step: str, moment: Moment) -> str | None:
    if step == CreateVgpu.__name__ and moment is Moment.AFTER:
        return "that a type is there already the driver says instead of setting one"
    return _only_in_a_write(step, moment)


def _only_in_a_call(_step: str, moment: Moment) -> str | None:
    if moment in (Moment.BEFORE, Moment.ENDED):
        return "an answer comes to a call, not before and not after it"
    return None


def _hangs(step: str, moment: Moment) -> str | None:
    if step in _LIBVIRT:
        return "the kernel is not written to by steps that ask libvirt"
    if step in _FILE:
        return "a file of mdevctl's is no sysfs file: writing it does not block"
    return _only_in_a_call(step, moment)


def _refuses(step: str, moment: Moment) -> str | None:
    if step not in _LIBVIRT | _NVML:
        return "the kernel refuses with an errno"
    return _only_in_a_call(step, moment)


def _dies_half_way(step: str, moment: Moment) -> str | None:
    if step != SetVfs.__name__:
        return "only SetVfs runs sriov-manage"
    if moment is not Moment.INSIDE:
        return "sriov-manage runs in the middle of its step"
    return None


def _errno(number: int, _ground: Ground, _effect: Effect, _moment: Moment, _call: Call) -> bool:
    raise OSError(number, errno.errorcode[number])


def _hang(ground: Ground, effect: Effect, moment: Moment, call: Call) -> bool:
    if moment is Moment.INSIDE:
        ground.late.append(call.again)
        if isinstance(effect, CreateVgpu):
            ground.ambiguous.add(str(effect.parent))
    if call.name == "order":
        raise Instead(Unknown("NVML did not answer in time"))
    raise TimeoutError(errno.ETIMEDOUT, "blocked in the kernel")


def _refuse(_ground: Ground, _effect: Effect, _moment: Moment, call: Call) -> bool:
    if call.name == "order":
        raise Instead(NvmlDone(code=_UNKNOWN_ERROR, text="Unknown Error"))
    raise errors.LibvirtRefused("no slot is free")


def _silence(make: Callable[[], errors.VgpuctlError]) -> Callable[[Ground, Effect, Moment, Call], bool]:
    def act(ground: Ground, effect: Effect, moment: Moment, _call: Call) -> bool:
        ground.silence(make())
        if type(effect).__name__ in _LIBVIRT and moment in (Moment.INSIDE, Moment.AFTER):
            raise make()
        return True

    return act


def _restarts() -> errors.VgpuctlError:
    return errors.LibvirtUnreachable("the connection was closed")


def _mute() -> errors.VgpuctlError:
    return errors.DeadlineExceeded("libvirt has not answered in time")


def _full(ground: Ground, _effect: Effect, _moment: Moment, _call: Call) -> bool:
    ground.full = ground.dice.randint(1, 3)
    return True


def _vanish(ground: Ground, effect: Effect, _moment: Moment, _call: Call) -> bool:
    mine = getattr(effect, "parent", None)
    there = [each for each in ground.vgpus() if each.parent == mine]
    if there and ground.dice.random() < 0.7:
        return ground.take_away(ground.dice.choice(there))
    return ground.take_any()


def _others(ground: Ground, effect: Effect, moment: Moment, _call: Call) -> bool:
    before = set(ground.stage.foreign)
    mine = _gpu(ground, effect)
    others = [each for each in ground.gpus() if each != mine]
    # Where VFs are off, or no instance is cut, there is room on another card only.
    is_made = any(ground.make_foreign(each) for each in (mine, *others))
    if isinstance(effect, SetVfs) and moment is Moment.INSIDE:
        # Between our last look and sriov-manage nobody can see it come, and it goes with the VFs.
        ground.ambiguous |= {parent for parent, _ in ground.stage.foreign - before}
    return is_made


def _save(ground: Ground, effect: Effect, _moment: Moment, _call: Call) -> bool:
    guests = ground.guests
    if guests is None or not guests.running:
        return False
    own = getattr(effect, "domain", None)
    return guests.save(own if own in guests.running else ground.dice.choice([*guests.running]))


def _copy(ground: Ground, _effect: Effect, _moment: Moment, _call: Call) -> bool:
    return ground.copy_hostdev()


def _vfs(ground: Ground, effect: Effect, _moment: Moment, _call: Call) -> bool:
    mine = _gpu(ground, effect)
    # Those of a GPU that are off cannot go: then they are another one's.
    return any(ground.turn_off_vfs(each) for each in (mine, *(e for e in ground.gpus() if e != mine)))


def _open(ground: Ground, effect: Effect, _moment: Moment, _call: Call) -> bool:
    return ground.open_by_a_stranger(getattr(effect, "parent", None))


def _dies(how: str, ground: Ground, _effect: Effect, _moment: Moment, _call: Call) -> bool:
    raise Killed(how)


def _event(what: Callable[[Ground, str], bool]) -> Callable[[Ground, Effect, Moment, Call], bool]:
    return lambda ground, effect, _moment, _call: what(ground, _gpu(ground, effect))


def _half_way(ground: Ground, effect: Effect, _moment: Moment, _call: Call) -> bool:
    ground.control("fail", what="sriov-manage", gpu=_gpu(ground, effect), count=1)
    return True


def _errnos() -> list[Trouble]:
    numbers = (errno.EIO, errno.ENOSPC, errno.EPERM, errno.EBUSY)
    return [
        Trouble(
            errno.errorcode[each],
            partial(_errno, each),
            _not_after_a_creation if each in (errno.EPERM, errno.EBUSY) else _only_in_a_write,
        )
        for each in numbers
    ]


KILL, POWER, SWAP, MOVE = "kill -9", "power loss", "card swapped", "card moved"
SAVE, COPY, VFS = "guest saved", "XML copied", "VFs vanish"
DEATHS = (KILL, POWER, SWAP, MOVE)

TROUBLES = (
    *_errnos(),
    Trouble("write hangs", _hang, _hangs),
    Trouble("refused", _refuse, _refuses),
    Trouble("sriov half-way", _half_way, _dies_half_way),
    Trouble("libvirt restarts", _silence(_restarts)),
    Trouble("libvirt is mute", _silence(_mute)),
    Trouble("NVML hangs", _event(lambda ground, _gpu: ground.fail("nvml", hang=True))),
    Trouble("GPU hangs", _event(lambda ground, gpu: ground.fail("gpu", gpu=gpu, hang=True))),
    Trouble("handles unread", _event(lambda ground, _gpu: ground.fail("holders"))),
    Trouble("vGPU vanishes", _vanish),
    Trouble(VFS, _vfs),
    Trouble("GPU falls off", _event(Ground.fall_off)),
    Trouble("driver reload", _event(lambda ground, _gpu: ground.reload())),
    Trouble("others create", _others),
    Trouble("others open", _open),
    Trouble(SAVE, _save),
    Trouble(COPY, _copy),
    Trouble("disk full", _full),
    Trouble(KILL, partial(_dies, KILL)),
    Trouble(POWER, partial(_dies, POWER)),
    Trouble(SWAP, partial(_dies, SWAP)),
    Trouble(MOVE, partial(_dies, MOVE)),
)
LIKELY = {
    CreateVgpu: ("others create", "write hangs", "EIO", KILL),
    RemoveVgpu: ("others open", "vGPU vanishes", "others create"),
}
"""What steps of a kind meet more often than the rest."""
NAMES = tuple(each.name for each in TROUBLES)


def named(name: str) -> Trouble:
    """The trouble of that name."""
    return next(each for each in TROUBLES if each.name == name)


def why_not(step: str, trouble: str, moment: Moment) -> str | None:
    """Why a cell of the matrix cannot be reached; None where it can."""
    return named(trouble).not_for(step, moment)


class Strike:
    """One trouble, at one moment of one step; `happened` says whether it came to it."""

    def __init__(self, ground: Ground, effect: Effect, trouble: Trouble, moment: Moment) -> None:
        self.ground = ground
        self.effect = effect
        self.trouble = trouble
        self.moment = moment
        self.happened = False

    def run(self) -> None:
        """Run the step with it."""
        stage = self.ground.stage
        around = (stage.kernel, stage.hypervisor, stage.nvml)
        before = [(each.instead, each.afterwards) for each in around]
        for each in around:
            if self.moment is Moment.INSIDE:
                each.instead = partial(self._in_a_call, each)
            elif self.moment is Moment.AFTER:
                each.afterwards = partial(self._in_a_call, each)
        try:
            if self.moment is Moment.BEFORE:
                self._come(Call())
            stage.host.run(self.effect)
            if self.moment is Moment.ENDED:
                self._come(Call())
        finally:
            for each, (instead, afterwards) in zip(around, before, strict=True):
                each.instead, each.afterwards = instead, afterwards

    def _in_a_call(self, fused: Any, name: str, *args: Any, **more: Any) -> None:
        if not self.happened:
            self._come(Call(name, partial(getattr(fused.inner, name), *args, **more)))

    def _come(self, call: Call) -> None:
        self.happened = True
        self.happened = self.trouble.act(self.ground, self.effect, self.moment, call)

"""What a seed aims at: one cell of the matrix, so that rare steps meet every trouble within few seeds."""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.clients import MIG_STEPS
from tests.simulation.coverage import STEPS, Moment
from tests.simulation.settings import SETTINGS, Setting
from tests.simulation.troubles import COPY, SAVE, TROUBLES, VFS, Trouble
from vgpuctl.model.step import (
    AttachHostdev,
    DetachHostdev,
    DisableAutostart,
    SetVfs,
)


@dataclass(frozen=True)
class Aim:
    """A trouble that is to come to a step of that kind at that moment."""

    step: str
    trouble: Trouble
    moment: Moment


def aim_of(seed: int) -> Aim:
    """The cell of a seed: of each host in turn the next of those that are left to it."""
    aims = _SHARES[seed % len(SETTINGS)]
    return aims[seed // len(SETTINGS) % len(aims)]


def can_have(setting: Setting, aim: Aim) -> bool:
    """Whether a cell can be reached on a host."""
    absent = set()
    if not setting.has_vfs:
        absent |= {SetVfs.__name__, VFS}
    if not setting.profiles:
        absent |= {*MIG_STEPS}
    if not setting.desktops:
        absent |= {AttachHostdev.__name__, DetachHostdev.__name__, SAVE, COPY}
    if not setting.has_mdevs:
        absent.add(DisableAutostart.__name__)
    return not {aim.step, aim.trouble.name} & absent


def _shares() -> list[list[Aim]]:
    """Every cell that can be, given to one of the hosts that can have it."""
    shares: list[list[Aim]] = [[] for _ in SETTINGS]
    for moment in Moment:
        for trouble in TROUBLES:
            for step in STEPS:
                aim = Aim(step, trouble, moment)
                able = [n for n, setting in enumerate(SETTINGS) if can_have(setting, aim)]
                if able and trouble.not_for(step, moment) is None:
                    min((shares[n] for n in able), key=len).append(aim)
    return shares


_SHARES = _shares()

"""What an operation on the machine comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vgpuctl.ports.kernel import Uevent
from vgpuctl.sim.state import State


@dataclass(frozen=True, slots=True)
class Operation:
    """One call: what is asked, and of what."""

    verb: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state afterwards, and the answer: a result, an errno, or an operation to wait for.

    `then` is tried again whenever the state has changed: the caller is blocked in the kernel until
    it comes to something else.  `about` is the path that an errno is about.
    """

    state: State
    result: Any = None
    errno: int = 0
    about: str = ""
    events: tuple[Uevent, ...] = ()
    then: Operation | None = None

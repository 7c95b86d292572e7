"""How the open handles are read for several lanes at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.support.libvirtd import wait_until
from vgpuctl.errors import FactUnknown, VgpuBusy
from vgpuctl.host.guard import Guard
from vgpuctl.host.nvml.adapter import NullNvml
from vgpuctl.model.fact import Fact
from vgpuctl.model.gpu import Holder
from vgpuctl.sim.host import SimHost

HELD = {"/dev/vfio/7": (Holder(pid=474, command="qemu-system-x86"),)}


class Handles:
    """Each pass waits until it is told what it finds."""

    def __init__(self) -> None:
        self.begun = 0
        self._may = threading.Semaphore(0)
        self._found: list[Any] = []

    def holders(self) -> Fact[Any]:
        self.begun += 1
        self._may.acquire()
        found = self._found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def end(self, found: object) -> None:
        self._found.append(found)
        self._may.release()


class Queue:
    """A lock that counts those who have come to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.came = 0

    def acquire(self, timeout: float) -> bool:
        self.came += 1
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()


class Lane(threading.Thread):
    """Somebody who asks whether anybody has a GPU open."""

    def __init__(self, guard: Guard) -> None:
        super().__init__(daemon=True)
        self._guard = guard
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._guard.nobody_holds_any_gpu()
        except Exception as error:
            self._error = error

    def said(self) -> type[Exception] | None:
        self.join(20)
        assert not self.is_alive()
        return type(self._error) if self._error else None


@pytest.fixture
def handles() -> Handles:
    return Handles()


@pytest.fixture
def guard(handles: Handles, monkeypatch: pytest.MonkeyPatch) -> Guard:
    made = Guard(SimHost.in_memory("t4").kernel, NullNvml(), handles, None)
    monkeypatch.setattr(made, "_one_pass", Queue())
    return made


def asked(guard: Guard, number: int) -> list[Lane]:
    """So many lanes, which wait for a pass, or for their turn."""
    before = guard._one_pass.came
    lanes = [Lane(guard) for _ in range(number)]
    wait_until(lambda: guard._one_pass.came == before + number, "all have asked")
    return lanes


def test_those_who_wait_share_a_pass_that_began_after_they_asked(guard: Guard, handles: Handles) -> None:
    (first,) = asked(guard, 1)
    wait_until(lambda: handles.begun == 1, "a pass")
    others = asked(guard, 3)
    # opened after the pass that is under way was there: the next one sees it
    handles.end({})
    handles.end(HELD)
    assert first.said() is None
    assert [each.said() for each in others] == [VgpuBusy] * 3
    assert handles.begun == 2
    (later,) = asked(guard, 1)
    handles.end({})
    assert later.said() is None


def test_a_pass_that_failed_tells_nothing(guard: Guard, handles: Handles) -> None:
    first = asked(guard, 1)
    wait_until(lambda: handles.begun == 1, "a pass")
    others = asked(guard, 2)
    handles.end({})
    handles.end(ZeroDivisionError())
    assert [each.said() for each in first] == [None]
    assert {each.said() for each in others} == {ZeroDivisionError, FactUnknown}

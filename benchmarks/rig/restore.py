"""All vGPUs back after a reload of the driver: by vgpuctl, by raw writes, by mdevctl; and with a hung card.

The time runs from the moment when the driver is there again, with its VFs and the files to write to.
vgpuctl and udev are held until then, so that they do not begin before the others.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from benchmarks.rig.cards import Cards, Place, places, run, settle, wait_until_made, wait_until_ready
from benchmarks.rig.daemon import Daemon
from benchmarks.rig.definitions import define, undefine
from tests.rig.simulated import Nvsim

_MADE_S: Final = 300.0
_NEVER: Final = 6.0
_NEVER_S: Final = 30.0
"""What has not come with a card hung, in so many times the time without and so many seconds, never will."""
_CALM_S: Final = 3.0
_SLOW_MS: Final = 200
_MDEVCTL: Final = Path("/usr/sbin/mdevctl")
"""Where Debian 13's udev rule looks for the program, which stands elsewhere there."""

Go = Callable[[], object]
Begun = Callable[[], AbstractContextManager[Go]]
"""Loads the driver in its block and gives what sets the writing off."""


def measure(cards: Cards, rounds: int) -> dict[str, Any]:
    """Seconds of each round and way: all vGPUs; those of the other cards; these with one card hung; and
    all from a driver that takes `_SLOW_MS` for each.

    None: they never came.  `writes` are those that the driver got of a restore by vgpuctl.
    """
    cards.plug()
    daemon = Daemon()
    daemon.start()
    daemon.create(cards.gpus, cards.each, cards.vgpu_type)
    wanted = places(cards)
    daemon.stop()
    seconds: dict[str, list[dict[str, float | None]]] = {}
    writes: dict[str, int] = {}
    for _ in range(rounds):
        for name, way in _ways(cards, wanted, daemon).items():
            with way as begun:
                found = _timed(cards, wanted, begun)
                if name == "vgpuctl":
                    writes = Nvsim().writes()
                found["others, one hung"] = _timed_with_hung(cards, wanted, begun, found["others"] or _MADE_S)
                found["all, slow driver"] = _timed(cards, wanted, begun, _SLOW_MS)["all"]
            seconds.setdefault(name, []).append(found)
    Nvsim().unload()
    return {"vgpus": len(wanted), "cards": len(cards.gpus), "seconds": seconds, "writes": writes}


def _timed(cards: Cards, wanted: list[Place], begun: Begun, slow_ms: int = 0) -> dict[str, float | None]:
    others = [each for each in wanted if each.gpu != cards.gpus[1]]
    with begun() as go:
        Nvsim().set("slow_ms", slow_ms)
        began = time.monotonic()
        try:
            go()
            found: dict[str, float | None] = {}
            for name, which in (("others", others), ("all", wanted)):
                is_made = wait_until_made(which, _MADE_S)
                found[name] = round(time.monotonic() - began, 3) if is_made else None
        finally:
            Nvsim().set("slow_ms", 0)
    return found


def _timed_with_hung(cards: Cards, wanted: list[Place], begun: Begun, without_s: float) -> float | None:
    hung = cards.gpus[1]
    others = [each for each in wanted if each.gpu != hung]
    with begun() as go:
        Nvsim().set("hang", f"{'type' if cards.has_vfs else 'create'} {hung}")
        began = time.monotonic()
        try:
            go()
            is_made = wait_until_made(others, max(_NEVER_S, _NEVER * without_s))
            return round(time.monotonic() - began, 3) if is_made else None
        finally:
            Nvsim().set("hang", "none")
            wait_until_made(wanted, _MADE_S)


def _ways(cards: Cards, wanted: list[Place], daemon: Daemon) -> dict[str, AbstractContextManager[Begun]]:
    ways = {"vgpuctl": _by_vgpuctl(cards, wanted, daemon), "raw": _by_program(cards, wanted, _raw)}
    if not cards.has_vfs:
        ways["mdevctl"] = _by_program(cards, wanted, _mdevctl)
        ways["mdevctl by udev"] = _by_udev(cards, wanted)
    return ways


@contextlib.contextmanager
def _by_vgpuctl(cards: Cards, wanted: list[Place], daemon: Daemon) -> Iterator[Begun]:
    @contextlib.contextmanager
    def begun() -> Iterator[Go]:
        cards.unload()
        time.sleep(_CALM_S)  # it has seen that all is gone
        with contextlib.ExitStack() as stack:
            stack.enter_context(daemon.held())
            cards.load()
            wait_until_ready(wanted)
            yield stack.close

    cards.unload()
    cards.load()
    daemon.start()
    try:
        wait_until_made(wanted, _MADE_S)
        yield begun
    finally:
        daemon.stop()


@contextlib.contextmanager
def _by_program(cards: Cards, wanted: list[Place], make: Callable[[Place], object]) -> Iterator[Begun]:
    """One process that makes one after the other, and waits for the word to begin."""

    @contextlib.contextmanager
    def begun() -> Iterator[Go]:
        word = multiprocessing.Event()
        process = multiprocessing.Process(target=_make_all, args=(wanted, make, word))
        process.start()
        cards.unload()
        cards.load()
        wait_until_ready(wanted)
        yield word.set
        process.join()

    define(wanted, auto=False)
    try:
        yield begun
    finally:
        undefine(wanted)


@contextlib.contextmanager
def _by_udev(cards: Cards, wanted: list[Place]) -> Iterator[Begun]:
    """mdevctl as its udev rule calls it, parent by parent."""

    @contextlib.contextmanager
    def begun() -> Iterator[Go]:
        cards.unload()
        run("udevadm", "control", "--stop-exec-queue")
        try:
            cards.load()
            wait_until_ready(wanted)
            yield _let_udev_go
        finally:
            _let_udev_go()
        settle()

    define(wanted, auto=True)
    if not _MDEVCTL.exists():
        _MDEVCTL.symlink_to("/usr/bin/mdevctl")
    try:
        yield begun
    finally:
        undefine(wanted)


def _let_udev_go() -> None:
    # With a card hung it does not answer, and goes on all the same.
    command = ["udevadm", "control", "--timeout=5", "--start-exec-queue"]
    subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL)


def _make_all(wanted: list[Place], make: Callable[[Place], object], word: Any) -> None:
    word.wait()
    for place in wanted:
        make(place)


def _raw(place: Place) -> None:
    place.make()


def _mdevctl(place: Place) -> None:
    subprocess.run(["mdevctl", "start", "-u", place.text], check=True, stdin=subprocess.DEVNULL)

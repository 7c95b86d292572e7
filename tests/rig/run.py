"""Runs of tests by another pytest, in a guest or with machines: each followed from a thread of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.rig import payload
from tests.rig.cache import Cache, default_directory, said
from tests.rig.guests import GUESTS
from tests.rig.layers import REPOSITORY, Layers, build
from tests.rig.machine import Machine, MachineError
from tests.rig.plugin import REPORTS

_TEST_S: Final = 600
_RUN_S: Final = 3600.0
_SILENT_S: Final = 900.0
_NO_ANSWER_S: Final = 180.0
_LOOK_S: Final = 10.0
_MACHINES: Final = 4
_DRAIN_S: Final = 10.0
_BROKEN_KERNEL: Final = re.compile(
    r"Kernel panic|BUG: |Oops|general protection fault|refcount_t: |WARNING: CPU|"
    r"possible circular locking|slab corruption"
)
_building: dict[str, threading.Lock] = defaultdict(threading.Lock)


_SLOT_S: Final = 0.5


@contextmanager
def machine_slot() -> Iterator[None]:
    """As many machines at a time as there are processors, of all runs of this user."""
    cache = Cache(default_directory())
    slots = itertools.cycle(f"machine-{number}" for number in range(os.cpu_count() or 1))
    with contextlib.ExitStack() as held:
        while not held.enter_context(cache.locked_if_free(next(slots))):
            held.close()
            time.sleep(_SLOT_S)
        yield


def artefacts(name: str) -> Path:
    """Where a run of that name leaves its logs."""
    return REPOSITORY / "build" / "rig" / name


def layers_of(guest: str) -> Layers:
    """The layers of a guest; builds what is missing, once."""
    with _building[guest]:
        return build(GUESTS[guest], Cache(default_directory()))


def started(guest: str, directory: Path) -> Machine:
    """A machine of that guest with this repository's vgpuctl installed in it."""
    layers = layers_of(guest)
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / "payload.tar"
    payload.pack(layers, archive)
    machine = Machine.resumed(layers.guest, layers.hardware, layers.golden, directory, archive)
    try:
        machine.must(payload.INSTALL, timeout_s=120)
    except BaseException:
        machine.stop()
        raise
    return machine


@contextmanager
def one_machine(guest: str, directory: Path) -> Iterator[Machine]:
    """A machine of that guest for a `with` block, when there is a slot for it."""
    layers_of(guest)
    with machine_slot():
        machine = started(guest, directory)
        try:
            yield machine
        finally:
            machine.stop()


class Run(threading.Thread):
    """Tests that another pytest runs, by their node ids; `reports_of` waits for one of them."""

    def __init__(self, ids: list[str], options: list[str], *, name: str, after: Run | None = None) -> None:
        """`after` is the run that has to have its machine before this one may have one."""
        super().__init__(name=name, daemon=True)
        self._ids = ids
        self._options = options
        self._after = after
        self._had_its_turn = threading.Event()
        self._changed = threading.Condition()
        self._reports: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._done: set[str] = set()
        self._lost: dict[str, str] = {}
        self._current: str | None = None
        self._heard = time.monotonic()
        self._given_up = False
        self._end: str | None = None
        self.complaints: list[str] = []
        """What the kernel said that no test may leave behind."""
        self.replaced: list[str] = []
        """Why a machine was replaced, once for each."""

    def run(self) -> None:
        """Do all of it, and tell whoever waits how it ended."""
        try:
            end = self._in_turn()
        except Exception as error:  # whoever waits for a report must hear of it
            end = f"{type(error).__name__}: {error}"
        finally:
            self._had_its_turn.set()
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def reports_of(self, nodeid: str) -> list[dict[str, Any]] | str:
        """A test's reports, or why there are none."""
        with self._changed:
            self._changed.wait_for(lambda: nodeid in self._done or self._end is not None)
            if nodeid in self._lost or nodeid not in self._done:
                return self._lost.get(nodeid) or str(self._end)
            return self._reports.pop(nodeid)

    def stop(self) -> None:
        """Give up, whatever it is doing."""
        raise NotImplementedError

    def _in_turn(self) -> str:
        """Do all of it when it has its turn; how it ended."""
        raise NotImplementedError

    def _wait_for_turn(self) -> None:
        if self._after is not None:
            self._after._had_its_turn.wait()

    def _take(self, message: dict[str, Any]) -> None:
        with self._changed:
            self._heard = time.monotonic()
            if "started" in message:
                self._current = message["started"]
            elif "report" in message:
                self._reports[message["report"]["nodeid"]].append(message["report"])
            else:
                self._current = None
                self._done.add(message["finished"])
                self._changed.notify_all()


class MachineRun(Run):
    """Tests that have machines to themselves, in a pytest beside this one: neither waits for the other."""

    _process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """Give up; its machines end with it."""
        self._given_up = True
        if self._process is not None:
            self._process.kill()

    def _in_turn(self) -> str:
        self._wait_for_turn()
        directory = artefacts(self.name)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ids").write_text("\n".join(self._ids))
        log = directory / "pytest.log"
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as reports, log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    # A run that is killed takes it along, and it its machines.
                    *("setpriv", "--pdeathsig", "KILL"),
                    *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
                    *(f"--override-ini=timeout={_RUN_S:.0f}", *self._options, f"@{directory / 'ids'}"),
                ],
                cwd=REPOSITORY,
                env={**os.environ, REPORTS: f"/proc/self/fd/{writing}"},
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            os.close(writing)
            if self._given_up:
                self._process.kill()
            for line in reports:
                self._take(json.loads(line))
                if self._done:
                    self._had_its_turn.set()
            status = self._process.wait()
        said(f"{self.name} was done")
        return f"its pytest ended with {status} and without this test:\n{log.read_text()[-4000:]}"


class GuestRun(Run):
    """Tests in that guest.

    A guest that stops answering is replaced.  The test at which it stopped is tried once more, and has
    failed when that machine stops there too.
    """

    def __init__(
        self, guest: str, ids: list[str], options: list[str], *, name: str, after: Run | None = None
    ) -> None:
        """`after` is the run that has to have its machine before this one may have one."""
        super().__init__(ids, options, name=name, after=after)
        self.guest = guest
        self._machine: Machine | None = None
        self._stopped_answering: str | None = None

    def _in_turn(self) -> str:
        layers_of(self.guest)
        self._wait_for_turn()
        with machine_slot():
            self._had_its_turn.set()
            return self._all()

    def stop(self) -> None:
        """Give up, whatever it is doing."""
        self._given_up = True
        if self._machine is not None:
            self._machine.stop()

    def _all(self) -> str:
        """Test in one machine after the other, until one was enough."""
        shutil.rmtree(artefacts(self.name), ignore_errors=True)
        stops: Counter[str | None] = Counter()
        end = "given up"
        for number in range(1, _MACHINES + 1):
            self._current = self._stopped_answering = None
            left = [each for each in self._ids if each not in self._done]
            directory = artefacts(self.name) / f"machine-{number}"
            try:
                end = self._some(left, directory)
            except (MachineError, TimeoutError) as error:
                end = str(error)
                self._stopped_answering = self._stopped_answering or end.partition("\n")[0]
            if self._given_up or self._stopped_answering is None or self._done.issuperset(self._ids):
                break
            stops[self._current] += 1
            self._complain(directory / "console.log")
            self.replaced.append(f"{self._stopped_answering}, in {self._current or 'no test'}")
            with self._changed:
                if self._current is not None and stops[self._current] == 1:
                    self._reports.pop(self._current, None)
                elif self._current is not None:
                    self._lost[self._current] = f"twice {self._stopped_answering}"
                    self._done.add(self._current)
                    self._changed.notify_all()
        return end

    def _some(self, ids: list[str], directory: Path) -> str:
        begun = time.monotonic()
        self._machine = machine = started(self.guest, directory)
        ended = threading.Event()
        following = threading.Thread(target=self._follow, args=(machine,), daemon=True)
        try:
            if self._given_up:
                return "given up"
            said(f"{self.name} is up in {time.monotonic() - begun:.0f} s; {len(ids)} tests")
            self._heard = time.monotonic()
            following.start()
            threading.Thread(target=self._watch, args=(machine, ended), daemon=True).start()
            machine.must("cat > /run/rig-ids", stdin="\n".join(ids).encode())
            status, output = machine.sh(
                f"cd /srv/tree && VGPUCTL_RIG={self.guest} CI=true python3 -m pytest -p no:cacheprovider "
                f"--override-ini=timeout={_TEST_S} {' '.join(self._options)} @/run/rig-ids",
                timeout_s=_RUN_S,
            )
            ended.set()
            (directory / "pytest.log").write_text(output)
            self._keep_logs(machine, directory)
            said(f"{self.name} was done in {time.monotonic() - begun:.0f} s")
            return f"the guest's pytest ended with {status} and without this test:\n{output[-4000:]}"
        finally:
            ended.set()
            machine.stop()
            if following.is_alive():
                following.join(_DRAIN_S)  # what was sent before the end counts
            for leftover in ("disk.qcow2", "payload.img", "payload.tar"):
                (directory / leftover).unlink(missing_ok=True)

    def _follow(self, machine: Machine) -> None:
        text = b""
        while chunk := machine.reports.recv(1 << 16):
            *lines, text = (text + chunk).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _watch(self, machine: Machine, ended: threading.Event) -> None:
        """End a guest that answers no more, or in which nothing goes on any more."""
        while not ended.wait(_LOOK_S):
            why = None
            if not machine.answers_within(_NO_ANSWER_S):
                why = f"{self.name} did not answer within {_NO_ANSWER_S:.0f} s"
            elif time.monotonic() - self._heard > _SILENT_S:
                why = f"{self.name} got nowhere for {_SILENT_S:.0f} s"
            if why is None or ended.is_set():
                continue
            self._stopped_answering = why
            said(why)
            with contextlib.suppress(MachineError, OSError):
                (machine.directory / "processors.log").write_text(machine.processors())
            machine.stop()
            return

    def _keep_logs(self, machine: Machine, directory: Path) -> None:
        for name, command in (("dmesg", "dmesg"), ("journal", "journalctl -b --no-pager -o short-monotonic")):
            _, output = machine.sh(command, timeout_s=120)
            (directory / f"{name}.log").write_text(output)
        self._complain(directory / "dmesg.log")

    def _complain(self, log: Path) -> None:
        """Note what the kernel says there that no test may leave behind."""
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        self.complaints += [line for line in lines if _BROKEN_KERNEL.search(line)]

"""One run of tests in one guest: built, started and followed from a thread of its own."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from tests.rig import payload
from tests.rig.cache import Cache, default_directory, said
from tests.rig.guests import GUESTS
from tests.rig.layers import REPOSITORY, Layers, build
from tests.rig.machine import Machine

MACHINE_SLOT: Final = threading.Lock()
"""One machine at a time: each wants every core."""
_RUN_S: Final = 3600.0
_SILENT_S: Final = 600.0
_BROKEN_KERNEL: Final = re.compile(
    r"BUG: |Oops|general protection fault|refcount_t: |WARNING: CPU|possible circular locking|slab corruption"
)
_building: dict[str, threading.Lock] = defaultdict(threading.Lock)


def artefacts(guest: str) -> Path:
    """Where a run leaves its logs."""
    return REPOSITORY / "build" / "rig" / guest


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
    machine = Machine.resumed(layers.guest, layers.image, layers.golden, directory, archive)
    try:
        machine.must(payload.INSTALL, timeout_s=120)
    except BaseException:
        machine.stop()
        raise
    return machine


class GuestRun(threading.Thread):
    """The tests with these node ids, in that guest; `reports_of` waits for one of them."""

    def __init__(self, guest: str, ids: list[str], options: list[str]) -> None:
        super().__init__(name=f"rig {guest}", daemon=True)
        self.guest = guest
        self._ids = ids
        self._options = options
        self._changed = threading.Condition()
        self._reports: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._done: set[str] = set()
        self._heard = time.monotonic()
        self._machine: Machine | None = None
        self._given_up = False
        self._end: str | None = None
        self.complaints: list[str] = []
        """What the kernel said that no test may leave behind."""

    def run(self) -> None:
        """Build, start, test, and leave the logs."""
        end = "the guest's tests ended"
        try:
            layers_of(self.guest)
            with MACHINE_SLOT:
                end = self._run()
        except Exception as error:  # whoever waits for a report must hear of it
            end = f"{type(error).__name__}: {error}"
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def reports_of(self, nodeid: str) -> list[dict[str, Any]] | str:
        """A test's reports, or why there are none."""
        with self._changed:
            self._changed.wait_for(lambda: nodeid in self._done or self._end is not None)
            return self._reports.pop(nodeid) if nodeid in self._done else str(self._end)

    def stop(self) -> None:
        """Give up, whatever it is doing."""
        self._given_up = True
        if self._machine is not None:
            self._machine.stop()

    def _run(self) -> str:
        directory = artefacts(self.guest)
        shutil.rmtree(directory, ignore_errors=True)
        begun = time.monotonic()
        self._machine = machine = started(self.guest, directory)
        try:
            if self._given_up:
                return "given up"
            said(f"{self.guest} is up in {time.monotonic() - begun:.0f} s; {len(self._ids)} tests")
            threading.Thread(target=self._follow, args=(machine,), daemon=True).start()
            threading.Thread(target=self._watch, args=(machine,), daemon=True).start()
            machine.must("cat > /run/rig-ids", stdin="\n".join(self._ids).encode())
            status, output = machine.sh(
                f"cd /srv/tree && VGPUCTL_RIG={self.guest} CI=true python3 -m pytest -p no:cacheprovider "
                f"--override-ini=timeout=300 {' '.join(self._options)} @/run/rig-ids",
                timeout_s=_RUN_S,
            )
            (directory / "pytest.log").write_text(output)
            self._keep_logs(machine, directory)
            said(f"{self.guest} was done in {time.monotonic() - begun:.0f} s")
            self._drained()
            return f"the guest's pytest ended with {status} and without this test:\n{output[-4000:]}"
        finally:
            machine.stop()
            for leftover in ("disk.qcow2", "payload.img", "payload.tar"):
                (directory / leftover).unlink(missing_ok=True)

    def _follow(self, machine: Machine) -> None:
        text = b""
        while chunk := machine.reports.recv(1 << 16):
            *lines, text = (text + chunk).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        with self._changed:
            self._heard = time.monotonic()
            if "report" in message:
                self._reports[message["report"]["nodeid"]].append(message["report"])
            else:
                self._done.add(message["finished"])
                self._changed.notify_all()

    def _watch(self, machine: Machine) -> None:
        """End a guest that says nothing any more."""
        while machine.is_running:
            time.sleep(1)
            if time.monotonic() - self._heard > _SILENT_S:
                said(f"{self.guest} has said nothing for {_SILENT_S:.0f} s")
                machine.stop()

    def _drained(self) -> None:
        """Wait until what the guest has sent is here."""
        with self._changed:
            self._changed.wait_for(lambda: self._done.issuperset(self._ids), 5.0)

    def _keep_logs(self, machine: Machine, directory: Path) -> None:
        for name, command in (("dmesg", "dmesg"), ("journal", "journalctl -b --no-pager -o short-monotonic")):
            _, output = machine.sh(command, timeout_s=120)
            (directory / f"{name}.log").write_text(output)
        log = (directory / "dmesg.log").read_text().splitlines()
        self.complaints = [line for line in log if _BROKEN_KERNEL.search(line)]

"""The real daemon, killed again and again under 64 real clients; libvirt's domains are real, too."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.verdict import open_steps, told_and_kept, unreported
from tests.support.daemon import Daemon as Process
from tests.support.libvirtd import Libvirtd, libvirtd, libvirtd_session, tiny_domain, wait_until
from tests.support.stage import Daemon, Stage, faults_of
from vgpuctl import errors
from vgpuctl.client.client import Client
from vgpuctl.host.libvirt.connection import LibvirtHypervisor
from vgpuctl.sim.server import load

__all__ = ["libvirtd", "libvirtd_session"]

pytestmark = [pytest.mark.slow, pytest.mark.thorough, pytest.mark.root, pytest.mark.timeout(400)]

CARDS = "l40s:sriov-mdev,l40s:sriov-mdev,l4:vendor-vfio,t4"
DELETES, DETACHES, ATTACHES, CREATES, VENDOR = 12, 8, 12, 24, 8
"""64 clients.  With what stands there before they ask for more than the cards have."""
KILLS = 5
PATIENCE_S = 100.0
CODES = {
    errors.DaemonUnreachable.code,
    errors.DeadlineExceeded.code,
    errors.NoCapacity.code,
}
"""With what a client may be refused here, and nothing else."""


@dataclass
class Told:
    """A client: what it asked for, of which vGPU and domain, and what it was told."""

    what: str
    name: str
    process: subprocess.Popen[str]
    status: int = -1
    out: str = ""
    err: str = ""

    def hear(self) -> None:
        self.out, self.err = self.process.communicate(timeout=PATIENCE_S)
        self.status = self.process.returncode

    @property
    def faults(self) -> list[str]:
        """A result is JSON and an exit status of 0; a refusal a problem with the status of its code."""
        label = f"{self.what} {self.name}: {self.status} {self.out!r} {self.err!r}"
        if self.status == 0:
            return [] if _is_json(self.out) else [f"no result: {label}"]
        if self.out or not _is_json(self.err):
            return [f"no clear error: {label}"]
        problem = json.loads(self.err)
        error = errors.VgpuctlError.from_problem(problem)
        if error.code not in CODES or error.exit_status != self.status or not error.message:
            return [f"no clear error: {label}"]
        return []


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@dataclass
class Program:
    """A program whose connection breaks once it has asked, and that asks again with the same key."""

    host: str
    name: str
    operations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._body = {"action": "create-vgpu", "type": "T4-4Q", "name": self.name}
        self._headers = {"Idempotency-Key": f"key-of-{self.name}"}

    def run(self) -> None:
        """Ask, hang up, and ask until there is an answer; then once more."""
        self._hang_up()
        self.ask()
        self.ask()

    def ask(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                answer = Client(self.host).post("/v1/operations", self._body, headers=self._headers)
            except errors.DaemonUnreachable:
                time.sleep(0.1)
            else:
                self.operations.append(answer["id"])
                return

    def _hang_up(self) -> None:
        connection = http.client.HTTPConnection("daemon")
        connection.sock = socket.socket(socket.AF_UNIX)
        with closing(connection):
            try:
                connection.sock.connect(self.host.removeprefix("unix://"))
                connection.request("POST", "/v1/operations", json.dumps(self._body), self._headers)
            except OSError:
                pass  # killed just now: then nothing was heard


def documents() -> str:
    """What stands there before: vGPUs that will be deleted, desktops that will lose theirs."""
    vgpus = [
        f"apiVersion: vgpuctl/v1\nkind: Vgpu\nname: d{n}\ntype: L40S-2Q\n" for n in range(1, DELETES + 1)
    ]
    desktops = [
        f"apiVersion: vgpuctl/v1\nkind: Desktop\nname: win{n}\nvgpus: [{{name: win{n}, type: L40S-2Q}}]\n"
        for n in range(1, DETACHES + 1)
    ]
    return "---\n".join([*vgpus, *desktops])


def clients(daemon: Process) -> list[Told]:
    """64 of them, in no order."""
    asked = [("delete", f"d{n}", ("vgpu", "delete", f"d{n}")) for n in range(1, DELETES + 1)]
    asked += [("detach", f"win{n}", ("detach", f"win{n}")) for n in range(1, DETACHES + 1)]
    asked += [
        ("attach", f"win{n}", ("attach", f"win{n}", "--type", "L40S-2Q"))
        for n in range(DETACHES + 1, DETACHES + ATTACHES + 1)
    ]
    asked += [
        ("create", f"c{n}", ("vgpu", "create", "--type", "L40S-2Q", "--name", f"c{n}"))
        for n in range(CREATES)
    ]
    asked += [
        ("create", f"v{n}", ("vgpu", "create", "--type", "L4-4Q", "--name", f"v{n}")) for n in range(VENDOR)
    ]
    random.Random(64).shuffle(asked)
    return [
        Told(what, name, daemon.popen(*arguments, *(("--yes",) if what == "delete" else ()), "-o", "json"))
        for what, name, arguments in asked
    ]


def revision(daemon: Process) -> int:
    """The last revision of the log, read beside the daemon."""
    path = daemon.directory / "state" / "vgpuctl.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        (found,) = db.execute("SELECT max(revision) FROM log").fetchone()
    return int(found)


def kill_now_and_then(daemon: Process, told: list[Told]) -> int:
    """Kill the daemon whenever its log has grown by some records; how often it was."""
    dice = random.Random(9)
    for done in range(KILLS):
        until = revision(daemon) + dice.randint(10, 60)
        while revision(daemon) < until:
            if all(each.process.poll() is not None for each in told):
                return done
            time.sleep(0.005)
        daemon.kill()
        time.sleep(dice.random())
        daemon.start(wait=False)
    return KILLS


@contextmanager
def looked_at(daemon: Process, directory: Path, foreign: set[tuple[str, str]]) -> Iterator[Daemon]:
    """What the daemon left behind, as the verdicts of the simulation read it."""
    directory.mkdir()
    stage = Stage(directory, daemon.cards)
    stage.libvirt.close()
    stage.hypervisor.inner = stage.libvirt = LibvirtHypervisor(daemon.libvirt)
    try:
        state = load(daemon.directory / "state" / "sim.json")
        assert state is not None
        stage.sim.engine.install(state)
        stage.foreign = foreign
        shutil.copy(daemon.directory / "state" / "vgpuctl.db", stage.db)
        with closing(Daemon(stage)) as left:
            yield left
    finally:
        stage.close()


def is_at_rest(daemon: Process) -> bool:
    ended = {each["state"] for each in daemon.json("operation", "list")}
    return not ended & {"running", "rolling-back"}


@pytest.mark.parametrize("socket_of", ["its own", "systemd"])
def test_nothing_is_lost(socket_of: str, tmp_path: Path, libvirtd: Libvirtd):
    for n in range(1, DETACHES + ATTACHES + 1):
        libvirtd.define(tiny_domain(f"win{n}"))
    daemon = Process(tmp_path, cards=CARDS, libvirt=libvirtd.uri)
    if socket_of == "systemd":
        daemon.listen()
    told: list[Told] = []
    try:
        daemon.start()
        daemon.ok("apply", "--yes", "-f", "-", stdin=documents())
        daemon.ok("vgpu", "create", "--type", "L4-4Q", "--name", "first")
        foreign = {_others(daemon, "0", "L40S-2Q"), _others(daemon, "2", "L4-4Q")}
        programs = [Program(daemon.env["VGPUCTL_HOST"], f"k{n}") for n in range(4)]
        told += clients(daemon)
        threads = [threading.Thread(target=each.run, daemon=True) for each in programs]
        for each in threads:
            each.start()
        kills = kill_now_and_then(daemon, told)
        for each in told:
            each.hear()
        for each in threads:
            each.join(PATIENCE_S)
        wait_until(lambda: is_at_rest(daemon), "every operation ends", PATIENCE_S)
        for each in programs:
            each.ask()
        rows = {each["name"]: each for each in daemon.json("vgpu", "list")}
        exported = daemon.ok("export")
        second = daemon.cli("plan", "--detailed-exitcode", "-f", "-", stdin=exported)
        drift = [each for each in daemon.json("host", "show")["drift"] if each["code"] != "foreign-vgpu"]
        daemon.kill(signal.SIGTERM)
        with looked_at(daemon, tmp_path / "verdict", foreign) as left:
            found = [*told_and_kept(left), *open_steps(left), *unreported(left), *faults_of(left)]
            kernel = {(str(each.parent), str(each.mdev_uuid)) for each in left.stage.observe().vgpus()}
    finally:
        for each in told:
            each.process.kill()
        daemon.close()
    print(summary(told, kills))
    assert kills == KILLS
    assert found == []
    assert foreign <= kernel, "what others made is there"
    assert [fault for each in told for fault in each.faults] == []
    assert (second.returncode, drift) == (0, []), second.stdout
    for each in programs:
        assert len(each.operations) == 3
        assert len(set(each.operations)) == 1, "the same key is the same operation"
        assert rows[each.name]["state"] == "present"
    assert [fault for each in told for fault in untrue(each, rows, libvirtd)] == []


def untrue(told: Told, rows: dict[str, Any], libvirtd: Libvirtd) -> list[str]:
    """Where a client was told what is not so: that it is done, or that nothing was."""
    if told.status == 0:
        says = "it is done"
    else:
        problem = json.loads(told.err)
        if (problem.get("facts") or {}).get("sent") or problem["code"] == errors.DeadlineExceeded.code:
            return []  # it says that something may have been done
        says = problem["detail"]
    is_there = told.name in rows
    if is_there != ((told.status == 0) == (told.what in ("create", "attach"))):
        return [f"{told.what} {told.name}: {says}, and it is {'' if is_there else 'not '}there"]
    if told.what in ("attach", "detach"):
        xml = libvirtd.virsh("dumpxml", "--inactive", told.name)
        if ("ua-vgpuctl-" in xml) != is_there:
            return [f"{told.what} {told.name}: {says}, and its XML says otherwise"]
    return []


def summary(told: list[Told], kills: int) -> str:
    """What came of the clients, for who runs this by hand."""
    outcomes = Counter(
        "done" if each.status == 0 else f"{each.status} {json.loads(each.err)['detail'].split('/')[0]}"
        for each in told
        if each.status == 0 or _is_json(each.err)
    )
    return f"{kills} kills, {len(told)} clients: {dict(outcomes)}"


def _others(daemon: Process, gpu: str, vgpu_type: str) -> tuple[str, str]:
    made = daemon.json("sim", "foreign", gpu, vgpu_type)
    return made["parent"], str(made["uuid"])

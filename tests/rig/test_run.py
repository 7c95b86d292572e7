"""A run in a guest goes on when its machine stops answering, and says so."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from tests.rig import run
from tests.rig.machine import MachineError

IDS = ["test_a", "test_b", "test_c"]


class Stand:
    """Stands for a machine: stops answering in the tests of `hangs`, and is gone in those of `ends`."""

    hangs: list[str] = []  # noqa: RUF012
    ends: list[str] = []  # noqa: RUF012
    made: list[list[str]] = []  # noqa: RUF012

    def __init__(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.reports, self._port = socket.socketpair()
        self._stopped = threading.Event()
        self._hangs = threading.Event()

    def must(self, command, *, stdin=b"", **_):
        self._ids = stdin.decode().split()
        Stand.made.append(self._ids)

    def sh(self, command, **_):
        if "pytest" not in command:
            return 0, "nothing of note"
        for name in self._ids:
            self._send({"started": name})
            self._send({"report": {"nodeid": name, "machine": len(Stand.made)}})
            if name in Stand.ends:
                Stand.ends.remove(name)
                raise MachineError("the machine ended before it answered\n--- qemu.log\nAborted")
            if name in Stand.hangs:
                Stand.hangs.remove(name)
                self._hangs.set()
                self._stopped.wait(10)
                raise MachineError("the machine ended before it answered")
            self._send({"finished": name})
        return 0, "passed"

    def answers_within(self, timeout_s):
        return not self._hangs.is_set()

    def processors(self):
        return "RIP=..."

    def stop(self):
        self._stopped.set()
        self._port.close()

    def _send(self, message):
        self._port.sendall(json.dumps(message).encode() + b"\n")


@pytest.fixture
def guest(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "artefacts", lambda name: tmp_path / name)
    monkeypatch.setattr(run, "layers_of", lambda guest: None)
    monkeypatch.setattr(run, "started", lambda guest, directory: Stand(directory))
    monkeypatch.setattr(run, "said", lambda text: None)
    monkeypatch.setattr(run, "_LOOK_S", 0.02)
    monkeypatch.setattr(run, "default_directory", lambda: tmp_path / "cache")
    Stand.made, Stand.hangs, Stand.ends = [], [], []

    def finished(*hangs, ends=()):
        Stand.hangs, Stand.ends = list(hangs), list(ends)
        found = run.GuestRun("trixie", IDS, [], name="trixie-rig")
        found.start()
        return found, {name: found.reports_of(name) for name in IDS}

    return finished


def test_all_goes_well_in_one_machine(guest):
    found, reports = guest()
    assert reports == {name: [{"nodeid": name, "machine": 1}] for name in IDS}
    assert (Stand.made, found.replaced) == ([IDS], [])


def test_a_machine_that_stops_answering_is_replaced_and_the_test_tried_once_more(guest, tmp_path):
    found, reports = guest("test_b")
    assert [reports[name] for name in IDS] == [
        [{"nodeid": "test_a", "machine": 1}],
        [{"nodeid": "test_b", "machine": 2}],
        [{"nodeid": "test_c", "machine": 2}],
    ]
    assert Stand.made == [IDS, ["test_b", "test_c"]]
    assert found.replaced == ["trixie-rig did not answer within 180 s, in test_b"]
    assert (tmp_path / "trixie-rig/machine-1/processors.log").read_text() == "RIP=..."


def test_a_machine_that_ends_is_replaced_as_well(guest):
    found, reports = guest(ends=["test_b"])
    assert found.complaints == []
    assert [each["machine"] for name in IDS for each in reports[name]] == [1, 2, 2]
    assert found.replaced == ["the machine ended before it answered, in test_b"]


def test_a_kernel_that_panicked_is_a_complaint(guest, monkeypatch):
    def panics(machine):
        panic = "[    1.0] Kernel panic - not syncing: Fatal exception"
        (machine.directory / "console.log").write_text(f"[    0.9] all is well\n{panic}\n")
        return "RIP=..."

    monkeypatch.setattr(Stand, "processors", panics)
    found, reports = guest("test_b")
    assert reports["test_b"] == [{"nodeid": "test_b", "machine": 2}]
    assert found.complaints == ["[    1.0] Kernel panic - not syncing: Fatal exception"]


def test_a_test_that_stops_two_machines_has_failed_and_the_others_go_on(guest):
    found, reports = guest("test_b", "test_b")
    assert reports["test_b"] == "twice trixie-rig did not answer within 180 s"
    assert reports["test_c"] == [{"nodeid": "test_c", "machine": 3}]
    assert len(found.replaced) == 2


def test_machines_are_not_replaced_for_ever(guest):
    _, reports = guest("test_a", "test_a", "test_b", "test_b", "test_c", "test_c")
    assert isinstance(reports["test_c"], str)
    assert len(Stand.made) == 4


def test_a_pytest_beside_this_one_sends_its_reports_and_why_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "artefacts", lambda name: tmp_path / name)
    monkeypatch.setattr(run, "said", lambda text: None)
    passes = "tests/rig/test_cache.py::test_a_layer_is_made_once"
    found = run.MachineRun([passes], ["-q"], name="beside")
    found.start()
    assert [(each["when"], each["outcome"]) for each in found.reports_of(passes)] == [
        (when, "passed") for when in ("setup", "call", "teardown")
    ]
    assert "its pytest ended with 0" in found.reports_of("test_other")
    found = run.MachineRun(["tests/rig/test_cache.py::test_that_is_not_there"], [], name="beside")
    found.start()
    assert "not found: " in found.reports_of("tests/rig/test_cache.py::test_that_is_not_there")


def test_a_run_beside_that_is_given_up_ends(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "artefacts", lambda name: tmp_path / name)
    first = run.GuestRun("trixie", [], [], name="trixie-rig")
    found = run.MachineRun(["tests/rig/test_cache.py"], [], name="beside", after=first)
    found.start()
    found.stop()
    first._had_its_turn.set()
    found.join(60)
    assert "its pytest ended with -9" in found.reports_of("test_a")


def test_there_are_as_many_machines_at_a_time_as_processors(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "default_directory", lambda: tmp_path)
    monkeypatch.setattr(run, "_SLOT_S", 0.01)
    monkeypatch.setattr(run.os, "cpu_count", lambda: 2)
    third = threading.Event()

    def wait():
        with run.machine_slot():
            third.set()

    with run.machine_slot():
        with run.machine_slot():
            waiting = threading.Thread(target=wait)
            waiting.start()
            assert not third.wait(0.1)
        waiting.join(10)
    assert third.is_set()


def test_whoever_comes_after_another_gets_a_machine_when_that_one_has_had_its_turn(guest, monkeypatch):
    building = threading.Event()
    monkeypatch.setattr(run, "layers_of", lambda name: building.wait(10) if name == "trixie" else None)
    first = run.GuestRun("trixie", IDS, [], name="trixie-rig")
    second = run.GuestRun("bookworm", IDS, [], name="bookworm-rig", after=first)
    second.start()
    first.start()
    second.join(0.1)
    assert Stand.made == []
    building.set()
    assert first.reports_of("test_c") == [{"nodeid": "test_c", "machine": 1}]
    assert isinstance(second.reports_of("test_c"), list)
    assert Stand.made == [IDS, IDS]


def test_nobody_waits_for_a_run_that_could_not_be_built(guest, monkeypatch):
    def built(name):
        if name == "trixie":
            raise run.MachineError("no archive")

    monkeypatch.setattr(run, "layers_of", built)
    first = run.GuestRun("trixie", IDS, [], name="trixie-rig")
    second = run.GuestRun("bookworm", IDS, [], name="bookworm-rig", after=first)
    second.start()
    first.start()
    assert first.reports_of("test_a") == "MachineError: no archive"
    assert second.reports_of("test_a") == [{"nodeid": "test_a", "machine": 1}]

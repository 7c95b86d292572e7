"""The host in a process of its own."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.hosts import DEVICES, FIRST, MDEVS, UUID_1, current_type, refused, turn, vf
from vgpuctl.errors import Conflict, InvalidInput, Unavailable
from vgpuctl.model.fact import Unknown
from vgpuctl.sim.host import SimHost
from vgpuctl.sim.remote import RemoteTransport


class Launched:
    """A directory with a host; `pid` is its server's."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "sim.sock"
        self.state = directory / "state.json"
        self.hosts: list[SimHost] = []

    def host(self, cards: str = "l40s,t4") -> SimHost:
        self.hosts.append(SimHost.launch(cards, self.socket, self.state))
        return self.hosts[-1]

    @property
    def pid(self) -> int:
        """The process that has the lock; found through /proc, as it is nobody's child for long."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().split(b"\0")
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if str(self.socket).encode() in command and state != "Z":
                return int(process.name)
        return 0

    def kill(self) -> None:
        process = os.pidfd_open(self.pid)
        signal.pidfd_send_signal(process, signal.SIGKILL)
        # What /proc shows of it goes before its sockets do: only then is nobody connected to it.
        assert select.select([process], [], [], 10)[0]
        os.close(process)
        while self.pid:
            time.sleep(0.01)


@pytest.fixture
def launched(tmp_path) -> Iterator[Launched]:
    found = Launched(tmp_path)
    yield found
    for host in found.hosts:
        host.close()
    if found.pid:
        os.kill(found.pid, signal.SIGTERM)


def test_devices_outlive_the_server_and_its_callers(launched):
    """DESIGN.md: a killed daemon finds devices as a kernel would have kept them."""
    host = launched.host()
    boot_id = host.kernel.read("proc/sys/kernel/random/boot_id")
    turn(host, FIRST, on=True)
    host.kernel.write(f"{DEVICES}/{vf(0)}/nvidia/current_vgpu_type", "1147")
    host.control("hold", {"vgpu": vf(0), "domain": "desk-1"})
    launched.kill()
    assert current_type(host, 0) == "1147"
    other = launched.host()
    assert other.kernel.read("proc/sys/kernel/random/boot_id") == boot_id
    assert [each[0].domain for each in other.handles.holders().values()] == ["desk-1"]
    with refused(errno.EPERM):
        other.kernel.write(f"{DEVICES}/{vf(0)}/nvidia/current_vgpu_type", "0")


def test_every_answer_crosses_the_socket(launched):
    host = launched.host()
    memory = SimHost.in_memory("l40s,t4")
    assert host.nvml.host(2) == memory.nvml.host(2)
    assert host.nvml.host(2) == memory.nvml.host(2)
    assert host.kernel.list(DEVICES) == memory.kernel.list(DEVICES)
    assert turn(host, FIRST, on=True) == turn(memory, FIRST, on=True)
    assert host.kernel.log() == memory.kernel.log()
    assert host.kernel.resolve(f"{DEVICES}/{FIRST}") == memory.kernel.resolve(f"{DEVICES}/{FIRST}")
    assert host.kernel.exists("sys/nowhere") is False
    with refused(errno.ENOENT):
        host.kernel.read("sys/nowhere")
    with pytest.raises(Conflict):
        host.control("mixed-size", {"gpu": "1"})
    with pytest.raises(InvalidInput):
        host.control("explode")
    host.control("fail", {"what": "holders"})
    assert isinstance(host.handles.holders(), Unknown)


def test_a_blocked_caller_blocks_nobody_else(launched):
    """hardware.md 1.6.1: removal waits without limit; the host goes on, and so does the removal."""
    host = launched.host("t4")
    types = f"sys/class/mdev_bus/{FIRST}/mdev_supported_types"
    host.kernel.write(f"{types}/{host.kernel.list(types)[0]}/create", UUID_1)
    host.control("hold", {"vgpu": UUID_1})
    with pytest.raises(TimeoutError):
        host.kernel.write_abandonable(f"{MDEVS}/{UUID_1}/remove", "1", 0.05)
    host.control("fail", {"what": "gpu", "gpu": FIRST, "hang": True})
    answers: list[str] = []
    reader = threading.Thread(target=lambda: answers.append(host.kernel.read(f"{DEVICES}/{FIRST}/vendor")))
    reader.start()
    assert host.kernel.list(MDEVS) == ()
    assert not answers
    host.control("release", {"vgpu": UUID_1})
    host.control("heal")
    reader.join(timeout=10)
    assert answers == ["0x10de"]
    assert not host.kernel.exists(f"{DEVICES}/{FIRST}/{UUID_1}")


def test_another_specification_is_another_host(launched):
    host = launched.host("l40s")
    boot_id = host.kernel.read("proc/sys/kernel/random/boot_id")
    turn(host, FIRST, on=True)
    other = launched.host("t4")
    assert other.nvml.host(2).gpus[0].name == "Tesla T4"
    assert other.kernel.read("proc/sys/kernel/random/boot_id") != boot_id


def test_uevents_cross_the_socket(launched):
    host = launched.host("l40s")
    uevents = host.kernel.uevents()
    turn(host, FIRST, on=True)
    assert next(uevents).devpath.endswith(vf(0))
    launched.kill()
    turn(host, FIRST, on=False)
    assert [each.action for each in (next(uevents) for _ in range(32)) if each.action == "remove"]


def test_a_wrong_specification_starts_nothing(launched):
    with pytest.raises(InvalidInput):
        launched.host("l40z")
    assert not launched.pid
    assert not launched.state.exists()


def test_the_server_leaves_when_nobody_is_connected(tmp_path):
    socket, state = tmp_path / "s", tmp_path / "state.json"
    command = [sys.executable, "-m", "vgpuctl.sim.server", "--socket", socket, "--state", state]
    server = subprocess.Popen([*command, "--cards", "t4", "--idle-s", "0.5"])
    host = SimHost(RemoteTransport(socket))
    assert host.kernel.list("sys/class/mdev_bus") == (FIRST,)
    assert server.poll() is None
    host.close()
    assert server.wait(timeout=20) == 0
    assert not socket.exists()
    assert state.exists()


def test_a_second_server_leaves_the_host_to_the_first(launched):
    launched.host("t4")
    command = [
        sys.executable,
        "-m",
        "vgpuctl.sim.server",
        "--socket",
        launched.socket,
        "--state",
        launched.state,
    ]
    assert subprocess.run(command, timeout=20, check=False).returncode == 0
    assert launched.hosts[0].kernel.list("sys/class/mdev_bus") == (FIRST,)


def test_without_a_state_the_server_wants_cards(tmp_path):
    command = [
        sys.executable,
        "-m",
        "vgpuctl.sim.server",
        "--socket",
        tmp_path / "s",
        "--state",
        tmp_path / "x",
    ]
    done = subprocess.run(command, timeout=20, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--cards" in done.stderr


def test_a_damaged_state_is_reported_and_kept(launched):
    launched.state.write_text("{")
    with pytest.raises(Unavailable, match="not JSON"):
        launched.host("t4")
    assert launched.state.read_text() == "{"


def test_a_host_that_nobody_starts_is_an_os_error_to_the_kernel(tmp_path):
    """ports/kernel.py: OSError and nothing else."""
    host = SimHost(RemoteTransport(tmp_path / "nobody", connect_s=0))
    with refused(errno.EIO):
        host.kernel.read("proc/sys/kernel/hostname")
    assert isinstance(host.nvml.host(1), Unknown)
    assert isinstance(host.handles.holders(), Unknown)
    with pytest.raises(Unavailable):
        host.control("reboot")


def test_a_state_directory_may_lie_deep(tmp_path):
    """unix(7): a socket's address has at most 107 bytes."""
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    host = SimHost.launch("t4", deep / "sim.sock", deep / "state.json")
    try:
        assert host.kernel.exists(f"{DEVICES}/{FIRST}")
    finally:
        host.close()

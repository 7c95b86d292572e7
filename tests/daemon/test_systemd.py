"""What systemd and we tell each other, over real sockets and a real child."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vgpuctl.daemon.systemd import Notifier, Watchdog, inherited_socket

CHILD = """
import json, os, sys
from vgpuctl.daemon.systemd import inherited_socket
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2], LISTEN_FDNAMES="vgpuctl.socket")
try:
    got = inherited_socket(os.environ)
    print(json.dumps([got.family.name, got.getsockname(), os.get_inheritable(3), sorted(k for k in os.environ if "LISTEN" in k)]))
except Exception as error:
    print(json.dumps(str(error)))
"""  # noqa: E501


def listener(address: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(address)
    made.settimeout(10)
    return made


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_our_state(tmp_path: Path, abstract: bool) -> None:
    address = f"\0vgpuctl-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with listener(address) as systemd:
        environ = {"NOTIFY_SOCKET": address.replace("\0", "@"), "WATCHDOG_USEC": "30000000"}
        notifier = Notifier.from_environment(environ)
        assert environ == {}, "children must not notify in our name"
        assert notifier.watchdog_s == 30
        notifier.ready("serving")
        notifier.reloading()
        notifier.stopping("ending")
        heard = [systemd.recv(1000).decode().splitlines() for _ in range(3)]
    assert heard[0] == ["READY=1", "STATUS=serving"]
    assert heard[1][0] == "RELOADING=1"
    assert heard[1][1].startswith("MONOTONIC_USEC=")
    assert heard[2][0] == "STOPPING=1"


def test_without_systemd_nothing_is_said() -> None:
    notifier = Notifier.from_environment({"WATCHDOG_USEC": "1000000"})
    assert notifier == Notifier(None, None)
    notifier.ready("serving")
    Notifier("/nonexistent/notify").ready("serving")


def test_a_watchdog_for_another_process_is_not_ours() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert Notifier.from_environment(environ).watchdog_s is None


def test_the_watchdog_answers_only_while_the_loop_is_alive(tmp_path: Path) -> None:
    asked = threading.Semaphore(0)
    alive = [False, False, True]

    def is_alive() -> bool:
        asked.release()
        return alive.pop(0) if alive else False

    with listener(str(tmp_path / "notify")) as systemd:
        watchdog = Watchdog(Notifier(str(tmp_path / "notify"), 0.02), is_alive)
        watchdog.start()
        for _ in range(5):
            assert asked.acquire(timeout=10)
        watchdog.stop()
        watchdog.join(10)
        assert systemd.recv(100) == b"WATCHDOG=1"
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            systemd.recv(100)


def child(passed: socket.socket, count: str = "1") -> object:
    fd = passed.fileno()
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, str(fd), count],
        pass_fds=[fd],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(ended.stdout)


def test_a_passed_socket_is_taken_as_what_it_is(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(path)
        passed.listen()
        assert child(passed) == ["AF_UNIX", path, False, []]
        assert "takes one" in str(child(passed, "2"))
    with socket.socket(socket.AF_INET) as passed:
        passed.listen()
        assert "something else" in str(child(passed))
    with socket.socket(socket.AF_UNIX) as passed:
        assert "something else" in str(child(passed))


def test_sockets_for_another_process_are_not_ours() -> None:
    environ = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1", "PATH": "x"}
    assert inherited_socket(environ) is None
    assert environ == {"PATH": "x"}

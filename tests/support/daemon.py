"""A real daemon process and the real CLI beside it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
CARDS = "t4,l40s:sriov-mdev,l4:vendor-vfio"


class Daemon:
    """A daemon on simulated cards.  The socket lies under /tmp: its path has to be short."""

    def __init__(self, directory: Path, *, cards: str = CARDS, libvirt: str | None = None) -> None:
        self.directory = directory
        self.cards = cards
        self.libvirt = libvirt or f"test://{self._domains(8)}"
        self._sockets = tempfile.mkdtemp(prefix="vgpuctl-")
        self.socket = Path(self._sockets) / "v.sock"
        self.env = {
            **os.environ,
            "PYTHONPATH": str(TOP),
            "VGPUCTL_HOST": f"unix://{self.socket}",
            "NO_COLOR": "1",
            "COLUMNS": "80",
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.listener: socket.socket | None = None

    def _domains(self, count: int) -> Path:
        path = self.directory / "libvirt.xml"
        domain = (
            "<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'><name>win{n}</name>"
            "<uuid>00000000-0000-4000-8000-{n:012d}</uuid><memory>65536</memory><os><type>hvm</type></os>"
            "<devices/><test:runstate>5</test:runstate></domain>"
        )
        node = (
            "<cpu><mhz>1000</mhz><model>i686</model><active>1</active><nodes>1</nodes><sockets>1</sockets>"
            "<cores>1</cores><threads>1</threads></cpu><memory>8192000</memory>"
        )
        domains = "".join(domain.format(n=n) for n in range(1, count + 1))
        path.write_text(f"<node>{node}{domains}</node>")
        return path

    # -- life -------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Hold the socket as systemd does: clients wait in it while no daemon runs."""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.socket))
        self.listener.listen(128)

    def start(self, *, wait: bool = True) -> None:
        command = [*self._daemon_command(), "--simulate", self.cards, "--libvirt", self.libvirt]
        passed: tuple[int, ...] = ()
        if self.listener is not None:
            passed = (self.listener.fileno(),)
            activate = 'exec 3<&"$0"; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
            command = ["bash", "-c", activate, str(passed[0]), *command]
        with (self.directory / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                pass_fds=passed,
                env=self.env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        if wait:
            self.wait_until_it_answers()

    def _daemon_command(self) -> list[str]:
        state = ["--state-dir", str(self.directory / "state"), "--socket", str(self.socket)]
        return [sys.executable, "-m", "vgpuctl", "daemon", *state]

    def wait_until_it_answers(self) -> None:
        from vgpuctl.client.client import Client
        from vgpuctl.errors import VgpuctlError

        for _ in range(400):
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            try:
                Client(self.env["VGPUCTL_HOST"]).get("/v1/host")
            except VgpuctlError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(self.log())

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(60)

    def log(self) -> str:
        return (self.directory / "daemon.log").read_text()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill(signal.SIGTERM)
        if self.listener is not None:
            self.listener.close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    # -- the CLI ----------------------------------------------------------------------------------

    def cli(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vgpuctl", *arguments],
            env=self.env,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def ok(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.cli(*arguments, stdin=stdin)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "-o", "json"))

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "vgpuctl", *arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )


@contextmanager
def running(directory: Path, **options: Any) -> Iterator[Daemon]:
    daemon = Daemon(directory, **options)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()

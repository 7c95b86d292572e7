"""A hypervisor to try things on: the daemon of this checkout on simulated cards, and a libvirt of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
BIN = TOP / ".venv/bin"
_TRIES = 300
_PAUSE_S = 0.1


class Failed(Exception):
    """It does not start, or does not what it should."""


class SimulatedHost:
    """What it keeps lies below `work`; `env` is for whoever talks to it."""

    def __init__(self, work: Path, socket: Path, libvirt_uri: str | None) -> None:
        self.work = work
        self.socket = socket
        self.libvirt_uri = libvirt_uri
        self.env = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "VGPUCTL_HOST": f"unix://{socket}",
        }
        if libvirt_uri:
            self.env["LIBVIRT_DEFAULT_URI"] = libvirt_uri
        self.daemon: subprocess.Popen[bytes] | None = None

    def start_daemon(self, arguments: str) -> None:
        """Start it, and wait until it answers."""
        command = f"vgpuctl daemon {arguments}"
        sys.stdout.write(f"$ {command} &\n")
        sys.stdout.flush()
        options = ["--state-dir", str(self.work / "state"), "--socket", str(self.socket)]
        if self.libvirt_uri:
            options += ["--libvirt", self.libvirt_uri]
        with (self.work / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [str(BIN / "vgpuctl"), *shlex.split(command)[1:], *options],
                env=self.env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for whoever works here
            )
        for _ in range(_TRIES):
            if self.daemon.poll() is not None:
                raise Failed(f"the daemon ended; {self.work / 'daemon.log'} says why")
            asked = subprocess.run(
                ["vgpuctl", "host", "show"], env=self.env, capture_output=True, check=False
            )
            if asked.returncode == 0:
                return
            time.sleep(_PAUSE_S)
        raise Failed(f"the daemon does not answer; {self.work / 'daemon.log'} may say why")

    def kill_daemon(self, how: signal.Signals) -> None:
        """End it, if it runs."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.send_signal(how)
            self.daemon.wait(30)


def may_have_libvirtd() -> bool:
    """Whether there can be a libvirtd of our own."""
    return os.geteuid() == 0 and shutil.which("libvirtd") is not None


def start_libvirtd(directory: Path) -> tuple[str, int]:
    """A libvirtd of our own: its URI and its process."""
    done = subprocess.run(
        [str(TOP / "scripts/libvirtd-for-tests"), str(directory)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        raise Failed(f"libvirtd does not start: {done.stderr.strip()}")
    return done.stdout.strip().splitlines()[-1], int((directory / "pid").read_text())

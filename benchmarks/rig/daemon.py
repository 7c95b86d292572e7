"""A vgpuctl daemon of the benchmark's own, and its API."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from vgpuctl.client.client import Client
from vgpuctl.client.operation import follow, submit
from vgpuctl.errors import VgpuctlError

_STATE: Final = Path("/var/lib/vgpuctl-bench")
_SOCKET: Final = Path("/run/vgpuctl-bench.sock")
_LOG: Final = Path("/var/log/vgpuctl-bench.log")
_START_S: Final = 300.0
_STOP_S: Final = 60.0
_CHANGE_S: Final = 900.0
_POLL_S: Final = 0.1


class Daemon:
    """One state directory, and the daemon that runs on it now and then."""

    def __init__(self) -> None:
        shutil.rmtree(_STATE, ignore_errors=True)
        self.client = Client(f"unix://{_SOCKET}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it has seen the host."""
        with _LOG.open("ab") as log:
            self._process = subprocess.Popen(
                ["vgpuctl", "daemon", "--state-dir", _STATE, "--socket", _SOCKET],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                self.client.get("/v1/host")
            except VgpuctlError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)
            else:
                return

    def stop(self) -> None:
        """End it; what it made stays."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Stopped in its tracks; what happens meanwhile it hears of afterwards."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def change(self, body: dict[str, Any]) -> None:
        """Submit an edit and wait until its operation has succeeded."""
        ended = follow(self.client, submit(self.client, body), timeout_s=_CHANGE_S)
        if ended["state"] != "succeeded":
            raise RuntimeError(f"{body['action']} {ended['state']}: {ended['problem']}")

    def create(self, gpus: tuple[str, ...], each: int, vgpu_type: str) -> None:
        """Make that many vGPUs of a type on each GPU."""
        documents = [
            {
                "apiVersion": "vgpuctl/v1",
                "kind": "Vgpu",
                "name": f"v{card}-{number}",
                "type": vgpu_type,
                "gpu": gpu,
            }
            for card, gpu in enumerate(gpus)
            for number in range(each)
        ]
        self.change({"action": "apply", "documents": documents})

"""The way to a simulated host in another process, which is started again where it has gone."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vgpuctl.errors import Unavailable, VgpuctlError
from vgpuctl.ports.kernel import Uevent
from vgpuctl.sim import wire
from vgpuctl.sim.address import address_of
from vgpuctl.sim.spec import Spec, to_json

CONNECT_S = 10.0
_RETRY_S = 0.02
_ATTEMPTS = 3
_REPEATABLE = frozenset({"read", "list", "link", "resolve", "exists", "log", "holders", "nvml"})


class _Link:
    """One connection: as many calls as one likes, one at a time."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address_of(path) as address:
                self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("rb")

    def ask(self, message: bytes) -> bytes:
        """The answer; raises ConnectionError when the other side goes away."""
        self._socket.sendall(message)
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the simulated host has gone")
        return line

    def is_stale(self) -> bool:
        """Whether the other side has gone since the last call; nothing else ever comes unasked."""
        ready, _, _ = select.select([self._socket], [], [], 0)
        return bool(ready)

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()


class RemoteTransport:
    """Calls over the server's socket, on as many connections as there are calls at once.

    `start` is called when nobody answers on the socket.  A read is repeated with the next server; a
    write that a server took with it into its death is EIO: it may have happened.
    """

    def __init__(
        self, path: Path, start: Callable[[], None] | None = None, connect_s: float = CONNECT_S
    ) -> None:
        self._path = path
        self._start = start
        self._connect_s = connect_s
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._free: list[_Link] = []
        self._last_nvml: tuple[bytes, Any] = (b"", None)

    def call(self, verb: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        """Do one operation of the machine; raises OSError, also where nobody answers."""
        message = {"call": verb, "arguments": arguments, "timeout_s": timeout_s}
        line = self._ask_kernel(message, is_repeatable=verb in _REPEATABLE)
        # NVML's answer names every type of every GPU and seldom changes.
        if verb == "nvml" and line == self._last_nvml[0]:
            return self._last_nvml[1]
        result = wire.result_of(verb, _result(line))
        if verb == "nvml":
            self._last_nvml = (line, result)
        return result

    def control(self, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do a control; raises VgpuctlError."""
        result: dict[str, Any] = self._order({"control": action, "arguments": arguments})
        return result

    def install(self, spec: Spec) -> None:
        """Make it the host of that specification, unless it is that already; raises VgpuctlError."""
        self._order({"install": to_json(spec)})

    def events(self, since: int | None, wait_s: float) -> tuple[int, tuple[Uevent, ...]]:
        """Uevents after number `since`, and the last number; raises OSError."""
        line = self._ask_kernel({"events": since, "wait_s": wait_s}, is_repeatable=True)
        result: tuple[int, tuple[Uevent, ...]] = wire.result_of("events", _result(line))
        return result

    def close(self) -> None:
        """Hang up every connection that is not in use."""
        with self._lock:
            free, self._free = self._free, []
        for each in free:
            each.close()

    def _ask_kernel(self, message: dict[str, Any], *, is_repeatable: bool) -> bytes:
        try:
            return self._ask(wire.pack(message), is_repeatable=is_repeatable)
        except VgpuctlError as error:
            raise OSError(errno.EIO, error.message) from error

    def _order(self, message: dict[str, Any]) -> Any:
        try:
            return _result(self._ask(wire.pack(message), is_repeatable="install" in message))
        except OSError as error:
            raise Unavailable(f"the simulated host does not answer: {error.strerror}") from error

    def _ask(self, message: bytes, *, is_repeatable: bool) -> bytes:
        attempts = _ATTEMPTS if is_repeatable else 1
        while True:
            link = self._link()
            try:
                line = link.ask(message)
            except OSError as error:
                link.close()
                attempts -= 1
                if not attempts:
                    raise OSError(errno.EIO, "the simulated host died in the middle of it") from error
                continue
            with self._lock:
                self._free.append(link)
            return line

    def _link(self) -> _Link:
        while True:
            with self._lock:
                link = self._free.pop() if self._free else None
            if link is None:
                return self._connect()
            if not link.is_stale():
                return link
            link.close()

    def _connect(self) -> _Link:
        deadline = time.monotonic() + self._connect_s
        while True:
            try:
                return _Link(self._path)
            except (FileNotFoundError, ConnectionRefusedError) as error:
                self._revive()
                if time.monotonic() > deadline:
                    raise OSError(errno.EIO, f"no simulated host answers on {self._path}") from error
            time.sleep(_RETRY_S)

    def _revive(self) -> None:
        """Have the server started, by one thread at a time."""
        if self._start is not None and self._starting.acquire(blocking=False):
            try:
                self._start()
            finally:
                self._starting.release()


class Starter:
    """Starts the server of one simulated host, in a session of its own, where none runs."""

    def __init__(self, path: Path, state: Path, cards: str) -> None:
        self._path = path
        self._state = state
        self._cards = cards
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Start it, unless the last one is still about to serve; raises Unavailable when it cannot."""
        if self._process is not None and self._process.poll() is None:
            return
        log = Path(f"{self._state}.log")
        if self._process is not None and self._process.returncode > 0:
            self._process = None
            why = log.read_text(encoding="utf-8", errors="replace").strip()
            raise Unavailable(f"the simulated host cannot be started: {why}")
        self._state.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "vgpuctl.sim.server"]
        command += ["--socket", str(self._path), "--state", str(self._state)]
        if not self._state.exists():
            command += ["--cards", self._cards]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
            )


def _result(line: bytes) -> Any:
    """What an answer holds; raises what it tells."""
    match wire.unpack(line):
        case {"result": result}:
            return result
        case {"errno": int(number), "about": about}:
            raise OSError(number, os.strerror(number), about)
        case {"timeout": True}:
            raise TimeoutError("blocked in the kernel")
        case {"problem": dict(problem)}:
            raise VgpuctlError.from_problem(problem)
        case answer:
            raise OSError(errno.EIO, f"the simulated host answers {answer!r:.80}")

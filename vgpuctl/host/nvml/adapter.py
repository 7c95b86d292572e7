"""NVML from a helper process, since its calls can hang and its clients block sriov-manage."""

from __future__ import annotations

import functools
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Union

import vgpuctl
from vgpuctl.host import helper
from vgpuctl.model import codec
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.ports.nvml import NvmlDone, NvmlHost, NvmlOrder

_GREET = "--greet"
_COMMAND = (sys.executable, "-P", "-m", "vgpuctl.host.nvml.helper", _GREET)
_LIBRARIES = "LD_LIBRARY_PATH"
_CHUNK = 1 << 16
_LEAVE_TIMEOUT_S = 2.0
_KILL_TIMEOUT_S = 0.5
_START_TIMEOUT_S = 60.0
"""An interpreter on a host that boots takes seconds; that is not the driver's hanging."""


class HelperNvml:
    """NVML through one long-lived helper process; see ports.nvml.Nvml.

    The helper is started by the first question, killed when it does not answer in time, and started
    again by the next.  One that has not yet greeted is only starting, and left to that.  One that
    cannot even be killed (it hangs in the driver) is not replaced, so that a sick driver does not
    collect processes.
    """

    def __init__(
        self, command: Sequence[str] = _COMMAND, *, objection: Callable[[], str | None] | None = None
    ) -> None:
        """With `objection`, what says why NVML must not be asked now (`why_not` by default)."""
        self._command = tuple(command)
        self._objection = objection or why_not
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed: subprocess.Popen[bytes] | None = None
        self._is_new = False
        self._started_s = 0.0

    def host(self, timeout_s: float, *, in_full: bool = False) -> Fact[NvmlHost]:
        """Everything in one answer; Unknown with the reason when there is none in time."""
        request = b'{"in_full": true}\n' if in_full else b"{}\n"
        found: Fact[NvmlHost] = self._answer(request, NvmlHost, timeout_s)
        return found

    def order(self, order: NvmlOrder, timeout_s: float) -> Fact[NvmlDone]:
        """Change a GPU; Unknown also where the helper was killed on its deadline."""
        request = codec.dumps(order, NvmlOrder).encode() + b"\n"
        done: Fact[NvmlDone] = self._answer(request, NvmlDone, timeout_s)
        return done

    def _answer(self, request: bytes, answer: Any, timeout_s: float) -> Fact[Any]:
        if reason := self._objection():
            return Unknown(reason)
        deadline = time.monotonic() + timeout_s
        late = Unknown(f"NVML did not answer within {timeout_s:g} s")
        if not self._lock.acquire(timeout=timeout_s):
            return late
        try:
            if self._killed is not None and self._killed.poll() is None:
                return Unknown(f"the NVML helper (pid {self._killed.pid}) hangs in the driver")
            self._killed = None
            try:
                process = self._running()
                if not self._has_greeted(process, deadline):
                    return self._starting(timeout_s)
                line = self._ask(process, request, deadline)
            except TimeoutError:
                self._kill()
                return late
            except OSError as error:
                return Unknown(f"the NVML helper cannot be asked: {error.strerror}")
            return self._ended() if line is None else _decode(line, answer)
        finally:
            self._lock.release()

    def release(self) -> None:
        """Make the helper leave, and wait until it is gone; the next question starts another."""
        with self._lock:
            process, self._process = self._process, None
            if process is None:
                return
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_LEAVE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process = process
                self._kill()
            else:
                helper.abandon(process)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            helper.abandon(self._process)
            self._process = None
        if self._process is None:
            self._process = helper.start(self._command, environment=_environment())
            self._is_new, self._started_s = _GREET in self._command, time.monotonic()
        return self._process

    def _has_greeted(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        """Whether a helper that was just started is there, or has ended; waits for it until `deadline`."""
        if self._is_new:
            assert process.stdout is not None
            poller = select.poll()
            poller.register(process.stdout.fileno(), select.POLLIN)
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
            process.stdout.readline()
            self._is_new = False
        return True

    def _starting(self, timeout_s: float) -> Unknown:
        if time.monotonic() - self._started_s > _START_TIMEOUT_S:
            self._kill()
            return Unknown(f"the NVML helper did not start within {_START_TIMEOUT_S:g} s")
        return Unknown(f"the NVML helper has not started within {timeout_s:g} s")

    @staticmethod
    def _ask(process: subprocess.Popen[bytes], request: bytes, deadline: float) -> bytes | None:
        """One line of answer, None when the helper ended instead; raises TimeoutError."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
        except BrokenPipeError:
            return None
        answers = process.stdout.fileno()
        poller = select.poll()
        poller.register(answers, select.POLLIN)
        answer = b""
        while not answer.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not poller.poll(left_s * 1000):
                raise TimeoutError
            chunk = os.read(answers, _CHUNK)
            if not chunk:
                return None
            answer += chunk
        return answer

    def _ended(self) -> Unknown:
        process, self._process = self._process, None
        assert process is not None
        try:
            status: int | str = process.wait(_LEAVE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = "unknown"
        helper.abandon(process)
        return Unknown(f"the NVML helper ended (exit status {status})")

    def _kill(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        self._killed = process
        helper.abandon(process)
        try:
            process.wait(_KILL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass  # in the driver, for as long as the driver wants


def why_not(proc: Path = Path("/proc")) -> str | None:
    """Why NVML must not be asked now; None when it may be.

    As root nvmlInit loads the driver (through nvidia-modprobe), which somebody may be replacing, and
    opens every GPU, also the one that somebody's sriov-manage is about to unbind (hardware.md 1.5.6).
    """
    if not (proc / "driver/nvidia/version").exists():
        return "the NVIDIA driver is not loaded, and NVML would load it"
    for name in os.listdir(proc):  # noqa: PTH208
        if name.isdigit() and _command_of(f"{proc}/{name}/comm") == b"sriov-manage\n":
            return f"sriov-manage runs (pid {name}), which any NVML client would make fail"
    return None


def _command_of(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # pathlib is slow for thousands of processes
            return file.read()
    except OSError:
        return b""  # it ended meanwhile


def _environment() -> dict[str, str]:
    """Where the helper finds this package, and libnvidia-ml where it is not in the usual place."""
    libraries = os.environ.get(_LIBRARIES)
    found = {"PYTHONPATH": str(Path(vgpuctl.__file__).parent.parent)}
    return {**found, _LIBRARIES: libraries} if libraries else found


@functools.lru_cache(maxsize=1)
def _decode(line: bytes, kind: Any) -> Fact[Any]:
    """What a line says; most looks bring the line of the look before."""
    try:
        answer: Fact[Any] = codec.loads(line.decode(errors="replace"), Union[kind, Unknown])
    except codec.DecodeError as error:
        return Unknown(f"the NVML helper's answer cannot be understood: {error}")
    return answer


class NullNvml:
    """The NVML of a host that has none."""

    def __init__(self, reason: str = "NVML is not used on this host") -> None:
        self._answer = Unknown(reason)

    def host(self, timeout_s: float, *, in_full: bool = False) -> Fact[NvmlHost]:  # noqa: ARG002
        """Unknown, always."""
        return self._answer

    def order(self, order: NvmlOrder, timeout_s: float) -> Fact[NvmlDone]:  # noqa: ARG002
        """Unknown, always."""
        return self._answer

    def release(self) -> None:
        """Nothing is held."""

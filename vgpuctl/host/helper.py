"""Helper processes that can be abandoned.

A write to sysfs may block in the kernel for ever (mdev `remove` waits uninterruptibly for the last
user, hardware.md 1.6).  A thread of ours in that state would make the daemon unkillable; a process
in a session of its own, which holds none of our descriptors, is merely left there.
"""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

_HERE = Path(__file__).parent
_BARE_PYTHON = (sys.executable, "-I", "-S")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

_abandoned: list[subprocess.Popen[bytes]] = []
_abandoned_lock = threading.Lock()


def script(name: str, *arguments: str) -> tuple[str, ...]:
    """The command line that runs a stand-alone script of this directory with a bare interpreter."""
    return (*_BARE_PYTHON, str(_HERE / name), *arguments)


def start(
    command: Sequence[str], *, piped: bool = True, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own that inherits no descriptor of ours.

    With `piped` its stdin and stdout are pipes to us; what it says on stderr is dropped.
    """
    reap()
    stream = subprocess.PIPE if piped else subprocess.DEVNULL
    return subprocess.Popen(
        command,
        bufsize=0,
        stdin=stream,
        stdout=stream,
        stderr=subprocess.DEVNULL,
        close_fds=True,
        start_new_session=True,
        cwd="/",
        env={**_ENVIRONMENT, **(environment or {})},
    )


def abandon(process: subprocess.Popen[bytes]) -> None:
    """Leave `process` to itself; it is reaped when it ends, at the next start of another one."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    with _abandoned_lock:
        _abandoned.append(process)


def reap() -> None:
    """Collect the exit statuses of abandoned processes that have ended."""
    with _abandoned_lock:
        _abandoned[:] = [process for process in _abandoned if process.poll() is None]


def run(command: Sequence[str], timeout_s: float) -> tuple[int, bytes]:
    """Exit status and output of a command; TimeoutError after `timeout_s`, and it goes on by itself."""
    process = start(command)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        abandon(process)
        raise TimeoutError(errno.ETIMEDOUT, f"not done within {timeout_s:g} s") from None
    return process.returncode, output

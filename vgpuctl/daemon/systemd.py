"""systemd without a library: notifications, the watchdog, and sockets that it opened for us.

What systemd puts into the environment is taken out of it, so that no child process answers in our name.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

from vgpuctl.errors import InvalidInput

_FIRST_FD = 3


@dataclass(frozen=True, slots=True)
class Notifier:
    """Where systemd wants to hear from us, and how often (`watchdog_s`); None where nobody listens."""

    address: str | None = None
    watchdog_s: float | None = None

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """What `environ` says, taken out of it."""
        address = environ.pop("NOTIFY_SOCKET", None)
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        watchdog_s = int(usec) / 1_000_000 if usec.isdigit() and int(usec) and ours else None
        if address is None or address[:1] not in ("/", "@"):
            return cls()
        return cls(address, watchdog_s)

    def send(self, *lines: str) -> None:
        """Tell systemd; a systemd that cannot be told is not our failure."""
        if self.address is None:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.sendto("\n".join(lines).encode(), address)
            except OSError:
                return

    def extend_start(self, seconds: float) -> None:
        """The start takes up to that long from now, whatever the unit says."""
        self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def ready(self, status: str) -> None:
        """We serve."""
        self.send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """We read our configuration again; `ready` follows."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """We go."""
        self.send("STOPPING=1", f"STATUS={status}")


class Watchdog(threading.Thread):
    """Tells systemd that we are alive, as long as `is_alive` says so.

    It answers from a thread of its own; when `is_alive` says no, raises or hangs, nothing is sent and
    systemd starts the daemon anew.
    """

    def __init__(self, notifier: Notifier, is_alive: Callable[[], bool]) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._notifier = notifier
        self._is_alive = is_alive
        self._ended = threading.Event()

    def run(self) -> None:
        """Answer at half the interval, until stopped."""
        if self._notifier.watchdog_s is None:
            return
        while not self._ended.wait(self._notifier.watchdog_s / 2):
            if self._is_alive():
                self._notifier.send("WATCHDOG=1")

    def stop(self) -> None:
        """Answer no more."""
        self._ended.set()


def inherited_socket(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The listening unix socket that systemd passed, or None; InvalidInput when it is something else.

    It has to stay AF_UNIX: cheroot by itself takes it for AF_INET, and then no request has credentials.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit() or int(count) == 0:
        return None
    if int(count) > 1:
        raise InvalidInput(f"systemd passed {count} sockets; vgpuctl takes one")
    os.set_inheritable(_FIRST_FD, False)
    passed = socket.socket(fileno=_FIRST_FD)
    listens = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if passed.family != socket.AF_UNIX or passed.type != socket.SOCK_STREAM or not listens:
        raise InvalidInput("systemd passed something else than a listening unix stream socket")
    return passed

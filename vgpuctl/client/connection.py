"""HTTP to a unix socket."""

from __future__ import annotations

import http.client
import select
import socket
import time


class UnixConnection(http.client.HTTPConnection):
    """HTTP to a unix socket; the two timeouts are for connecting and for each read."""

    def __init__(self, path: str, connect_timeout_s: float, reply_timeout_s: float | None) -> None:
        super().__init__("localhost")
        self._path = path
        self._connect_timeout_s = connect_timeout_s
        self._reply_timeout_s = reply_timeout_s

    def connect(self) -> None:
        """Connect, waiting where the daemon is busy.  Raises OSError."""
        deadline = time.monotonic() + self._connect_timeout_s
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._connect_timeout_s)
        while True:
            try:
                self.sock.connect(self._path)
                break
            except BlockingIOError:  # a unix socket does not queue us when its backlog is full
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self.sock.settimeout(self._reply_timeout_s)

    def answers_within(self, seconds: float) -> bool:
        """Whether the answer to what was sent begins, or the other side hangs up, within that time."""
        waiting = select.poll()
        waiting.register(self.sock, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))

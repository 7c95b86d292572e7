"""The command line on a real terminal: a pseudo-terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

from tests.cli.conftest import command, environment

_LIMIT_S = 60


class Terminal:
    """A process whose three streams are one terminal; `stdout` may be something else."""

    def __init__(
        self, *arguments: str, host: str, columns: int = 80, stdout: int | None = None, **more: str
    ) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            command(*arguments),
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            env=environment(VGPUCTL_HOST=host, **more),
            start_new_session=True,
            preexec_fn=_own_terminal,  # noqa: PLW1509 - no threads write before exec
            cwd=Path(__file__).parents[2],
        )
        os.close(slave)
        self.text = ""

    def _read(self, limit: float) -> bool:
        """Read what comes within `limit` seconds; whether more may come."""
        ready, _, _ = select.select([self.master], [], [], limit)
        if not ready:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: the other side is closed
            return False
        self.text += data.decode().replace("\r\n", "\n")
        return bool(data)

    def expect(self, pattern: str) -> None:
        """Read until `pattern` has been shown."""
        deadline = time.monotonic() + _LIMIT_S
        while re.search(pattern, self.text) is None:
            assert self._read(1), f"ended without {pattern!r}:\n{self.text}"
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.text}"

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self, *, interrupt: bool = False) -> int:
        """Read to the end; the exit status.  With `interrupt`, press Ctrl-C, and again where it was lost.

        CPython's input() loses a signal that comes just before its select().
        """
        deadline = time.monotonic() + _LIMIT_S
        try:
            if interrupt:
                self.type("\x03")
            while self._read(5):
                if interrupt and not select.select([self.master], [], [], 5)[0]:
                    self.type("\x03")
                assert time.monotonic() < deadline, f"does not end:\n{self.text}"
            return self.process.wait(_LIMIT_S)
        finally:
            self.process.kill()
            os.close(self.master)


def _own_terminal() -> None:
    """Make the terminal the controlling one, so that Ctrl-C on it is SIGINT."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def run(*arguments: str, host: str, columns: int = 80, **more: str) -> tuple[int, str]:
    """Exit status and everything that was shown."""
    terminal = Terminal(*arguments, host=host, columns=columns, **more)
    status = terminal.end()
    return status, terminal.text

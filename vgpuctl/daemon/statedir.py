"""The state directory: one daemon has it at a time, and it belongs to one host, real or simulated."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from vgpuctl.errors import Conflict, StoreFailure


class StateDirectory:
    """A state directory that is ours as long as this is open; the lock ends with the process."""

    def __init__(self, path: Path, *, is_simulated: bool) -> None:
        """Take `path`; Conflict when another daemon has it, or when it belongs to another host."""
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_shared(path)
            self._fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreFailure(
                f"the state directory {path} cannot be used: {error.strerror}",
                hint="name another --state-dir",
            ) from error
        try:
            self._lock()
            self._claim(is_simulated=is_simulated)
        except BaseException:
            os.close(self._fd)
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise Conflict(
                f"another daemon (pid {holder}) uses {self.path}",
                hint="stop it, or name another --state-dir and --socket",
                pid=holder,
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def _claim(self, *, is_simulated: bool) -> None:
        """Note whose state this is: wishes for simulated GPUs must never be carried out on real ones."""
        note = self.path / "host"
        now = "simulated" if is_simulated else "real"
        before = note.read_text(encoding="utf-8").strip() if note.exists() else ""
        if not before:  # also after a loss of power, which may leave a new file without its text
            note.write_text(now + "\n", encoding="utf-8")
        elif before != now:
            raise Conflict(
                f"{self.path} holds the state of a {before} host, and this one is {now}",
                hint="name another --state-dir, or remove that directory to begin anew",
            )

    def close(self) -> None:
        """Let another daemon have it."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse_shared(path: Path) -> None:
    """StoreFailure for a directory that others can write: their links would be followed as root."""
    found = path.stat()
    # A user's own group may write (umask 002 is usual there), root's may not.
    others = 0o022 if os.geteuid() == 0 else 0o002
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & others:
        raise StoreFailure(
            f"the state directory {path} can be written by others",
            hint=f"name another --state-dir, or make it this user's own: chmod go-w {path}",
        )

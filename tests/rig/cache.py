"""What the rig is built from, kept between runs; safe to delete."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_KEPT_S = 14 * 24 * 3600
_KEY_LENGTH = 16


class RigError(Exception):
    """The rig cannot be built; the text says why."""


class Cache:
    """Directories by layer and key, each made once and then only read.

    A key is a hash of all that the layer depends on, so that nothing is ever stale; what was not used
    for two weeks is removed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def layer(self, name: str, key: str, make: Callable[[Path], None]) -> Path:
        """The directory of that layer; `make` fills it when it is not there yet.

        Others that want the same one wait; one that was cut off leaves nothing behind.
        """
        path = self._directory / f"{name}-{key}"
        with self.locked(name):
            if not path.exists():
                started = time.monotonic()
                unfinished = self._directory / f"{name}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(path)
                said(f"{name} made in {time.monotonic() - started:.0f} s")
            os.utime(path)
            self._prune(name, path)
        return path

    def _prune(self, name: str, keep: Path) -> None:
        for other in self._directory.glob(f"{name}-*"):
            if other != keep and time.time() - other.stat().st_mtime > _KEPT_S:
                shutil.rmtree(other, ignore_errors=True)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Whoever else wants that name waits, in this process or another."""
        with self._lock_of(name) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def locked_if_free(self, name: str) -> Iterator[bool]:
        """The same, without waiting: whether nobody else had it."""
        with self._lock_of(name) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _lock_of(self, name: str) -> IO[str]:
        return (self._directory / f"{name}.lock").open("w")


def default_directory() -> Path:
    """`~/.cache/vgpuctl-rig`, by the XDG base directories."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vgpuctl-rig"


def key_of(*parts: str | bytes | Path) -> str:
    """A hash of texts, and of files or trees by their names and contents."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
                if file.is_file() and "__pycache__" not in file.parts:
                    found.update(f"\0{file.relative_to(part)}\0".encode() + file.read_bytes())
        else:
            found.update(b"\0" + (part.encode() if isinstance(part, str) else part))
    return found.hexdigest()[:_KEY_LENGTH]


def said(text: str) -> None:
    """Tell whoever waits for the build what was done."""
    print(f"rig: {text}", file=sys.__stderr__, flush=True)

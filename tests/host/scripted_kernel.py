"""A kernel that says what a test wrote down, for answers that no well-behaved host gives."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from vgpuctl.ports.kernel import CommandResult, KernelLogLine, Uevent

Answer = str | OSError | Callable[[], str]


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class ScriptedKernel:
    """Files and links by path; writes are recorded, and `on_write` may answer them."""

    files: dict[str, Answer] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    on_write: dict[str, Callable[[str], None]] = field(default_factory=dict)
    writes: list[tuple[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def read(self, path: str) -> str:
        if path not in self.files:
            raise failure(errno.ENOENT)
        answer = self.files[path]
        if isinstance(answer, OSError):
            raise answer
        return answer() if callable(answer) else answer

    def write(self, path: str, text: str) -> None:
        self.writes.append((path, text))
        if path in self.on_write:
            self.on_write[path](text)
        elif path in self.files:
            self.files[path] = text.strip()
        else:
            raise failure(errno.ENOENT)

    def write_abandonable(self, path: str, text: str, timeout_s: float) -> None:
        self.write(path, text)

    def replace(self, path: str, text: str) -> None:
        if path not in self.files:
            raise failure(errno.ENOENT)
        self.files[path] = text

    def list(self, path: str) -> tuple[str, ...]:
        start = f"{path}/"
        every = [*self.files, *self.links]
        names = {each.removeprefix(start).split("/")[0] for each in every if each.startswith(start)}
        if not names:
            raise failure(errno.ENOENT)
        return tuple(sorted(names))

    def link(self, path: str) -> str:
        return self.resolve(path).rsplit("/", 1)[-1]

    def resolve(self, path: str) -> str:
        if path not in self.links:
            raise failure(errno.ENOENT)
        return self.links[path]

    def exists(self, path: str) -> bool:
        return any(each == path or each.startswith(f"{path}/") for each in [*self.files, *self.links])

    def is_writable(self, path: str) -> bool:
        return path in self.on_write

    def sriov_manage(self, address: str, *, enable: bool, timeout_s: float) -> CommandResult | None:
        return None

    def log(self, since: int = 0) -> tuple[KernelLogLine, ...]:
        return tuple(KernelLogLine(n, text) for n, text in enumerate(self.lines, 1) if n > since)

    @contextmanager
    def log_from_now(self) -> Iterator[Callable[[], tuple[KernelLogLine, ...]]]:
        mark = len(self.lines)
        yield lambda: self.log(mark)

    def uevents(self) -> Iterator[Uevent]:
        return iter(())


class SteppingClock:
    """Only sleeping moves it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

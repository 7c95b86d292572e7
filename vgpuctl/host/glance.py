"""The kernel as it is at one moment: each file is read once, and every read is counted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

from vgpuctl.ports.kernel import CommandResult, Kernel, KernelLogLine, Uevent

T = TypeVar("T")


class Glance:
    """A Kernel for one observation: reads are remembered (failures too), writes are refused.

    What two readers see is one and the same; what was read twice costs once.  `reads` is the number
    of calls that reached the kernel.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._texts: dict[str, str | OSError] = {}
        self._lists: dict[str, tuple[str, ...] | OSError] = {}
        self._links: dict[str, str | OSError] = {}
        self._paths: dict[str, str | OSError] = {}
        self._there: dict[str, bool | OSError] = {}

    @property
    def reads(self) -> int:
        """How many different things were asked of the kernel."""
        every = (self._texts, self._lists, self._links, self._paths, self._there)
        return sum(len(each) for each in every)

    def read(self, path: str) -> str:
        """The text of a file."""
        return _once(self._texts, path, self._kernel.read)

    def list(self, path: str) -> tuple[str, ...]:
        """The names in a directory."""
        return _once(self._lists, path, self._kernel.list)

    def link(self, path: str) -> str:
        """The last component of a link's target."""
        return _once(self._links, path, self._kernel.link)

    def resolve(self, path: str) -> str:
        """The real path."""
        return _once(self._paths, path, self._kernel.resolve)

    def exists(self, path: str) -> bool:
        """Whether something is there."""
        return _once(self._there, path, self._kernel.exists)

    def is_writable(self, path: str) -> bool:
        """Whether a file has a write bit."""
        return self._kernel.is_writable(path)

    def write(self, path: str, text: str) -> None:
        """Refuse: an observation changes nothing."""
        raise OSError(errno.EROFS, f"an observation does not write {text!r}", path)

    def replace(self, path: str, text: str) -> None:
        """Refuse: an observation changes nothing."""
        self.write(path, text)

    def write_abandonable(self, path: str, text: str, timeout_s: float) -> None:
        """Refuse: an observation changes nothing."""
        del timeout_s
        self.write(path, text)

    def sriov_manage(self, address: str, *, enable: bool, timeout_s: float) -> CommandResult | None:
        """Refuse: an observation changes nothing."""
        del enable, timeout_s
        raise OSError(errno.EROFS, "an observation does not run sriov-manage", address)

    def log(self, since: int = 0) -> tuple[KernelLogLine, ...]:
        """The kernel log, as it is."""
        return self._kernel.log(since)

    def log_from_now(self) -> AbstractContextManager[Callable[[], tuple[KernelLogLine, ...]]]:
        """What comes into the kernel log."""
        return self._kernel.log_from_now()

    def uevents(self) -> Iterator[Uevent]:
        """Uevents, as they come."""
        return self._kernel.uevents()


def _once(seen: dict[str, T | OSError], path: str, ask: Callable[[str], T]) -> T:
    found = seen.get(path)
    if found is None:
        try:
            found = seen[path] = ask(path)
        except OSError as error:
            seen[path] = error
            raise
    if isinstance(found, OSError):
        # A fresh one: the same exception raised in several threads would chain their tracebacks.
        number = found.errno or errno.EIO
        raise OSError(number, found.strerror or os.strerror(number), path)
    return found

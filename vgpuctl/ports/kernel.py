"""The kernel: sysfs and procfs under one root, sriov-manage, uevents and the kernel log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KernelLogLine:
    """One line of the kernel log; `sequence` grows by one with each."""

    sequence: int
    text: str


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a program ended."""

    exit_status: int
    output: str


@dataclass(frozen=True, slots=True)
class Uevent:
    """A kernel uevent: `action` (add, remove, change ...), the device's path, its subsystem."""

    action: str
    devpath: str
    subsystem: str


class Kernel(Protocol):
    """A kernel's files.  Paths are relative to the root (`sys/bus/pci/devices/...`).

    Every method raises OSError with the kernel's errno, and nothing else.
    """

    def read(self, path: str) -> str:
        """The text of a file, without the final newline."""
        ...

    def write(self, path: str, text: str) -> None:
        """Put `text` into a file with a single write, as sysfs wants it."""
        ...

    def write_abandonable(self, path: str, text: str, timeout_s: float) -> None:
        """Like write, for a write that may block in the kernel for ever.

        Raises TimeoutError after `timeout_s`; the write then goes on by itself.
        """
        ...

    def replace(self, path: str, text: str) -> None:
        """Put an ordinary file of that text in the place of one that is there: whole, or not at all."""
        ...

    def list(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted."""
        ...

    def link(self, path: str) -> str:
        """The last component of what a symbolic link points to."""
        ...

    def resolve(self, path: str) -> str:
        """The real path, relative to the root, after following every link."""
        ...

    def exists(self, path: str) -> bool:
        """Whether something is there (a link that leads nowhere is not)."""
        ...

    def is_writable(self, path: str) -> bool:
        """Whether a file has a write bit in its mode: what a driver says of its attribute, unlike access(2).

        Root may open any file for writing; false where there is none.
        """
        ...

    def sriov_manage(self, address: str, *, enable: bool, timeout_s: float) -> CommandResult | None:
        """Run NVIDIA's sriov-manage for a PF; None where it is not installed.

        It runs outside of this process' life: a daemon that is restarted does not kill it half-way.
        """
        ...

    def log(self, since: int = 0) -> tuple[KernelLogLine, ...]:
        """The kernel log's lines with a sequence above `since`."""
        ...

    def log_from_now(self) -> AbstractContextManager[Callable[[], tuple[KernelLogLine, ...]]]:
        """A block; what it gives says, when called, what came into the kernel log since it began."""
        ...

    def uevents(self) -> Iterator[Uevent]:
        """Uevents from now on; blocks between them, ends when the source is closed."""
        ...

"""The kernel log, from /dev/kmsg."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vgpuctl.ports.kernel import KernelLogLine

_RECORD_MAX = 8192  # CONSOLE_EXT_LOG_MAX: a smaller buffer gets EINVAL for a long record
_FACILITY_SHIFT = 3


def read_log(path: str, since: int) -> tuple[KernelLogLine, ...]:
    """The kernel's own messages with a sequence above `since`; raises OSError.

    What user space wrote into the log is left out: anybody with the right to could forge an NVRM line.
    """
    with _opened(path) as descriptor:
        return tuple(line for line in _lines(descriptor) if line.sequence > since)


@contextmanager
def log_from_now(path: str) -> Iterator[Callable[[], tuple[KernelLogLine, ...]]]:
    """What says, when called, the kernel's own messages since the block began (or the last call).

    Reads nothing before it is called: one record is one read(2), and a log has thousands.
    """
    with _opened(path) as descriptor:
        os.lseek(descriptor, 0, os.SEEK_END)
        yield lambda: tuple(_lines(descriptor))


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lines(descriptor: int) -> Iterator[KernelLogLine]:
    while chunk := _next(descriptor):
        yield from _parse(chunk)


def _next(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, _RECORD_MAX)
        except BrokenPipeError:
            # The record was overwritten before we read it; the next read goes on after the gap.
            continue
        except BlockingIOError:
            return b""


def _parse(chunk: bytes) -> list[KernelLogLine]:
    """The kernel messages in `priority,sequence,time,flags[,...];text` records.

    Lines that begin with a space continue a record with its device's properties.
    (Documentation/ABI/testing/dev-kmsg)
    """
    found = []
    for line in chunk.decode(errors="replace").split("\n"):
        header, separator, text = line.partition(";")
        fields = header.split(",")
        if not separator or len(fields) < 4 or not fields[0].isdigit():
            continue
        if int(fields[0]) >> _FACILITY_SHIFT == 0:
            found.append(KernelLogLine(int(fields[1]), text))
    return found

"""The kernel log, from /dev/kmsg."""

from __future__ import annotations

import os

from vgpuctl.ports.kernel import KernelLogLine

_RECORD_MAX = 8192  # CONSOLE_EXT_LOG_MAX: a smaller buffer gets EINVAL for a long record
_FACILITY_SHIFT = 3


def read_log(path: str, since: int) -> tuple[KernelLogLine, ...]:
    """The kernel's own messages with a sequence above `since`; raises OSError.

    What user space wrote into the log is left out: anybody with the right to could forge an NVRM line.
    """
    lines: list[KernelLogLine] = []
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while chunk := _next(descriptor):
            lines += (line for line in _parse(chunk) if line.sequence > since)
    finally:
        os.close(descriptor)
    return tuple(lines)


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

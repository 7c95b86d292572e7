"""Uevents of the kernel, from a netlink socket that libudev opens and filters.

A datagram is `ACTION@DEVPATH`, then `KEY=VALUE` for each key, all ended by zeros
(lib/kobject_uevent.c).  Read here and not by libudev, which takes a hundred times as long: a restore
makes some hundreds of them.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from typing import Final

from vgpuctl.ports.kernel import Uevent

SUBSYSTEMS = ("pci", "mdev", "vfio", "vfio-dev", "drivers", "module")
"""Where a change of GPUs, VFs and vGPUs shows; the rest of a busy host would only wake us up."""

LOST = Uevent("lost", "", "")
"""Stands for an unknown number of uevents that the socket could not hold (ENOBUFS)."""

_DATAGRAM_MAX: Final = 8192
_THE_KERNEL: Final = (0, 1)
"""Port and group of a kernel's message."""
_KEY: Final = "SUBSYSTEM="


class UeventSource:
    """Any number of readers of uevents, which all end when the source is closed."""

    def __init__(self) -> None:
        # Nothing is ever written: closing the write end makes every reader's copy readable at once.
        self._ended, self._end = os.pipe2(os.O_CLOEXEC)
        self._is_closed = False

    def listen(self) -> Iterator[Uevent]:
        """Uevents of SUBSYSTEMS from this call on; blocks between them; raises OSError."""
        if self._is_closed:
            return iter(())
        try:
            import pyudev  # noqa: PLC0415  # looks for libudev, which costs a process

            monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        except ImportError as error:
            raise OSError(errno.ENOSYS, f"libudev is missing: {error}") from error
        for subsystem in SUBSYSTEMS:
            monitor.filter_by(subsystem)
        monitor.start()
        return _events(socket.socket(fileno=os.dup(monitor.fileno())), os.dup(self._ended))

    def close(self) -> None:
        """End every reader, now and later."""
        if not self._is_closed:
            self._is_closed = True
            os.close(self._end)
            os.close(self._ended)


def _events(source: socket.socket, ended: int) -> Iterator[Uevent]:
    poller = select.poll()
    poller.register(source, select.POLLIN)
    poller.register(ended, select.POLLIN)
    try:
        while True:
            if ended in {descriptor for descriptor, _ in poller.poll()}:
                return
            try:
                datagram, sender = source.recvfrom(_DATAGRAM_MAX)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield LOST
                continue
            if sender == _THE_KERNEL and (event := _parsed(datagram)) is not None:
                yield event
    finally:
        source.close()
        os.close(ended)


def _parsed(datagram: bytes) -> Uevent | None:
    head, *rest = datagram.decode(errors="replace").split("\0")
    action, _, devpath = head.partition("@")
    subsystem = next((each[len(_KEY) :] for each in rest if each.startswith(_KEY)), "")
    return Uevent(action, devpath, subsystem) if subsystem in SUBSYSTEMS else None

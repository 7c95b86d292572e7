"""Uevents of the kernel, through libudev."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from typing import Any

from vgpuctl.ports.kernel import Uevent

SUBSYSTEMS = ("pci", "mdev", "vfio", "vfio-dev", "drivers", "module")
"""Where a change of GPUs, VFs and vGPUs shows; the rest of a busy host would only wake us up."""

LOST = Uevent("lost", "", "")
"""Stands for an unknown number of uevents that the socket could not hold (ENOBUFS)."""


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
        return _events(monitor, os.dup(self._ended))

    def close(self) -> None:
        """End every reader, now and later."""
        if not self._is_closed:
            self._is_closed = True
            os.close(self._end)
            os.close(self._ended)


def _events(monitor: Any, ended: int) -> Iterator[Uevent]:
    poller = select.poll()
    poller.register(monitor.fileno(), select.POLLIN)
    poller.register(ended, select.POLLIN)
    try:
        while True:
            if ended in {descriptor for descriptor, _ in poller.poll()}:
                return
            try:
                device = monitor.poll(timeout=0)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield LOST
                continue
            if device is not None:
                yield Uevent(device.action or "", device.device_path, device.subsystem or "")
    finally:
        os.close(ended)

"""Uevents of the real kernel."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from vgpuctl.host import uevents
from vgpuctl.host.kernel import LocalKernel
from vgpuctl.ports.kernel import Uevent

PCI = Path("/sys/bus/pci/devices")


@pytest.fixture
def kernel():
    kernel = LocalKernel()
    yield kernel
    kernel.close()


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or not PCI.is_dir() or not any(PCI.iterdir()), reason="needs root and a PCI device"
)
class TestRealUevents:
    """Writing an action to a device's `uevent` makes the kernel send one again."""

    def test_an_event_after_the_call_is_not_lost(self, kernel):
        """The listener is in place when the call returns, not when the first event is asked for."""
        device = kernel.list("sys/bus/pci/devices")[0]
        events = kernel.uevents()
        kernel.write(f"sys/bus/pci/devices/{device}/uevent", "change")
        event = next(event for event in events if event.devpath.endswith(device))
        assert event == Uevent("change", "/" + kernel.resolve(f"sys/bus/pci/devices/{device}")[4:], "pci")

    def test_other_subsystems_do_not_wake_us(self, kernel):
        device = kernel.list("sys/bus/pci/devices")[0]
        events = kernel.uevents()
        kernel.write("sys/class/mem/null/uevent", "change")
        kernel.write(f"sys/bus/pci/devices/{device}/uevent", "change")
        seen = []
        for event in events:
            seen.append(event.subsystem)
            if event.devpath.endswith(device):
                break
        assert "mem" not in seen


def test_close_ends_every_reader(kernel):
    ended = []
    sources = [kernel.uevents(), kernel.uevents()]
    readers = [
        threading.Thread(target=lambda each=each: ended.append(list(each)), daemon=True) for each in sources
    ]
    for reader in readers:
        reader.start()
    kernel.close()
    for reader in readers:
        reader.join(30)
        assert not reader.is_alive()
    assert len(ended) == 2


def test_a_closed_source_has_no_events(kernel):
    kernel.close()
    kernel.close()
    assert list(kernel.uevents()) == []


def test_no_descriptor_stays_open(kernel):
    def is_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = is_open()
    events = kernel.uevents()
    kernel.close()
    assert list(events) == []
    del events
    assert is_open() == before - 2  # the pipe of the source


class FakeMonitor:
    """A netlink socket that has lost events: a pipe that is readable, and ENOBUFS on reading."""

    def __init__(self, failure: OSError) -> None:
        self._reader, writer = os.pipe()
        os.write(writer, b"x")
        os.close(writer)
        self._failure = failure

    def fileno(self) -> int:
        return self._reader

    def poll(self, timeout: float) -> None:
        os.read(self._reader, 1)
        raise self._failure


def test_lost_events_are_told(kernel):
    ended, end = os.pipe()
    events = uevents._events(FakeMonitor(OSError(errno.ENOBUFS, "")), ended)
    assert next(events) == uevents.LOST
    os.close(end)
    events.close()


def test_another_failure_is_raised():
    ended, end = os.pipe()
    with pytest.raises(OSError, match="went away"):
        next(uevents._events(FakeMonitor(OSError(errno.ENODEV, "went away")), ended))
    os.close(end)

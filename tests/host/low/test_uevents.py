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


class FakeSocket:
    """A netlink socket with one thing to read, by another sender than the kernel if so told."""

    def __init__(self, found: bytes | OSError, sender: tuple[int, int] = (0, 1)) -> None:
        self._reader, writer = os.pipe()
        os.write(writer, b"x")
        os.close(writer)
        self._found = [found]
        self._sender = sender

    def fileno(self) -> int:
        return self._reader

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        found = self._found.pop() if self._found else OSError(errno.ENODATA, "nothing more")
        if isinstance(found, OSError):
            raise found
        return found, self._sender

    def close(self) -> None:
        os.close(self._reader)


@pytest.fixture
def events_of():
    """The events of a fake socket; the source is not closed before the test ends."""
    ended, end = os.pipe()
    yield lambda source: uevents._events(source, ended)
    os.close(end)


ADDED = b"add@/devices/a/b\0ACTION=add\0DEVPATH=/devices/a/b\0SUBSYSTEM=mdev\0SEQNUM=7\0"


def test_an_event_is_read_from_the_kernels_datagram(events_of):
    assert next(events_of(FakeSocket(ADDED))) == Uevent("add", "/devices/a/b", "mdev")


@pytest.mark.parametrize(
    "source",
    [FakeSocket(ADDED, sender=(4711, 1)), FakeSocket(ADDED.replace(b"mdev", b"net")), FakeSocket(b"")],
    ids=["another process", "another subsystem", "nothing in it"],
)
def test_what_is_no_event_of_ours_is_passed_over(events_of, source):
    with pytest.raises(OSError, match="nothing more"):
        next(events_of(source))


def test_lost_events_are_told(events_of):
    events = events_of(FakeSocket(OSError(errno.ENOBUFS, "")))
    assert next(events) == uevents.LOST
    events.close()


def test_another_failure_is_raised(events_of):
    with pytest.raises(OSError, match="went away"):
        next(events_of(FakeSocket(OSError(errno.ENODEV, "went away"))))

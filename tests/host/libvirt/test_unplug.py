"""Taking a vGPU from a running guest.

No machine of ours has VFIO, so the guest stands in: libvirt's test driver, whose running domain shows
a hostdev and lets go of it as the test says.  Everything else is libvirt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import libvirt
import pytest

from vgpuctl.errors import DeadlineExceeded, LibvirtRefused, ReadBackMismatch
from vgpuctl.host.libvirt import connection as adapter
from vgpuctl.host.libvirt import domain_xml
from vgpuctl.host.libvirt.connection import Deadlines, LibvirtHypervisor
from vgpuctl.host.libvirt.example_domain import example_domain
from vgpuctl.model.document import Affect
from vgpuctl.model.domain import Hostdev, MdevSource, alias_for

ID = UUID("5bfcd486-c5eb-43e4-a5ee-97366690106f")
MDEV = Hostdev(MdevSource(ID), alias_for(ID))
BOTH = frozenset(Affect)
REMOVED = libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED
FAILED = libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED


class Guest:
    """The connection to a test driver whose domain `desk` runs with a vGPU."""

    def __init__(self, uri: str) -> None:
        self._real = libvirt.open(uri)
        self.is_plugged = True
        self.asked: list[str] = []
        self.callbacks: dict[int, Callable[..., None]] = {}
        self.when_asked: Callable[[], None] = lambda: None

    def lookupByName(self, name: str) -> GuestDomain:  # noqa: N802 - libvirt's name
        return GuestDomain(self, self._real.lookupByName(name))

    def domainEventRegisterAny(self, _domain: object, event: int, callback: Callable, _: object) -> int:  # noqa: N802
        self.callbacks[event] = callback
        return event

    def domainEventDeregisterAny(self, _event: int) -> None:  # noqa: N802
        pass

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def emit(self, event: int, device: str) -> None:
        self.callbacks[event](self, self._real.lookupByName("desk"), device, None)

    def let_go(self, event: int = REMOVED) -> None:
        self.is_plugged = event != REMOVED
        self.emit(event, MDEV.alias)


class GuestDomain:
    def __init__(self, guest: Guest, real: libvirt.virDomain) -> None:
        self._guest, self._real = guest, real

    def XMLDesc(self, flags: int = 0) -> str:  # noqa: N802
        text = self._real.XMLDesc(flags)
        if flags:
            return text
        if not self._guest.is_plugged:
            return domain_xml.without_hostdev(text, MDEV)
        return text.replace("</hostdev>", "<rom bar='off'/></hostdev>")

    def detachDeviceFlags(self, text: str, flags: int) -> None:  # noqa: N802
        assert flags == libvirt.VIR_DOMAIN_AFFECT_LIVE
        self._guest.asked.append(text)
        self._guest.when_asked()

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    path = tmp_path / "node.xml"
    desk = domain_xml.with_hostdev(example_domain("linux", "desk", kind="test"), MDEV)
    path.write_text(f"<node>{desk}</node>")
    return Guest(f"test://{path}")


@pytest.fixture
def hypervisor(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> Iterator[LibvirtHypervisor]:
    # The looks at the XML would hide an event that is not heard; the test of the looks sets its own.
    monkeypatch.setattr(adapter, "_LOOK_INTERVAL_S", 60)
    made = LibvirtHypervisor(
        "test:///guest", deadlines=Deadlines(unplug_s=5), open_connection=lambda _: guest
    )
    yield made
    made.close()


def test_it_is_done_when_the_guest_let_go(hypervisor: LibvirtHypervisor, guest: Guest) -> None:
    guest.when_asked = lambda: threading.Timer(0.1, guest.let_go).start()
    hypervisor.detach("desk", MDEV, BOTH)
    (asked,) = guest.asked
    assert "<rom bar=" in asked, "libvirt's own definition is what libvirt is asked to remove"
    assert "hostdev" not in hypervisor.xml("desk")


def test_an_event_that_comes_while_asking_is_heard(hypervisor: LibvirtHypervisor, guest: Guest) -> None:
    guest.when_asked = guest.let_go
    hypervisor.detach("desk", MDEV, BOTH)
    assert len(guest.asked) == 1
    assert "hostdev" not in hypervisor.xml("desk")


def test_another_device_s_event_is_not_ours(hypervisor: LibvirtHypervisor, guest: Guest) -> None:
    hypervisor._deadlines = Deadlines(unplug_s=0.2)
    guest.when_asked = lambda: guest.emit(REMOVED, "ua-other")
    with pytest.raises(DeadlineExceeded):
        hypervisor.detach("desk", MDEV, BOTH)


def test_a_guest_that_never_lets_go_keeps_it_in_the_config(
    hypervisor: LibvirtHypervisor, guest: Guest
) -> None:
    hypervisor._deadlines = Deadlines(unplug_s=0.2)
    with pytest.raises(DeadlineExceeded, match="did not let go") as caught:
        hypervisor.detach("desk", MDEV, BOTH)
    assert caught.value.hint
    assert str(ID) in hypervisor.xml("desk")


def test_a_guest_that_refuses(hypervisor: LibvirtHypervisor, guest: Guest) -> None:
    guest.when_asked = lambda: guest.let_go(FAILED)
    with pytest.raises(LibvirtRefused, match="refused to let go"):
        hypervisor.detach("desk", MDEV, BOTH)
    assert str(ID) in hypervisor.xml("desk")


def test_said_to_be_gone_and_still_there(hypervisor: LibvirtHypervisor, guest: Guest) -> None:
    guest.when_asked = lambda: guest.emit(REMOVED, MDEV.alias)
    with pytest.raises(ReadBackMismatch):
        hypervisor.detach("desk", MDEV, BOTH)


def test_a_lost_event_is_made_up_for_by_looking(
    hypervisor: LibvirtHypervisor, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "_LOOK_INTERVAL_S", 0.05)
    guest.when_asked = lambda: setattr(guest, "is_plugged", False)
    hypervisor.detach("desk", MDEV, BOTH)
    assert "hostdev" not in hypervisor.xml("desk")


def test_already_there_in_the_guest_is_left_alone(hypervisor: LibvirtHypervisor, guest: Guest) -> None:
    hypervisor.attach("desk", MDEV, BOTH)
    assert guest.asked == []

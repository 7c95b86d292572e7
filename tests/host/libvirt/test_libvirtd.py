"""The hypervisor port over a libvirtd with QEMU guests (emulated; no KVM, no VFIO)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.libvirtd import Libvirtd, tiny_domain, wait_until
from vgpuctl.errors import DeadlineExceeded, InvalidDomainState, LibvirtUnreachable, UnsupportedHere
from vgpuctl.host.libvirt import xml_text
from vgpuctl.host.libvirt.connection import Deadlines, LibvirtHypervisor
from vgpuctl.host.libvirt.example_domain import example_domain, names
from vgpuctl.model.document import Affect
from vgpuctl.model.domain import DomainState, Hostdev, MdevSource, alias_for
from vgpuctl.ports.hypervisor import DomainEvent, DomainEventKind

pytestmark = pytest.mark.root

ID = UUID("5bfcd486-c5eb-43e4-a5ee-97366690106f")
MDEV = Hostdev(MdevSource(ID), alias_for(ID))
CONFIG = frozenset({Affect.CONFIG})
LIVE = frozenset({Affect.LIVE})
BOTH = CONFIG | LIVE

Connect = Callable[..., LibvirtHypervisor]


@pytest.fixture
def connect(libvirtd: Libvirtd) -> Iterator[Connect]:
    """Adapters that are closed at the end."""
    adapters: list[LibvirtHypervisor] = []

    def make(**deadlines: float) -> LibvirtHypervisor:
        adapters.append(LibvirtHypervisor(libvirtd.uri, deadlines=Deadlines(**deadlines)))
        return adapters[-1]

    yield make
    libvirtd.thaw()
    for adapter in adapters:
        adapter.close()


def test_it_has_no_part_in_the_hosts_libvirt(libvirtd: Libvirtd) -> None:
    """It runs on machines with guests of their own, whose firewall, sockets and huge pages are theirs."""
    for namespace in ("net", "mnt"):
        ours = Path(f"/proc/self/ns/{namespace}").readlink()
        assert Path(f"/proc/{libvirtd.pid}/ns/{namespace}").readlink() != ours
    config = (libvirtd.directory / "etc/qemu.conf").read_text()
    assert "hugetlbfs_mount = []" in config.splitlines()


def test_config_attach_and_detach_keep_what_others_edited(libvirtd: Libvirtd, connect: Connect) -> None:
    libvirtd.define(tiny_domain("cold"))
    hypervisor = connect()
    assert hypervisor.info().can_attach_config
    hypervisor.attach("cold", MDEV, CONFIG)
    hypervisor.attach("cold", MDEV, CONFIG)
    (cold,) = hypervisor.domains()
    assert (cold.state, cold.live, cold.config) == (DomainState.SHUT_OFF, None, (MDEV,))

    edited = hypervisor.xml("cold")
    assert "display='off'" in edited
    libvirtd.define(edited.replace("display='off'", "display='on'").replace(">4</vcpu>", ">3</vcpu>"))
    hypervisor.detach("cold", MDEV, BOTH)
    hypervisor.detach("cold", MDEV, BOTH)
    left = hypervisor.xml("cold")
    assert "hostdev" not in left
    assert ">3</vcpu>" in left


@pytest.mark.parametrize("example", names())
def test_examples_have_room_for_four_vgpus(libvirtd: Libvirtd, connect: Connect, example: str) -> None:
    libvirtd.define(example_domain(example, "desk", kind="qemu"))
    hypervisor = connect()
    for number in range(4):
        hypervisor.attach("desk", Hostdev(MdevSource(UUID(int=number)), alias_for(UUID(int=number))), CONFIG)
    root = xml_text.parse(hypervisor.xml("desk"))
    addresses = [
        tuple(sorted((key, value) for key, value in address.items() if key != "multifunction"))
        for address in root.iterfind("devices/*/address[@type='pci']")
    ]
    assert len(set(addresses)) == len(addresses)
    assert len(root.findall("devices/hostdev")) == 4
    assert len(root.findall("devices/controller[@model='pcie-root-port']")) == 8, "libvirt had to add none"


def test_live_needs_a_guest(libvirtd: Libvirtd, connect: Connect) -> None:
    libvirtd.define(tiny_domain("cold"))
    hypervisor = connect()
    with pytest.raises(InvalidDomainState, match="not running"):
        hypervisor.attach("cold", MDEV, LIVE)
    with pytest.raises(InvalidDomainState):
        hypervisor.xml("cold", live=True)


def test_a_running_guest(libvirtd: Libvirtd, connect: Connect) -> None:
    hypervisor = connect()
    seen: list[DomainEvent] = []
    hypervisor.subscribe(seen.append)
    hypervisor.info()
    libvirtd.define(tiny_domain("warm"))
    libvirtd.virsh("start", "warm")
    wait_until(lambda: DomainEvent(DomainEventKind.STARTED, "warm") in seen, "STARTED")

    # No VFIO on a machine without an IOMMU: refused, and the config is as it was.
    with pytest.raises(UnsupportedHere, match="VFIO"):
        hypervisor.attach("warm", MDEV, BOTH)
    (warm,) = hypervisor.domains()
    assert (warm.state, warm.live, warm.config) == (DomainState.RUNNING, (), ())

    hypervisor.attach("warm", MDEV, CONFIG)
    (warm,) = hypervisor.domains()
    assert (warm.live, warm.config) == ((), (MDEV,))

    # The guest's device events come by alias; a USB device goes without a guest OS.
    usb = "<input type='tablet' bus='usb'><alias name='ua-tablet'/></input>"
    libvirtd.virsh("attach-device", "warm", "/dev/stdin", "--live", text=usb)
    libvirtd.virsh("detach-device-alias", "warm", "ua-tablet", "--live")
    gone = DomainEvent(DomainEventKind.DEVICE_REMOVED, "warm", "ua-tablet")
    wait_until(lambda: gone in seen, "DEVICE_REMOVED")

    libvirtd.virsh("suspend", "warm")
    assert hypervisor.domains()[0].state is DomainState.PAUSED
    libvirtd.virsh("managedsave", "warm")
    (warm,) = hypervisor.domains()
    assert (warm.state, warm.live, warm.managed_save) == (DomainState.SHUT_OFF, None, True)


def test_libvirtd_restarts_under_us(libvirtd: Libvirtd, connect: Connect) -> None:
    hypervisor = connect()
    seen: list[DomainEventKind] = []
    hypervisor.subscribe(lambda event: seen.append(event.kind))
    hypervisor.info()
    libvirtd.stop()
    wait_until(lambda: DomainEventKind.DISCONNECTED in seen, "DISCONNECTED")
    with pytest.raises(LibvirtUnreachable):
        hypervisor.domains()
    libvirtd.start()
    wait_until(lambda: seen.count(DomainEventKind.CONNECTED) == 2, "CONNECTED again")
    assert hypervisor.domains() == ()
    libvirtd.define(tiny_domain("later"))
    wait_until(lambda: DomainEventKind.DEFINED in seen, "events of the new connection")


def test_a_mute_libvirtd_holds_nobody_up(libvirtd: Libvirtd, connect: Connect) -> None:
    """ecosystem.md B0.2: libvirt.open on a mute socket blocks for ever."""
    libvirtd.define(tiny_domain("desk"))
    hypervisor = connect(read_s=0.5, change_s=0.5)
    hypervisor.info()
    late = connect(read_s=0.5)
    libvirtd.freeze()
    with pytest.raises(DeadlineExceeded, match="attaching"):
        hypervisor.attach("desk", MDEV, CONFIG)
    with pytest.raises(LibvirtUnreachable):
        hypervisor.domains()
    late.close()
    with pytest.raises(LibvirtUnreachable):
        connect(read_s=0.5).info()
    libvirtd.thaw()
    wait_until(lambda: _answers(hypervisor), "the connection that comes back")
    assert [each.name for each in hypervisor.domains()] == ["desk"]


def _answers(hypervisor: LibvirtHypervisor) -> bool:
    try:
        hypervisor.info()
    except LibvirtUnreachable:
        return False
    return True

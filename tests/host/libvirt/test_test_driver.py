"""The hypervisor port over libvirt's test driver: real libvirt, no server, no QEMU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import libvirt
import pytest

from tests.support.libvirtd import wait_until
from vgpuctl.errors import (
    Conflict,
    DomainNotFound,
    InvalidDomainState,
    LibvirtRefused,
    LibvirtUnreachable,
    UnsupportedHere,
)
from vgpuctl.host.libvirt import driver, refusals
from vgpuctl.host.libvirt.connection import Deadlines, LibvirtHypervisor
from vgpuctl.host.libvirt.example_domain import example_domain
from vgpuctl.host.libvirt.listing import Listing
from vgpuctl.model.document import Affect
from vgpuctl.model.domain import DomainState, Hostdev, MdevSource, PciSource, alias_for
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import PciAddress
from vgpuctl.ports.hypervisor import DomainEvent, DomainEventKind, HypervisorPort

ID = UUID("5bfcd486-c5eb-43e4-a5ee-97366690106f")
MDEV = Hostdev(MdevSource(ID), alias_for(ID))
VF = Hostdev(PciSource(PciAddress(0, 0x41, 0, 4)), alias_for(ID))
CONFIG = frozenset({Affect.CONFIG})
LIVE = frozenset({Affect.LIVE})
BOTH = CONFIG | LIVE


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A test driver of this test's own; `desk` and `spare` run."""
    desk = example_domain("linux", "desk", kind="test").replace(
        'listen="127.0.0.1"', 'listen="127.0.0.1" passwd="geheim"'
    )
    path = tmp_path / "node.xml"
    path.write_text(f"<node>{desk}{example_domain('linux', 'spare', kind='test')}</node>")
    return f"test://{path}"


@pytest.fixture
def hypervisor(uri: str) -> Iterator[HypervisorPort]:
    adapter = LibvirtHypervisor(uri)
    yield adapter
    adapter.close()


def test_says_what_it_is(hypervisor: HypervisorPort) -> None:
    info = hypervisor.info()
    assert info.uri.startswith("test:///")
    assert info.version == driver.version_text(libvirt.getVersion())
    assert not info.can_attach_config


def test_config_by_redefining_keeps_the_password(hypervisor: LibvirtHypervisor) -> None:
    """ecosystem.md B0.3: the test driver has no virDomainAttachDeviceFlags."""
    hypervisor.attach("desk", MDEV, CONFIG)
    (desk,) = (each for each in hypervisor.domains() if each.name == "desk")
    assert desk.config == (MDEV,)
    assert desk.live == ()
    secure = libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE
    # test:///FILE is a host of its own for each connection: look through the adapter's.
    text = hypervisor._link.call("looking", lambda through: through.lookupByName("desk").XMLDesc(secure), 10)
    assert "passwd='geheim'" in text


def test_twice_is_once_and_nothing_is_done(hypervisor: HypervisorPort) -> None:
    for _ in range(2):
        hypervisor.attach("desk", MDEV, CONFIG)
    assert hypervisor.xml("desk").count(str(ID)) == 2  # source and alias
    for _ in range(2):
        hypervisor.detach("desk", MDEV, BOTH)
    assert str(ID) not in hypervisor.xml("desk")


def test_no_password_is_shown(hypervisor: HypervisorPort) -> None:
    assert "geheim" not in hypervisor.xml("desk")
    assert "geheim" not in hypervisor.xml("desk", live=True)


def test_live_is_refused_by_a_driver_that_cannot(hypervisor: HypervisorPort) -> None:
    with pytest.raises(UnsupportedHere):
        hypervisor.attach("desk", MDEV, BOTH)
    assert str(ID) not in hypervisor.xml("desk"), "the guest comes first, so the config was not changed"


def test_an_alias_of_another_device_is_a_conflict(hypervisor: HypervisorPort) -> None:
    hypervisor.attach("desk", MDEV, CONFIG)
    with pytest.raises(Conflict):
        hypervisor.attach("desk", Hostdev(MdevSource(UUID(int=1)), MDEV.alias), CONFIG)


@pytest.mark.skipif(libvirt.getVersion() >= 9_007_000, reason="this libvirt takes it")
def test_a_vf_on_nvidia_is_refused_before_libvirt_is_asked(hypervisor: HypervisorPort) -> None:
    """DESIGN, Three kinds of GPU: libvirt 9.0 refuses a VF that stays bound to nvidia."""
    with pytest.raises(UnsupportedHere, match=r"9\.7\.0"):
        hypervisor.attach("desk", VF, CONFIG)
    assert "hostdev" not in hypervisor.xml("desk")
    assert hypervisor.info().refusal(FrameworkKind.VENDOR_VFIO)
    hypervisor.attach("desk", Hostdev(VF.source, VF.alias, managed=True), CONFIG)


def test_what_a_managed_save_image_needs_stays(hypervisor: LibvirtHypervisor) -> None:
    """Saved after the plan was made: who starts from the image would miss the vGPU."""

    def aliases() -> list[str | None]:
        desk = next(each for each in hypervisor.domains() if each.name == "desk")
        return [each.alias for each in desk.config or ()]

    hypervisor.attach("desk", MDEV, CONFIG)
    desk = hypervisor._link.call("testing", lambda connection: connection.lookupByName("desk"), 10.0)
    desk.managedSave(0)
    with pytest.raises(InvalidDomainState, match="managed-save"):
        hypervisor.detach("desk", MDEV, CONFIG)
    assert MDEV.alias in aliases()
    desk.managedSaveRemove(0)
    hypervisor.detach("desk", MDEV, CONFIG)
    assert MDEV.alias not in aliases()


def test_a_transient_domain_has_no_config(hypervisor: LibvirtHypervisor) -> None:
    passing = example_domain("linux", "passing", kind="test")
    hypervisor._link.call("starting", lambda connection: connection.createXML(passing), 10)
    with pytest.raises(InvalidDomainState, match="transient"):
        hypervisor.attach("passing", MDEV, CONFIG)
    hypervisor.detach("passing", MDEV, BOTH)


@pytest.mark.parametrize(
    ("number", "takes_it"),
    [(9_000_000, False), (9_006_000, False), (9_007_000, True), (10_000_000, True), (11_003_000, True)],
)
def test_which_libvirt_takes_a_vf_on_nvidia(number: int, takes_it: bool) -> None:
    assert (driver.vendor_vfio_refusal(number) is None) is takes_it


def test_domains_are_found_by_name_uuid_and_id(hypervisor: HypervisorPort) -> None:
    desk = next(each for each in hypervisor.domains() if each.name == "desk")
    texts = {hypervisor.xml(name, live=True) for name in ("desk", str(desk.uuid), "id:1")}
    assert len(texts) == 1


@pytest.mark.parametrize("name", ["dsk", "1", "id:77", "id:x", "id:99999999999", str(UUID(int=5))])
def test_an_unknown_domain_names_near_ones(hypervisor: HypervisorPort, name: str) -> None:
    with pytest.raises(DomainNotFound) as caught:
        hypervisor.xml(name)
    assert caught.value.hint
    assert (caught.value.facts["near"] == ["desk"]) is (name == "dsk")


def test_states(uri: str) -> None:
    connection = libvirt.open(uri)
    connection.lookupByName("spare").destroy()
    connection.lookupByName("desk").suspend()
    connection.createXML(example_domain("linux", "passing", kind="test"))
    found = {each.name: each for each in Listing().read(connection)}
    spare = found["spare"]
    assert (spare.state, spare.live, spare.config) == (DomainState.SHUT_OFF, None, ())
    assert (found["desk"].state, found["desk"].live) == (DomainState.PAUSED, ())
    assert (found["passing"].state, found["passing"].config) == (DomainState.RUNNING, None)
    connection.close()


class Counting:
    """A virConnect that counts the calls made through it and its domains."""

    def __init__(self, real: object) -> None:
        self._real, self.calls = real, [0]

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object) -> object:
            if name not in ("UUID", "name"):
                self.calls[0] += 1
            answer = getattr(self._real, name)(*arguments)
            return [self._child(each) for each in answer] if name == "listAllDomains" else answer

        return call

    def _child(self, real: object) -> Counting:
        child = Counting(real)
        child.calls = self.calls
        return child


def test_listing_is_bounded_and_parses_only_what_changed(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = libvirt.open(uri)
    for number in range(20):
        connection.defineXML(example_domain("linux", f"more-{number}", kind="test"))
    counting = Counting(connection)
    listing = Listing()
    first = listing.read(counting)
    assert counting.calls[0] <= 3 + 3 * 22
    parsed: list[str] = []
    monkeypatch.setattr("vgpuctl.host.libvirt.domain_xml.hostdevs_of", lambda text: parsed.append(text) or ())
    assert listing.read(counting) == first
    assert parsed == []
    connection.defineXML(example_domain("win11", "more-20", kind="test"))
    listing.read(counting)
    assert len(parsed) == 1
    connection.close()


def test_events_reach_listeners_in_order_and_one_that_fails_harms_nobody(uri: str) -> None:
    seen: list[DomainEvent] = []

    def fails(_event: DomainEvent) -> None:
        raise RuntimeError("this listener is broken")

    hypervisor = LibvirtHypervisor(uri)
    hypervisor.subscribe(fails)
    hypervisor.subscribe(seen.append)
    hypervisor.info()
    hypervisor.attach("desk", MDEV, CONFIG)
    hypervisor.detach("spare", MDEV, CONFIG)
    hypervisor.attach("spare", MDEV, CONFIG)
    wait_until(
        lambda: DomainEvent(DomainEventKind.DEFINED, "spare") in seen, "the event of a redefined domain"
    )
    assert [event.domain for event in seen if event.kind is DomainEventKind.DEFINED] == ["desk", "spare"]
    hypervisor.close()


def test_closed_is_closed(hypervisor: HypervisorPort) -> None:
    hypervisor.info()
    hypervisor.close()
    hypervisor.close()
    with pytest.raises(LibvirtUnreachable):
        hypervisor.info()


@pytest.mark.timeout(20)
def test_nobody_there_fails_at_once_and_says_where(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A call waits for an attempt under way, not for one that has failed."""
    uri = f"qemu+unix:///system?socket={tmp_path}/none"
    hypervisor = LibvirtHypervisor(uri, deadlines=Deadlines(read_s=60))
    with pytest.raises(LibvirtUnreachable) as caught:
        hypervisor.info()
    assert caught.value.facts["uri"] == uri
    hypervisor.close()
    assert "libvirt:" not in capfd.readouterr().err, "libvirt itself prints nothing"


def test_a_connection_that_broke_unnoticed_is_opened_again(uri: str) -> None:
    """The close callback may come late, or never (a socket that was reset in a call)."""
    opened: list[Breaking] = []

    class Breaking:
        """A connection whose version fails as a broken socket does, the first time."""

        def __init__(self, real: object) -> None:
            self._real = real
            opened.append(self)

        def getLibVersion(self) -> int:  # noqa: N802 - libvirt's name
            if len(opened) == 1:
                error = libvirt.libvirtError("")
                error.err = (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, "reset", 2, *[None] * 5)
                raise error
            return 9_000_000

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    hypervisor = LibvirtHypervisor(uri, open_connection=lambda where: Breaking(libvirt.open(where)))
    with pytest.raises(LibvirtUnreachable, match="reset"):
        hypervisor.info()
    assert hypervisor.info().version == "9.0.0"
    hypervisor.close()


def test_a_call_that_hangs_is_left_and_the_next_connection_works(uri: str) -> None:
    """ecosystem.md B0.2: the GIL is released, and a mute libvirt blocks for ever."""
    let_go = threading.Event()
    opened: list[Hanging] = []
    let_go_at_close: list[bool] = []

    class Hanging:
        """A connection whose version hangs, the first time."""

        def __init__(self, real: libvirt.virConnect) -> None:
            self._real = real
            opened.append(self)

        def getLibVersion(self) -> int:  # noqa: N802 - libvirt's name
            if len(opened) == 1:
                let_go.wait(60)
            return 9_000_000

        def close(self) -> None:
            if self is opened[0]:
                let_go_at_close.append(let_go.is_set())
            self._real.close()

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    hypervisor = LibvirtHypervisor(
        uri, deadlines=Deadlines(read_s=0.3), open_connection=lambda where: Hanging(libvirt.open(where))
    )
    seen: list[DomainEventKind] = []
    hypervisor.subscribe(lambda event: seen.append(event.kind))
    with pytest.raises(LibvirtUnreachable, match=r"0\.3 s"):
        hypervisor.info()
    wait_until(lambda: len(opened) == 2, "a second connection")
    assert hypervisor.info().version == "9.0.0"
    wait_until(lambda: DomainEventKind.DISCONNECTED in seen, "DISCONNECTED")
    hypervisor.close()
    assert not let_go_at_close, "closing frees what the hanging call is still using"
    let_go.set()
    wait_until(lambda: let_go_at_close == [True], "the first connection is closed")


def test_a_connection_is_closed_when_nobody_is_in_it_any_more(uri: str) -> None:
    """libvirt frees a connection at once: a call that is still in it takes the process down."""
    inside, let_in, let_go = 0, threading.Event(), threading.Event()
    users_at_close: list[int] = []

    class Slow:
        def __init__(self, real: libvirt.virConnect) -> None:
            self._real = real

        def getLibVersion(self) -> int:  # noqa: N802 - libvirt's name
            nonlocal inside
            inside += 1
            let_in.set()
            let_go.wait(60)
            inside -= 1
            return 9_000_000

        def close(self) -> None:
            users_at_close.append(inside)
            self._real.close()

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    hypervisor = LibvirtHypervisor(uri, open_connection=lambda where: Slow(libvirt.open(where)))
    asking = threading.Thread(target=hypervisor.info)
    asking.start()
    assert let_in.wait(20)
    hypervisor.close()
    let_go.set()
    asking.join()
    wait_until(lambda: users_at_close == [0], "the connection is closed")


def test_a_call_for_which_no_thread_is_to_be_had_has_left(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who never came in must not keep the connection open for ever."""
    closed = threading.Event()

    class Closing:
        def __init__(self, real: libvirt.virConnect) -> None:
            self._real = real

        def close(self) -> None:
            self._real.close()
            closed.set()

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    hypervisor = LibvirtHypervisor(uri, open_connection=lambda where: Closing(libvirt.open(where)))
    hypervisor.info()
    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", refuse)
        with pytest.raises(LibvirtUnreachable, match="can't start new thread"):
            hypervisor.info()
    hypervisor.close()
    assert closed.wait(20)


def test_it_is_let_go_of_where_no_thread_is_to_be_had(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    hypervisor = LibvirtHypervisor(uri)
    hypervisor.info()
    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", refuse)
        hypervisor.close()
    with pytest.raises(LibvirtUnreachable, match="was closed"):
        hypervisor.info()


@pytest.mark.parametrize(
    ("code", "domain", "expected"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_FROM_QEMU, DomainNotFound),
        (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_FROM_QEMU, UnsupportedHere),
        (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_FROM_QEMU, InvalidDomainState),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, LibvirtUnreachable),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, LibvirtUnreachable),
        (libvirt.VIR_ERR_INVALID_CONN, libvirt.VIR_FROM_DOMAIN, LibvirtUnreachable),
        (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_FROM_NONE, LibvirtUnreachable),
        # libvirtd's own helpers: a read-only /etc, a limit of locked memory, a module that is not there
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_NONE, LibvirtRefused),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_NONE, LibvirtRefused),
        (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_FROM_RPC, LibvirtRefused),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_QEMU, LibvirtRefused),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, LibvirtRefused),
        (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_FROM_QEMU, LibvirtRefused),
    ],
)
def test_libvirts_errors_have_a_place_in_the_tree(code: int, domain: int, expected: type) -> None:
    error = libvirt.libvirtError("")
    error.err = (code, domain, "what libvirt says", 2, None, None, None, 0, 0)
    refusal = refusals.refusal(error, "test:///default", "trying")
    assert type(refusal) is expected
    assert "what libvirt says" in refusal.message
    if expected is LibvirtRefused:
        assert refusal.facts["libvirt_code"] == code


def test_nobody_waits_for_a_libvirt_that_begins_after_us(uri: str) -> None:
    """At boot it comes up once we are ready; who asks before that must not hold that up."""
    is_up = threading.Event()

    def comes_up(where: str) -> libvirt.virConnect:
        assert is_up.wait(20)
        return libvirt.open(where)

    hypervisor = LibvirtHypervisor(uri, open_connection=comes_up, awaited=False)
    with pytest.raises(LibvirtUnreachable, match="not up yet"):
        hypervisor.domains()
    hypervisor.await_first()
    threading.Timer(0.3, is_up.set).start()
    assert {each.name for each in hypervisor.domains()} == {"desk", "spare"}
    hypervisor.close()

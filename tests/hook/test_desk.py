"""The files that the daemon and the hook leave for each other."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.hook import call, domain, install, mdev_hostdev
from vgpuctl.errors import Conflict
from vgpuctl.host.hook_desk import HOOK_FILE, HookFiles
from vgpuctl.model.allocation import Allocation, GpuIdentity, Hold
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import DeviceId, FrameworkKind
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.start import HookLife
from vgpuctl.ports.hypervisor import DomainEvent, DomainEventKind
from vgpuctl.service.views import hook_problems

GPU, VF = PciAddress(0, 0x41, 0, 0), PciAddress(0, 0x41, 0, 4)
DOMAIN = UUID(int=9, version=4)
STARTED = DomainEvent(DomainEventKind.STARTED, "win1")
CONNECTED = DomainEvent(DomainEventKind.CONNECTED, "")


@pytest.fixture
def desk(tmp_path: Path) -> HookFiles:
    return HookFiles(tmp_path / "run" / "hook", tmp_path)


def installed(tmp_path: Path) -> Path:
    return install(tmp_path / HOOK_FILE, RUN=str(tmp_path / "run" / "hook"))


def place(
    number: int, framework: FrameworkKind, parent: PciAddress, boot_id: str | None = "now"
) -> Allocation:
    return Allocation(
        id=UUID(int=number),
        name=f"vgpu-{number}",
        type_name="L40S-8Q",
        type_id=1150,
        fb_mib=8192,
        gpu=GpuIdentity(GPU, DeviceId(0x10DE, 1, 2, 3), None),
        framework=framework,
        parent=parent,
        params=None,
        created_at=datetime(2026, 11, 1, tzinfo=UTC),
        created_boot=boot_id,
    )


def test_it_is_live_once_the_hook_gave_the_nonce_back(tmp_path: Path, desk: HookFiles):
    assert desk.state().life is HookLife.NOT_INSTALLED
    hook = installed(tmp_path)
    assert desk.state().life is HookLife.UNSEEN
    call(hook, "win1", "started", "begin", "-", xml="")
    assert desk.state().life is HookLife.LIVE
    desk.hear(STARTED)
    assert desk.state().life is HookLife.LIVE


def test_another_libvirtd_may_not_have_found_it(tmp_path: Path, desk: HookFiles):
    """hardware.md T4: libvirt's hooks are found only at libvirtd's start."""
    hook = installed(tmp_path)
    call(hook, "win1", "started", "begin", "-", xml="")
    desk.hear(CONNECTED)
    assert desk.state().life is HookLife.UNSEEN
    desk.hear(STARTED)
    state = desk.state()
    assert (state.life, state.domain) == (HookLife.NOT_CALLED, "win1")
    call(hook, "win2", "prepare", "begin", "-", xml="")
    assert desk.state().life is HookLife.LIVE


def test_what_to_do_about_it(tmp_path: Path, desk: HookFiles):
    (absent,) = hook_problems(desk.state())
    assert str(tmp_path / HOOK_FILE) in absent.error.message
    assert "install it" in (absent.error.hint or "")
    installed(tmp_path)
    assert hook_problems(desk.state()) == []
    desk.hear(STARTED)
    (dead,) = hook_problems(desk.state())
    assert "win1" in dead.error.message
    assert "restart libvirtd" in (dead.error.hint or "")


def test_the_book_names_vfs_of_this_boot_only(tmp_path: Path, desk: HookFiles):
    vendor = FrameworkKind.VENDOR_VFIO
    desk.publish(
        "now",
        [
            place(1, FrameworkKind.MDEV, GPU),
            place(2, vendor, VF),
            place(3, vendor, VF, boot_id="before"),
            replace(place(4, vendor, VF), lost=True),
            place(5, vendor, VF, boot_id=None),
        ],
    )
    book = json.loads((tmp_path / "run/hook/book").read_text())
    assert book["boot_id"] == "now"
    assert [each["vf"] for each in book["vgpus"].values()] == [None, str(VF), None, None, None]
    assert {each["type_id"] for each in book["vgpus"].values()} == {1150}


def test_starts_are_read_and_those_that_are_over_go(tmp_path: Path, desk: HookFiles):
    hook = installed(tmp_path)
    assert desk.starts() == {}
    call(hook, "win1", "prepare", "begin", "-", xml=domain("win1", DOMAIN, mdev_hostdev(UUID(int=1))))
    starts = desk.starts()
    assert isinstance(starts, dict)
    assert list(starts) == [DOMAIN]
    note = tmp_path / "run/hook/starts" / str(DOMAIN)
    desk.publish("now", [])
    assert note.exists(), "a start under way has no hold yet"
    os.utime(note, (0, 0))
    held = Hold(
        domain="win1",
        domain_uuid=DOMAIN,
        token=starts[DOMAIN],
        boot_id="now",
        gpu=GPU,
        parent=GPU,
        type_id=1150,
    )
    desk.publish("now", [replace(place(1, FrameworkKind.MDEV, GPU), hold=held)])
    assert note.exists()
    desk.publish("now", [place(1, FrameworkKind.MDEV, GPU)])
    assert not note.exists()


def test_nobody_else_can_look(desk: HookFiles, tmp_path: Path):
    assert (tmp_path / "run/hook").stat().st_mode & 0o777 == 0o700
    assert desk.socket == tmp_path / "run/hook/sock"
    (tmp_path / "run/hook").chmod(0o755)
    HookFiles(tmp_path / "run/hook", tmp_path)
    assert (tmp_path / "run/hook").stat().st_mode & 0o777 == 0o700, "also where it was there already"
    (tmp_path / "link").symlink_to(tmp_path / "run/hook")
    with pytest.raises(Conflict):
        HookFiles(tmp_path / "link", tmp_path)


def test_a_directory_that_cannot_be_written_stops_nothing(tmp_path: Path, desk: HookFiles):
    (tmp_path / "run/hook/.book").mkdir()
    desk.publish("now", [])
    (tmp_path / "run/hook/starts").write_text("")
    assert isinstance(desk.starts(), Unknown)

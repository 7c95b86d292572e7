"""The service is restarted, as an upgrade does, while sriov-manage has a card in pieces."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.desktops import PCI, TYPES, Host, get, main_pid, run, shown, until, vgpuctl

pytestmark = pytest.mark.rig

CARD = "0000:81:00.0"
PAUSE = Path("/run/sriov-manage.pause")


@pytest.fixture
def host() -> Iterator[Host]:
    PAUSE.touch()
    with Host("a2:vendor-vfio@81") as made:
        yield made
        PAUSE.unlink(missing_ok=True)


def on_the_stub() -> bool:
    return (PCI / CARD / "driver").resolve().name == "pci-pf-stub"


def state_of(unit: str) -> str:
    return run("systemctl", "show", "-P", "ActiveState", unit).strip()


def test_sriov_manage_ends_and_the_card_is_whole(host: Host) -> None:
    host.define("desk")
    operation = vgpuctl("attach", "desk", "--type", TYPES["vendor-vfio"], "--no-wait")["id"]
    until(on_the_stub, "sriov-manage")
    before = main_pid()
    upgrade = subprocess.Popen(["systemctl", "restart", "vgpuctl.service"])
    until(lambda: state_of("vgpuctl.service") == "deactivating", "the stop")
    PAUSE.unlink()
    assert upgrade.wait(300) == 0
    assert main_pid() not in (0, before)
    assert vgpuctl("operation", "wait", operation)["state"] == "succeeded"
    row = shown("desk", state="present", attached=["config"])
    (gpu,) = get("gpus")
    assert (gpu["state"], gpu["driver"], gpu["vfs_enabled"]) == ("ready", "nvidia", gpu["vfs_max"])
    host.start("desk")
    shown("desk", attached=["live", "config"], uuid=row["uuid"])

"""mdevctl on a simulated host: its files, and what it starts when a parent appears; cards that move."""

from __future__ import annotations

import json

import pytest

from tests.sim.hosts import FIRST, MDEVS, turn, with_vfs
from vgpuctl.errors import Conflict, InvalidInput
from vgpuctl.sim.host import SimHost

DEFINITIONS = "etc/mdevctl.d"


def definition_of(host: SimHost, parent: str, uuid: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(host.kernel.read(f"{DEFINITIONS}/{parent}/{uuid}"))
    return found


def test_what_is_defined_auto_is_started_when_its_parent_appears():
    """hardware.md 6.2: udev's rule starts it; on a VF, once that is on and filled."""
    for cards in ("t4:mdev", "l40s:sriov-mdev"):
        host = with_vfs(cards)
        made = host.control(
            "foreign", {"gpu": FIRST, "type": "T4-4Q" if "t4" in cards else "L40S-8Q", "autostart": True}
        )
        assert definition_of(host, made["parent"], made["uuid"])["start"] == "auto"
        host.control("reboot")
        if "l40s" in cards:
            assert host.kernel.list(MDEVS) == (), "its VF is off"
            turn(host, FIRST, on=True)
        assert host.kernel.list(MDEVS) == (made["uuid"],)
        host.control("reload-driver")
        text = host.kernel.read(f"{DEFINITIONS}/{made['parent']}/{made['uuid']}")
        host.kernel.replace(f"{DEFINITIONS}/{made['parent']}/{made['uuid']}", text.replace("auto", "manual"))
        host.control("reboot")
        if "l40s" in cards:
            turn(host, FIRST, on=True)
        assert host.kernel.list(MDEVS) == ()


def test_only_files_of_mdevctl_are_replaced():
    host = SimHost.in_memory("t4:mdev")
    assert "scripts.d" in host.kernel.list(DEFINITIONS)
    for path in (f"{DEFINITIONS}/{FIRST}/x", "proc/sys/kernel/hostname", "etc/passwd"):
        with pytest.raises(FileNotFoundError):
            host.kernel.replace(path, "x")


def test_a_card_that_moves_keeps_its_uuid_and_nothing_else():
    host = with_vfs("l40s:sriov-mdev")
    host.control("foreign", {"gpu": FIRST, "type": "L40S-8Q"})
    before = host.nvml.host(1).gpus[0].uuid  # type: ignore[union-attr]
    moved = host.control("move-gpu", {"gpu": FIRST, "address": "0000:c1:00.0"})
    assert moved == {"address": "0000:c1:00.0", "uuid": before}
    assert not host.kernel.exists(f"sys/bus/pci/devices/{FIRST}")
    assert host.kernel.read("sys/bus/pci/devices/0000:c1:00.0/sriov_numvfs") == "0"
    assert host.kernel.list(MDEVS) == ()


def test_a_card_moves_only_where_there_is_room():
    host = SimHost.in_memory("l40s,t4")
    for where, error in (("0000:61:00.0", Conflict), ("nowhere/", InvalidInput), ("mtty", InvalidInput)):
        with pytest.raises(error):
            host.control("move-gpu", {"gpu": FIRST, "address": where})

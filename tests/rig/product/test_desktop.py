"""Desktops with vGPUs of all three frameworks: vgpuctl as a service, real libvirt, real QEMU."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import libvirt
import pytest

from tests.rig import desktops
from tests.rig.desktops import (
    NEW_MACHINE,
    TYPES,
    Host,
    alias_of,
    get,
    held_by,
    hostdev_xml,
    hostdevs,
    listed_by_libvirt,
    mdevctl_list,
    node_device,
    refused,
    run,
    shown,
    type_in_kernel,
    until,
    vfio_group,
    vgpu,
    vgpuctl,
    vgpus,
)
from tests.rig.linux_guest import LinuxGuest, rare_timer_interrupts
from tests.support.marks import thorough

pytestmark = pytest.mark.rig


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host() as made:
        yield made


@pytest.fixture(scope="module")
def unanswered(host: Host) -> str:
    """The operation of a hot unplug that a guest does not answer: it takes its time, so it is asked early."""
    host.define("silent", NEW_MACHINE)
    host.start("silent")
    vgpuctl("attach", "silent", "--type", TYPES["mdev"], "--yes")
    operation = vgpuctl("detach", "silent", "--yes", "--no-wait")
    return str(operation["id"])


@pytest.mark.parametrize("framework", ["mdev", thorough("sriov-mdev"), "vendor-vfio"])
def test_a_desktop_from_its_first_vgpu_to_its_last(host: Host, framework: str) -> None:
    name = f"desk-{framework}"
    before = host.define(name)

    # cold: into the definition
    vgpuctl("attach", name, "--type", TYPES[framework])
    row = shown(name, state="present", type=TYPES[framework], framework=framework)
    assert (row["attached"], row["holders"]) == (["config"], [])
    _agree_on(host, name, row)

    # running: QEMU holds it
    pid = host.start(name)
    holders = [{"pid": pid, "command": "qemu-system-x86", "domain": name}]
    row = shown(name, attached=["live", "config"], holders=holders)
    assert str(vfio_group(row)) in held_by(pid)
    _nobody_else_gets(host, name, row)

    # hot: a second one into the running guest, and out again
    vgpuctl("attach", name, "--type", TYPES[framework], "--yes")
    second = shown(f"{name}-2", attached=["live", "config"], holders=holders)
    assert held_by(pid) == {str(vfio_group(row)), str(vfio_group(second))}
    vgpuctl("detach", name, "--vgpu", second["name"], "--yes")
    assert until(lambda: (name, alias_of(second)) in host.events.removed, "libvirt's event")
    assert held_by(pid) == {str(vfio_group(row))}
    assert vgpus(name=second["name"]) == []
    assert type_in_kernel(second) is None

    # and away
    host.stop(name)
    shown(name, holders=[], attached=["config"])
    vgpuctl("detach", name)
    assert vgpus(domain=name) == []
    assert type_in_kernel(row) is None
    assert host.xml(name) == before


def _agree_on(host: Host, name: str, row: dict[str, Any]) -> None:
    """Kernel, mdevctl and libvirt show what vgpuctl shows."""
    types = {each["name"]: each for each in get("types", gpu=row["gpu"])}
    assert type_in_kernel(row) == str(types[row["type"]]["type_id"])
    (hostdev,) = hostdevs(host.xml(name))
    assert hostdev.find("alias").get("name") == alias_of(row)
    assert hostdev.get("managed") == "no"
    run("virt-xml-validate", "-", "domain", stdin=host.xml(name))
    listed_by_libvirt(node_device(row))
    shown = run("virsh", "-q", "nodedev-dumpxml", node_device(row))
    if row["framework"] == "vendor-vfio":
        assert hostdev.get("type") == "pci"
        assert "<name>nvidia</name>" in shown
        assert mdevctl_list() == {}
        return
    assert hostdev.find("source/address").get("uuid") == row["uuid"]
    parent = row["vf"] or row["gpu"]
    assert mdevctl_list() == {row["uuid"]: (parent, f"nvidia-{type_in_kernel(row)}")}
    assert f"<type id='nvidia-{type_in_kernel(row)}'/>" in shown
    assert f"nvidia-{type_in_kernel(row)}" in run("mdevctl", "types", "--parent", parent)


def _nobody_else_gets(host: Host, name: str, row: dict[str, Any]) -> None:
    """The kernel, libvirt and vgpuctl all refuse a second user of a vGPU, and its removal."""
    with pytest.raises(OSError) as caught:
        os.close(os.open(vfio_group(row), os.O_RDWR))
    assert caught.value.errno == errno.EBUSY
    thief = f"thief-{row['framework']}"
    host.define(thief, devices=hostdev_xml(row))
    with pytest.raises(libvirt.libvirtError, match="in use"):
        host.start(thief)
    host.libvirt.lookupByName(thief).undefine()
    host.define(thief)
    assert refused(action="attach", domain=thief, vgpu=name)["code"] == "vgpu-attached"
    assert refused(action="delete-vgpu", vgpu=name)["code"] == "vgpu-attached"

    # one that somebody took without us
    vgpuctl("vgpu", "create", "--type", row["type"], "--name", "spare")
    spare = vgpu("spare")
    domain = host.libvirt.lookupByName(name)
    domain.attachDevice(hostdev_xml(spare))
    shown("spare", holders=row["holders"])
    problem = refused(action="delete-vgpu", vgpu="spare")
    assert problem["code"] in ("vgpu-busy", "vgpu-attached")
    assert name in problem["detail"]
    domain.detachDevice(hostdev_xml(spare))
    shown("spare", holders=[])
    vgpuctl("vgpu", "delete", "spare")
    assert type_in_kernel(spare) is None


@pytest.mark.usefixtures("unanswered")
@pytest.mark.parametrize("firmware", [thorough("bios"), "efi"])
def test_a_linux_guest_sees_its_vgpus(host: Host, firmware: str) -> None:
    """By their ids, and with the 256 MiB behind a 64-bit BAR that a framebuffer needs room for."""
    name = f"linux-{firmware}"
    linux = LinuxGuest(name, efi=firmware == "efi")
    host.define_xml(linux.xml)
    for each in TYPES.values():
        vgpuctl("attach", name, "--type", each)
    with rare_timer_interrupts():
        host.start(name)
        text = until(linux.said, "the guest's last word")
    assert ("firmware is EFI" in text) is (firmware == "efi")
    seen = linux.seen()
    gpus = {each["address"]: each for each in get("gpus")}
    assert {each.vendor_device for each in seen} == {
        gpus[row["gpu"]]["device_id"].split("/")[0] for row in vgpus(domain=name)
    }
    assert len(seen) == len(TYPES)
    assert {each.subsystem.split(":")[0] for each in seen} == {"10de"}
    for each in seen:
        assert (256 << 20, True) in each.bars.values(), each
        assert len(each.bars) > 1, each
    until(lambda: not host.libvirt.lookupByName(name).isActive(), "the guest's end")
    vgpuctl("detach", name)


def test_a_guest_that_does_not_let_go_keeps_it_and_that_is_said(host: Host, unanswered: str) -> None:
    done = subprocess.run(
        ["vgpuctl", "operation", "wait", unanswered], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 7
    assert "the guest of silent did not let go" in done.stderr
    row = shown("silent", attached=["live", "config"])
    assert [each["domain"] for each in row["holders"]] == ["silent"]
    assert alias_of(row) in {
        each.find("alias").get("name") for each in hostdevs(host.xml("silent", live=True))
    }
    assert ("silent", alias_of(row)) not in host.events.removed
    host.stop("silent")
    vgpuctl("detach", "silent")
    assert desktops.mdevctl_list() == {}

"""The old guest: kernel 6.1, libvirt 9, QEMU 7.2, Python 3.11, systemd 252."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.desktops import (
    TYPES,
    Host,
    alias_of,
    held_by,
    hostdevs,
    kill_daemon,
    mdevctl_list,
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
from tests.rig.guests import BOOKWORM

pytestmark = [pytest.mark.thorough, pytest.mark.rig(BOOKWORM)]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host() as made:
        yield made


def test_a_desktop(host: Host) -> None:
    """On a VF; what libvirt is told is the same for a PF's mdev."""
    framework = "sriov-mdev"
    before = host.define(framework)
    vgpuctl("attach", framework, "--type", TYPES[framework])
    row = vgpu(framework)
    parent = row["vf"] or row["gpu"]
    assert mdevctl_list() == {row["uuid"]: (parent, f"nvidia-{type_in_kernel(row)}")}
    run("virt-xml-validate", "-", "domain", stdin=host.xml(framework))
    pid = host.start(framework)
    vgpuctl("attach", framework, "--type", TYPES[framework], "--yes")
    holders = [{"pid": pid, "command": "qemu-system-x86", "domain": framework}]
    second = shown(f"{framework}-2", holders=holders)
    assert held_by(pid) == {str(vfio_group(row)), str(vfio_group(second))}
    assert refused(action="delete-vgpu", vgpu=framework)["code"] == "vgpu-attached"
    vgpuctl("detach", framework, "--vgpu", second["name"], "--yes")
    assert until(lambda: (framework, alias_of(second)) in host.events.removed, "libvirt's event")

    kill_daemon()
    shown(framework, attached=["live", "config"], holders=holders)
    host.stop(framework)
    vgpuctl("detach", framework)
    assert (vgpus(), mdevctl_list()) == ([], {})
    assert host.xml(framework) == before


def test_what_this_libvirt_cannot_take_is_refused_in_words(host: Host) -> None:
    """libvirt 9 wants a hostdev's VF on vfio-pci; under the vendor framework it stays on nvidia."""
    before = host.define("vendor")
    problem = refused(action="attach", domain="vendor", type=TYPES["vendor-vfio"])
    # The framework shows only once the VFs are on, which was undone again.
    assert (problem["code"], problem["facts"]["cause"]["code"]) == ("rolled-back", "unsupported-here")
    assert "libvirt" in problem["detail"]
    assert hostdevs(host.xml("vendor")) == []
    assert host.xml("vendor") == before
    assert vgpus() == []

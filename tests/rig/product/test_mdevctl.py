"""Beside the real mdevctl and libvirt's node devices: who starts what, and how that is switched off."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.rig.desktops import (
    PCI,
    T4,
    TYPES,
    Host,
    listed_by_libvirt,
    mdevctl_list,
    run,
    until,
    vgpu,
    vgpuctl,
    vgpus,
)

pytestmark = pytest.mark.rig

DEFINITIONS = Path("/etc/mdevctl.d")


@pytest.fixture
def host() -> Iterator[Host]:
    """A host on which nobody has made anything."""
    with Host() as made:
        yield made


def kind_of(name: str) -> str:
    """The directory of a type of the T4's."""
    return next(
        each.name
        for each in (PCI / T4 / "mdev_supported_types").iterdir()
        if (each / "name").read_text().split()[-1] == name
    )


def test_what_libvirts_nodedev_starts_is_adopted_and_its_autostart_switched_off(host: Host) -> None:
    """What `virsh nodedev-autostart` sets stands in mdevctl's file, and nowhere else."""
    del host
    uuid = str(uuid4())
    parent = "pci_" + re.sub(r"[:.]", "_", T4)
    kind = kind_of(TYPES["mdev"])
    xml = f"<device><parent>{parent}</parent><capability type='mdev'><type id='{kind}'/><uuid>{uuid}</uuid>"
    Path("/tmp/nodedev.xml").write_text(f"{xml}</capability></device>")
    listed_by_libvirt(parent)
    run("virsh", "nodedev-define", "/tmp/nodedev.xml")
    name = f"mdev_{uuid.replace('-', '_')}_{re.sub(r'[:.]', '_', T4)}"
    try:
        run("virsh", "nodedev-autostart", name)
        run("virsh", "nodedev-start", name)
        (foreign,) = until(lambda: vgpus(state="foreign"), "the foreign vGPU")
        assert (foreign["name"], foreign["autostart"]) == (uuid, "mdevctl")
        vgpuctl("adopt", uuid, "--yes")
        assert re.search(r"Autostart:\s+yes", run("virsh", "nodedev-info", name))
        vgpuctl("adopt", uuid, "--disable-autostart", "--yes")
        assert json.loads((DEFINITIONS / T4 / uuid).read_text())["start"] == "manual"
        assert re.search(rf"{uuid} {T4} {kind} manual", run("mdevctl", "list", "--defined"))
        until(
            lambda: re.search(r"Autostart:\s+no", run("virsh", "nodedev-info", name)),
            "what libvirt says of its autostart",
        )
        # It is ours now: gone by somebody's hand, it is made again, with its id, and once.
        (Path("/sys/bus/mdev/devices") / uuid / "remove").write_text("1")
        until(lambda: uuid in mdevctl_list(), "the vGPU")
        until(lambda: vgpu(f"adopted-{uuid}")["state"] == "present", "the vGPU of ours")
        assert vgpus() == [vgpu(f"adopted-{uuid}")]
    finally:
        run("mdevctl", "undefine", "--uuid", uuid)

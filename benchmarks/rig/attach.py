"""One vGPU created and attached to a domain's config: by the API, by raw writes and libvirt, by commands."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import libvirt

from benchmarks.rig.cards import Cards, Place, free_vf
from benchmarks.rig.daemon import Daemon
from tests.rig.simulated import Nvsim

_DOMAIN: Final = (
    "<domain type='qemu'><name>bench</name><memory unit='MiB'>64</memory>"
    "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
)
_MDEV: Final = (
    "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='{}'/></source></hostdev>"
)
_PCI: Final = (
    "<hostdev mode='subsystem' type='pci' managed='no'><source>"
    "<address domain='0x{}' bus='0x{}' slot='0x{}' function='0x{}'/></source></hostdev>"
)
_XML: Final = Path("/run/vgpuctl-bench.xml")


def measure(cards: Cards, rounds: int) -> dict[str, Any]:
    """Seconds of each round and way; what was made is taken away in between."""
    cards.plug()
    connection = libvirt.open("qemu:///system")
    domain = connection.defineXML(_DOMAIN)
    daemon = Daemon()
    daemon.start()
    seconds: dict[str, list[float]] = {"API": [], "raw": []}
    try:
        for _ in range(rounds):
            seconds["API"].append(_by_api(cards, daemon))
            seconds["raw"].append(_raw(cards, domain))
            if not cards.has_vfs:
                seconds.setdefault("mdevctl and virsh", []).append(_by_commands(cards, domain))
    finally:
        daemon.stop()
        domain.undefine()
        connection.close()
        Nvsim().unload()
    return {"seconds": seconds}


def _by_api(cards: Cards, daemon: Daemon) -> float:
    body = {"action": "attach", "domain": "bench", "type": cards.vgpu_type, "gpu": cards.gpus[0]}
    began = time.monotonic()
    daemon.change(body)
    took_s = time.monotonic() - began
    daemon.change({"action": "detach", "domain": "bench"})
    return round(took_s, 4)


def _place(cards: Cards) -> tuple[Place, str]:
    """A free place on the first card, and the XML of its device."""
    gpu = cards.gpus[0]
    if cards.has_vfs:
        file = free_vf(gpu)
        vf = file.parts[-3]
        number = _type_id(file.with_name("creatable_vgpu_types").read_text(), cards.vgpu_type)
        return Place(gpu, str(file), number), _PCI.format(*vf.replace(".", ":").split(":"))
    types = Path(f"/sys/class/mdev_bus/{gpu}/mdev_supported_types")
    kind = next(
        each for each in types.iterdir() if (each / "name").read_text().split()[-1] == cards.vgpu_type
    )
    uuid = str(uuid4())
    return Place(gpu, str(kind / "create"), uuid), _MDEV.format(uuid)


def _type_id(text: str, name: str) -> str:
    return next(line.split(":")[0].strip() for line in text.splitlines() if line.split()[-1] == name)


def _raw(cards: Cards, domain: Any) -> float:
    place, xml = _place(cards)
    began = time.monotonic()
    place.make()
    domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    took_s = time.monotonic() - began
    _take_away(place, xml, domain)
    return round(took_s, 4)


def _by_commands(cards: Cards, domain: Any) -> float:
    place, xml = _place(cards)
    _XML.write_text(xml)
    start = ["mdevctl", "start", "-u", place.text, "-p", place.gpu, "-t", place.kind]
    began = time.monotonic()
    subprocess.run(start, check=True, stdin=subprocess.DEVNULL)
    subprocess.run(
        ["virsh", "-q", "attach-device", "bench", _XML, "--config"], check=True, stdin=subprocess.DEVNULL
    )
    took_s = time.monotonic() - began
    _take_away(place, xml, domain)
    return round(took_s, 4)


def _take_away(place: Place, xml: str, domain: Any) -> None:
    domain.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    place.remove()

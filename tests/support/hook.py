"""libvirt's hook as it is installed, but for other paths and shorter deadlines; and domains for it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from uuid import UUID

from tests.support.libvirtd import tiny_domain
from vgpuctl.model.domain import alias_for

SOURCE = Path(__file__).resolve().parents[2] / "packaging/libvirt/qemu_hook.py"


def install(place: Path, **constants: object) -> Path:
    """Put the hook at `place`; `constants` of it are other ones there."""
    text = SOURCE.read_text()
    for name, value in constants.items():
        text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", text)
        assert count == 1, name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(0o755)
    return place


def call(hook: Path, *arguments: str, xml: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
    """Call the hook as libvirt does."""
    return subprocess.run(
        [hook, *arguments], input=xml, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def mdev_hostdev(vgpu: UUID, alias: UUID | None = None) -> str:
    return (
        "<hostdev mode='subsystem' type='mdev' managed='no' model='vfio-pci'>"
        f"<source><address uuid='{vgpu}'/></source><alias name='{alias_for(alias or vgpu)}'/></hostdev>"
    )


def vf_hostdev(vgpu: UUID, *, managed: str = "no") -> str:
    return (
        f"<hostdev mode='subsystem' type='pci' managed='{managed}'><source>"
        "<address domain='0x0000' bus='0x41' slot='0x00' function='0x4'/></source>"
        f"<alias name='{alias_for(vgpu)}'/></hostdev>"
    )


def domain(name: str, uuid: UUID, *devices: str) -> str:
    """A domain that starts in a second or two, with those devices."""
    xml = tiny_domain(name)
    xml = re.sub(r"<uuid>.*?</uuid>\s*", "", xml)
    xml = xml.replace("</name>", f"</name><uuid>{uuid}</uuid>", 1)
    return xml.replace("</devices>", "".join(devices) + "</devices>", 1)

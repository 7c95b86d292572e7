"""The example domains in templates/: desktops to define and try things on."""

from __future__ import annotations

from lxml import etree

from vgpuctl.errors import InvalidInput
from vgpuctl.host.libvirt import xml_text
from vgpuctl.resources import templates_directory


def names() -> tuple[str, ...]:
    """The examples there are (`linux`, `win11`)."""
    found = templates_directory().glob("domain-*.xml")
    return tuple(sorted(path.stem.removeprefix("domain-") for path in found))


def example_domain(example: str, name: str, *, kind: str = "kvm", memory_mib: int | None = None) -> str:
    """The XML of an example domain under the name `name`, without a UUID.

    `kind` is the domain's type: `kvm`, `qemu` (emulated, where there is no KVM) or `test`.  What only
    KVM can do is left out for the others.
    """
    if example not in names():
        raise InvalidInput(f"no example domain {example!r}", hint=f"There are: {', '.join(names())}.")
    root = xml_text.parse((templates_directory() / f"domain-{example}.xml").read_text(encoding="utf-8"))
    root.set("type", kind)
    for element in root.iterfind("name"):
        element.text = name
    for source in root.iterfind("devices/disk/source[@file]"):
        source.set("file", f"/var/lib/libvirt/images/{name}.qcow2")
    if memory_mib is not None:
        for memory in root.iterfind("memory"):
            memory.set("unit", "MiB")
            memory.text = str(memory_mib)
    if kind != "kvm":
        for path in ("cpu", "features/hyperv", "clock/timer[@name='hypervclock']"):
            for element in root.findall(path):
                _drop(element)
    return etree.tostring(root, encoding="unicode", with_tail=False)


def _drop(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)

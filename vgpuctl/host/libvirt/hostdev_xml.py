"""One `<hostdev>`: made from the skeletons in templates/, and read."""

from __future__ import annotations

import copy
from functools import cache
from uuid import UUID

from lxml import etree

from vgpuctl.host.libvirt import xml_text
from vgpuctl.model.domain import Hostdev, MdevSource, PciSource
from vgpuctl.model.pci import PciAddress
from vgpuctl.resources import templates_directory


def element_of(hostdev: Hostdev) -> etree._Element:
    """The element by which a domain's XML names `hostdev`, without indentation."""
    match hostdev.source:
        case MdevSource(uuid=uuid):
            element = copy.deepcopy(_skeleton("hostdev-mdev.xml"))
            address = _one(element, "source/address")
            address.set("uuid", str(uuid))
        case PciSource(address=pci):
            element = copy.deepcopy(_skeleton("hostdev-pci.xml"))
            address = _one(element, "source/address")
            address.set("domain", f"0x{pci.domain:04x}")
            address.set("bus", f"0x{pci.bus:02x}")
            address.set("slot", f"0x{pci.device:02x}")
            address.set("function", f"0x{pci.function:x}")
    element.set("managed", "yes" if hostdev.managed else "no")
    alias = _one(element, "alias")
    if hostdev.alias is None:
        element.remove(alias)
    else:
        alias.set("name", hostdev.alias)
    return element


def text_of(hostdev: Hostdev) -> str:
    """The XML that libvirt's attach and detach calls take."""
    return etree.tostring(element_of(hostdev), encoding="unicode")


def read(element: etree._Element) -> Hostdev | None:
    """The mdev or PCI function that a `<hostdev>` names; None for anything else (USB, SCSI ...)."""
    if element.get("mode", "subsystem") != "subsystem":
        return None
    source = _source(element)
    if source is None:
        return None
    alias = element.find("alias")
    return Hostdev(
        source=source,
        alias=None if alias is None else alias.get("name"),
        managed=element.get("managed") == "yes",
    )


def _source(element: etree._Element) -> MdevSource | PciSource | None:
    address = element.find("source/address")
    if address is None:
        return None
    try:
        match element.get("type"):
            case "mdev":
                return MdevSource(UUID(address.get("uuid", "")))
            case "pci":
                return PciSource(
                    PciAddress(
                        _number(address.get("domain", "0")),
                        _number(address.get("bus", "")),
                        _number(address.get("slot", "")),
                        _number(address.get("function", "0")),
                    )
                )
            case _:
                return None
    except ValueError:
        return None


def _number(text: str) -> int:
    """A number as libvirt reads it: `0x41` is hexadecimal, `65` decimal."""
    return int(text, 16) if text.lower().startswith("0x") else int(text, 10)


def _one(element: etree._Element, path: str) -> etree._Element:
    found = element.find(path)
    if found is None:
        raise LookupError(f"the template of <{element.tag}> has no {path}")
    return found


@cache
def _skeleton(name: str) -> etree._Element:
    root = xml_text.parse((templates_directory() / name).read_text(encoding="utf-8"))
    for element in root.iter():
        if element.text is not None and not element.text.strip():
            element.text = None
        element.tail = None
    return root

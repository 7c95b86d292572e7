"""The hostdevs in a domain's XML: found, put in and taken out.

The XML is edited, not rewritten: what we do not know (other namespaces, comments, CDATA, processing
instructions) stays as it is, and `without_hostdev(with_hostdev(text, h), h)` is `text` again in its
canonical form, white space included.
"""

from __future__ import annotations

from lxml import etree

from vgpuctl.errors import Conflict, InvalidInput
from vgpuctl.host.libvirt import hostdev_xml, xml_text
from vgpuctl.model.domain import Hostdev, vgpu_of_alias


def hostdevs_of(text: str) -> tuple[Hostdev, ...]:
    """The mdevs and PCI functions that a domain's XML names, in its order."""
    if "hostdev" not in text:
        return ()
    return tuple(hostdev for _, hostdev in _hostdevs(xml_text.parse(text)))


def numa_node_of(text: str) -> int | None:
    """The NUMA node to which a domain's memory is bound, where its XML binds it to one."""
    if "numatune" not in text:
        return None
    memory = xml_text.parse(text).find("numatune/memory")
    nodeset = "" if memory is None else memory.get("nodeset", "")
    return int(nodeset) if nodeset.isdecimal() else None


def find(hostdevs: tuple[Hostdev, ...], wanted: Hostdev) -> Hostdev | None:
    """The hostdev with `wanted`'s alias, else one of its source that is not another vGPU's of ours.

    The address of a VF may have been another one's before: its hostdev has the alias of that vGPU.
    """
    if wanted.alias is not None:
        for each in hostdevs:
            if each.alias == wanted.alias:
                return each
    ours = vgpu_of_alias(wanted.alias)
    of_others = [each for each in hostdevs if ours and vgpu_of_alias(each.alias) not in (None, ours)]
    return next((each for each in hostdevs if each.source == wanted.source and each not in of_others), None)


def is_there(hostdevs: tuple[Hostdev, ...], wanted: Hostdev) -> bool:
    """Whether `wanted` need not be put in; Conflict when its alias names another device."""
    found = find(hostdevs, wanted)
    if found is None:
        return False
    if found.source != wanted.source:
        raise Conflict(
            f"the alias {wanted.alias} already names another device in this domain",
            hint="Detach that device first, or change its alias with virsh edit.",
            alias=wanted.alias,
        )
    return True


def device_xml(text: str, wanted: Hostdev) -> str | None:
    """The hostdev's element as it stands in the domain's XML now; None when it is not there."""
    found = _element(xml_text.parse(text), wanted)
    return None if found is None else etree.tostring(found, encoding="unicode", with_tail=False)


def with_hostdev(text: str, hostdev: Hostdev) -> str:
    """The domain's XML with `hostdev` as the last device; one that is there already stays.

    Raises InvalidInput when there is no `<devices>` (libvirt always writes one), Conflict when the
    alias names another device.
    """
    root = xml_text.parse(text)
    if is_there(tuple(each for _, each in _hostdevs(root)), hostdev):
        return text
    devices = root.find("devices")
    if devices is None:
        raise InvalidInput("the domain's XML has no <devices>")
    _append(devices, hostdev_xml.element_of(hostdev))
    return xml_text.render(root)


def without_hostdev(text: str, hostdev: Hostdev) -> str:
    """The domain's XML without `hostdev`, found by alias, else by source."""
    root = xml_text.parse(text)
    found = _element(root, hostdev)
    if found is None:
        return text
    _remove(found)
    return xml_text.render(root)


def _hostdevs(root: etree._Element) -> list[tuple[etree._Element, Hostdev]]:
    pairs = ((element, hostdev_xml.read(element)) for element in root.iterfind("devices/hostdev"))
    return [(element, hostdev) for element, hostdev in pairs if hostdev is not None]


def _element(root: etree._Element, wanted: Hostdev) -> etree._Element | None:
    pairs = _hostdevs(root)
    found = find(tuple(each for _, each in pairs), wanted)
    return next((element for element, hostdev in pairs if hostdev is found), None)


def _append(devices: etree._Element, element: etree._Element) -> None:
    """Put `element` last, indented like its siblings; `_remove` is the exact opposite."""
    step = _line(devices.getparent()).removeprefix("\n") or "  "
    if len(devices):
        indent = _line(devices)
        last = devices[-1]
        end, last.tail = last.tail, indent
    else:
        closing = _line(devices)
        indent = closing + step if closing else ""
        end, devices.text = devices.text, indent
    devices.append(element)
    if indent:
        _indent(element, indent, step)
    # What stood before </devices> has to stand there again when the element is gone.
    element.tail = end


def _remove(element: etree._Element) -> None:
    """Take `element` out together with the white space before it, and nothing else."""
    parent = element.getparent()
    if parent is None:
        raise LookupError("a root element cannot be removed")
    before = element.getprevious()
    text = parent.text if before is None else before.tail
    is_indentation = text is None or not text.strip()
    kept = ("" if is_indentation else text or "") + (element.tail or "")
    parent.remove(element)
    if before is None:
        parent.text = kept
    else:
        before.tail = kept


def _line(element: etree._Element | None) -> str:
    """The line break and indentation before an element's first child; '' when there is none."""
    text = None if element is None else element.text
    if text is None or text.strip() or "\n" not in text:
        return ""
    return text[text.rindex("\n") :]


def _indent(element: etree._Element, indent: str, step: str) -> None:
    if not len(element):
        return
    element.text = indent + step
    for child in element:
        _indent(child, indent + step, step)
        child.tail = indent + step
    element[-1].tail = indent

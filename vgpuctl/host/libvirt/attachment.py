"""One hostdev in one domain: put in, taken out, and read back.  Runs inside a Link's call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import libvirt

from vgpuctl.errors import DomainNotFound, InvalidDomainState, ReadBackMismatch, UnsupportedHere
from vgpuctl.host.libvirt import domain_xml, driver, hostdev_xml
from vgpuctl.host.libvirt.listing import state_of
from vgpuctl.host.libvirt.lookup import domain_called
from vgpuctl.model.document import Affect
from vgpuctl.model.domain import Hostdev, PciSource


@dataclass(frozen=True, slots=True)
class Plugged:
    """A device in a running guest, as libvirt defines it now; `domain` is the domain's name."""

    domain: str
    alias: str
    xml: str


def xml(connection: Any, name: str, where: Affect) -> str:
    """The domain's XML without passwords; InvalidDomainState when it has no such definition."""
    return _definition(domain_called(connection, name), where)


def attach(connection: Any, name: str, hostdev: Hostdev, where: Affect) -> None:
    """Put `hostdev` in, unless it is there."""
    if isinstance(hostdev.source, PciSource) and not hostdev.managed:
        refusal = driver.vendor_vfio_refusal(connection.getLibVersion())
        if refusal is not None:
            raise UnsupportedHere(
                f"a vGPU of the vendor framework cannot be attached to {name}: {refusal}",
                hint="Use a newer libvirt, or a GPU whose vGPUs are mdevs.",
                domain=name,
            )
    domain = domain_called(connection, name)
    if domain_xml.is_there(_hostdevs(domain, where), hostdev):
        return
    if where is Affect.LIVE:
        domain.attachDeviceFlags(hostdev_xml.text_of(hostdev), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    elif driver.attaches_devices(connection):
        domain.attachDeviceFlags(hostdev_xml.text_of(hostdev), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    else:
        _redefine(connection, domain, lambda text: domain_xml.with_hostdev(text, hostdev))
    if not domain_xml.is_there(_hostdevs(domain, where), hostdev):
        raise ReadBackMismatch(
            f"libvirt took the hostdev, and the {where} XML of {name} does not show it", domain=name
        )


def detach_config(connection: Any, name: str, hostdev: Hostdev) -> None:
    """Take `hostdev` out of the config, unless it is not there; InvalidDomainState where an image needs it.

    The image may be newer than the plan: then whoever starts from it would miss the vGPU.
    """
    try:
        domain = domain_called(connection, name)
    except DomainNotFound:
        return
    if not domain.isPersistent():
        return
    device = domain_xml.device_xml(_definition(domain, Affect.CONFIG), hostdev)
    if device is None:
        return
    if domain.hasManagedSaveImage(0):
        raise InvalidDomainState(
            f"domain {name} has a managed-save image, which needs its vGPUs",
            hint=f"start it, or drop the image: virsh managedsave-remove {name}",
            domain=name,
        )
    if driver.attaches_devices(connection):
        _detach(domain, device, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    else:
        _redefine(connection, domain, lambda text: domain_xml.without_hostdev(text, hostdev))
    if domain_xml.find(_hostdevs(domain, Affect.CONFIG), hostdev) is not None:
        raise ReadBackMismatch(
            f"libvirt removed the hostdev, and the config of {name} still shows it", domain=name
        )


def plugged(connection: Any, name: str, hostdev: Hostdev) -> Plugged | None:
    """The device in the running guest; None when there is no guest or no such device."""
    try:
        domain = domain_called(connection, name)
    except DomainNotFound:
        return None  # one that was not persistent is gone when it has stopped
    if not state_of(domain).is_active:
        return None
    text = domain.XMLDesc()
    device = domain_xml.device_xml(text, hostdev)
    found = domain_xml.find(domain_xml.hostdevs_of(text), hostdev)
    if device is None or found is None:
        return None
    return Plugged(domain.name(), found.alias or "", device)


def request_unplug(connection: Any, device: Plugged) -> None:
    """Ask the guest to let go; whether it does comes as an event."""
    _detach(connection.lookupByName(device.domain), device.xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _detach(domain: Any, device: str, flags: int) -> None:
    try:
        domain.detachDeviceFlags(device, flags)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_DEVICE_MISSING:
            raise


def _redefine(connection: Any, domain: Any, edit: Callable[[str], str]) -> None:
    """Change the config where the driver has no other way.

    Without SECURE the XML comes without passwords, and defining it would delete them.
    """
    text = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    connection.defineXML(edit(text))


def _hostdevs(domain: Any, where: Affect) -> tuple[Hostdev, ...]:
    return domain_xml.hostdevs_of(_definition(domain, where))


def _definition(domain: Any, where: Affect) -> str:
    if where is Affect.LIVE:
        if not state_of(domain).is_active:
            raise InvalidDomainState(
                f"domain {domain.name()} is not running",
                hint="Start it, or change its config only.",
                domain=domain.name(),
            )
        return str(domain.XMLDesc())
    if not domain.isPersistent():
        raise InvalidDomainState(
            f"domain {domain.name()} is transient: it has no config that outlives its guest",
            hint="Define it with `virsh define`.",
            domain=domain.name(),
        )
    return str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))

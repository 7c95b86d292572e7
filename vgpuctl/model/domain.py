"""libvirt domains and the host devices that their XML names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Union
from uuid import UUID

from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import PciAddress

ALIAS_PREFIX = "ua-vgpuctl-"
"""A hostdev of ours carries the alias `ua-vgpuctl-<allocation id>`; libvirt keeps `ua-` aliases."""


def alias_for(vgpu_id: UUID) -> str:
    """The hostdev alias by which the domain XML names an allocation."""
    return f"{ALIAS_PREFIX}{vgpu_id}"


def vgpu_of_alias(alias: str | None) -> UUID | None:
    """The allocation that `alias` names, or None when the alias is not ours."""
    if alias is None or not alias.startswith(ALIAS_PREFIX):
        return None
    try:
        return UUID(alias.removeprefix(ALIAS_PREFIX))
    except ValueError:
        return None


class DomainState(StrEnum):
    """Whether a domain has a running guest; `other` is a state that we do not know."""

    RUNNING = "running"
    PAUSED = "paused"
    SHUT_OFF = "shut-off"
    OTHER = "other"

    @property
    def is_active(self) -> bool:
        """Whether there is (or may be) a guest with devices in its hands."""
        return self is not DomainState.SHUT_OFF


@dataclass(frozen=True, slots=True)
class MdevSource:
    """A hostdev that names an mdev."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class PciSource:
    """A hostdev that names a PCI function."""

    address: PciAddress


HostdevSource = Union[MdevSource, PciSource]


@dataclass(frozen=True, slots=True)
class Hostdev:
    """A host device in a domain's XML.

    `managed` says whether libvirt rebinds the driver; a vendor-VFIO VF must be `managed='no'`,
    else it is unbound from nvidia and lost until the next SR-IOV cycle.
    """

    source: HostdevSource
    alias: str | None = None
    managed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A libvirt domain.  `live` is None while no guest runs; `config` is None when transient.

    `numa_node` is the node to which its memory is bound, None where it is bound to none or to several.
    """

    name: str
    uuid: UUID
    state: DomainState
    live: tuple[Hostdev, ...] | None
    config: tuple[Hostdev, ...] | None
    managed_save: bool = False
    numa_node: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypervisor:
    """The libvirt that we talk to, and what it can do with our hostdevs.

    `can_attach_config` is false for drivers that know no `virDomainAttachDeviceFlags` (test:///);
    the config is then redefined.  `vendor_vfio_refusal` is None where this libvirt takes a VF that
    stays bound to nvidia, else the reason why it does not (9.0 refuses, 11.3 takes it).
    """

    uri: str
    version: str
    can_attach_config: bool
    can_attach_live: bool
    vendor_vfio_refusal: str | None = None

    def refusal(self, framework: FrameworkKind) -> str | None:
        """Why this libvirt cannot take a vGPU of that framework; None when it can."""
        return self.vendor_vfio_refusal if framework is FrameworkKind.VENDOR_VFIO else None

"""Domains as libvirt shows them, with the hostdevs that their XML names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import libvirt

from vgpuctl.host.libvirt import domain_xml
from vgpuctl.model.domain import Domain, DomainState, Hostdev

_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainState.SHUT_OFF,
}
"""A domain that is shutting down, or crashed and was kept, still has its devices: OTHER."""


def state_of(domain: Any) -> DomainState:
    """Whether the domain has a guest; one libvirt call, two for a crashed domain."""
    state, _reason = domain.state()
    if state == libvirt.VIR_DOMAIN_CRASHED and not domain.isActive():
        return DomainState.SHUT_OFF
    if state == libvirt.VIR_DOMAIN_SHUTOFF and domain.ID() >= 0:
        # It is being started: libvirt has given it an id, its QEMU does not run yet.
        return DomainState.OTHER
    return _STATES.get(state, DomainState.OTHER)


@dataclass(frozen=True, slots=True)
class _Definition:
    """What of a domain's XML concerns vGPUs."""

    hostdevs: tuple[Hostdev, ...]
    numa_node: int | None


class Listing:
    """Reads all domains; XML that has not changed since the last time is not parsed again.

    Takes three libvirt calls for the host, and for each domain its state, its config, and what its
    guest runs with where there is one.
    """

    def __init__(self) -> None:
        self._parsed: dict[bytes, _Definition] = {}

    def read(self, connection: Any) -> tuple[Domain, ...]:
        """Every domain, by name; one that goes away meanwhile is left out."""
        saved = _uuids(connection, libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
        transient = _uuids(connection, libvirt.VIR_CONNECT_LIST_DOMAINS_TRANSIENT)
        parsed: dict[bytes, _Definition] = {}
        found = []
        for domain in connection.listAllDomains():
            try:
                found.append(self._one(domain, saved, transient, parsed))
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
        self._parsed = parsed
        return tuple(sorted(found, key=lambda each: each.name))

    def _one(
        self, domain: Any, saved: set[UUID], transient: set[UUID], parsed: dict[bytes, _Definition]
    ) -> Domain:
        uuid = UUID(bytes=domain.UUID())
        state = state_of(domain)
        live = config = None
        if state.is_active:
            text = domain.XMLDesc()
            # Without an id it is the config: the guest has stopped since its state was read.
            if " id='" in text.partition(">")[0]:
                live = self._definition(text, parsed)
            else:
                state = DomainState.SHUT_OFF
        if uuid not in transient:
            config = self._definition(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), parsed)
        numa_node = next((each.numa_node for each in (live, config) if each is not None), None)
        return Domain(
            name=domain.name(),
            uuid=uuid,
            state=state,
            live=None if live is None else live.hostdevs,
            config=None if config is None else config.hostdevs,
            managed_save=uuid in saved,
            numa_node=numa_node,
        )

    def _definition(self, text: str, parsed: dict[bytes, _Definition]) -> _Definition:
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        found = self._parsed.get(digest)
        if found is None:
            found = _Definition(domain_xml.hostdevs_of(text), domain_xml.numa_node_of(text))
        parsed[digest] = found
        return found


def _uuids(connection: Any, flag: int) -> set[UUID]:
    return {UUID(bytes=domain.UUID()) for domain in connection.listAllDomains(flag)}

"""Domains by what people call them."""

from __future__ import annotations

import difflib
from typing import Any
from uuid import UUID

import libvirt

from vgpuctl.errors import DomainNotFound


def domain_called(connection: Any, name: str) -> Any:
    """The domain of that name or UUID, or with that number (`id:7`); DomainNotFound otherwise.

    A name wins over a UUID.  A bare number is a name: ids change with every start.
    """
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
    found = _by_uuid(connection, name) or _by_id(connection, name)
    if found is None:
        raise _not_found(connection, name)
    return found


def _by_uuid(connection: Any, text: str) -> Any:
    try:
        return connection.lookupByUUID(UUID(text).bytes)
    except ValueError:
        return None
    except libvirt.libvirtError as error:
        return _none_if_missing(error)


def _by_id(connection: Any, text: str) -> Any:
    kind, _, number = text.partition(":")
    if kind != "id" or not number.isdecimal() or int(number) > 0x7FFFFFFF:
        return None
    try:
        return connection.lookupByID(int(number))
    except libvirt.libvirtError as error:
        return _none_if_missing(error)


def _none_if_missing(error: libvirt.libvirtError) -> None:
    if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
        raise error


def _not_found(connection: Any, name: str) -> DomainNotFound:
    names = sorted(domain.name() for domain in connection.listAllDomains())
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        hint = f"Did you mean {' or '.join(near)}?"
    elif names:
        hint = "`virsh list --all` shows the domains of this host."
    else:
        hint = "libvirt has no domains here."
    return DomainNotFound(f"no domain {name!r}", hint=hint, domain=name, near=near)

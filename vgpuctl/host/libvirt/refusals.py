"""What libvirt's errors are in vgpuctl's tree."""

from __future__ import annotations

import libvirt

from vgpuctl.errors import (
    DeadlineExceeded,
    DomainNotFound,
    InvalidDomainState,
    LibvirtRefused,
    LibvirtUnreachable,
    UnsupportedHere,
    VgpuctlError,
)

_NO_CONNECTION = frozenset({libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_INVALID_CONN, libvirt.VIR_ERR_RPC})
_CONNECTION_CODES = frozenset(
    {libvirt.VIR_ERR_GNUTLS_ERROR, libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR}
)
_CONNECTION_DOMAINS = frozenset({libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_STREAMS})
"""VIR_FROM_NONE is not one of them: so say libvirtd's own helpers that a file or a module is refused."""


def silence() -> None:
    """Stop libvirt from printing its errors on stderr; each comes as an exception as well."""
    libvirt.registerErrorHandler(_ignore, None)


def _ignore(_context: object, _error: object) -> None:
    pass


def is_connection_lost(error: libvirt.libvirtError) -> bool:
    """Whether `error` says that nobody is there, as opposed to somebody who says no."""
    code = error.get_error_code()
    return code in _NO_CONNECTION or (
        code in _CONNECTION_CODES and error.get_error_domain() in _CONNECTION_DOMAINS
    )


def text(error: libvirt.libvirtError) -> str:
    """The message of libvirt, without the Python binding's prefix."""
    return str(error.get_error_message() or error)


def unreachable(uri: str, reason: str) -> LibvirtUnreachable:
    """Nobody answers at `uri`."""
    return LibvirtUnreachable(
        f"libvirt at {uri} does not answer: {reason}",
        hint="Is libvirtd (or virtqemud) running?  `virsh -c URI list` asks the same.",
        uri=uri,
    )


def refusal(error: libvirt.libvirtError, uri: str, doing: str) -> VgpuctlError:
    """The error of vgpuctl's tree for what libvirt said while `doing` something."""
    if is_connection_lost(error):
        return unreachable(uri, text(error))
    code = error.get_error_code()
    message = f"{doing}: {text(error)}"
    match code:
        case libvirt.VIR_ERR_NO_DOMAIN:
            return DomainNotFound(message, libvirt_code=code)
        case libvirt.VIR_ERR_NO_SUPPORT | libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            return UnsupportedHere(
                message, hint="This libvirt driver cannot do it; qemu:///system can.", libvirt_code=code
            )
        case libvirt.VIR_ERR_CONFIG_UNSUPPORTED | libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED:
            return UnsupportedHere(
                message,
                hint="Is the IOMMU on, and is vfio-pci (for an mdev: mdev and vfio_mdev) loaded?",
                libvirt_code=code,
            )
        case libvirt.VIR_ERR_OPERATION_INVALID:
            return InvalidDomainState(message, libvirt_code=code)
        case libvirt.VIR_ERR_OPERATION_TIMEOUT:
            return DeadlineExceeded(
                message, hint="Another libvirt job holds the domain; `virsh domjobinfo`.", libvirt_code=code
            )
        case libvirt.VIR_ERR_ACCESS_DENIED | libvirt.VIR_ERR_OPERATION_DENIED | libvirt.VIR_ERR_AUTH_FAILED:
            return LibvirtRefused(
                message, hint="vgpuctl needs a read-write connection: run it as root.", libvirt_code=code
            )
        case _:
            return LibvirtRefused(message, libvirt_code=code)

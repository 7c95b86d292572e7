"""What the libvirt driver behind a connection can do with our hostdevs."""

from __future__ import annotations

from typing import Any

from vgpuctl.model.domain import Hypervisor

_VENDOR_VFIO_SINCE = 9_007_000
"""libvirt 9.7.0 [release notes: "VFIO variant" drivers, bound beforehand, with managed='no'].

Before it, a VF that is bound to anything but vfio-pci is taken into the config and refused at the
guest's start.  Tried: 9.0 refuses a VF on nvidia, 11.3 takes it.
"""


def describe(connection: Any) -> Hypervisor:
    """The driver's address, version and abilities; three libvirt calls that ask no QEMU anything."""
    number = connection.getLibVersion()
    is_qemu = attaches_devices(connection)
    return Hypervisor(
        uri=connection.getURI(),
        version=version_text(number),
        can_attach_config=is_qemu,
        can_attach_live=is_qemu,
        vendor_vfio_refusal=vendor_vfio_refusal(number),
    )


def attaches_devices(connection: Any) -> bool:
    """Whether this driver knows virDomainAttachDeviceFlags for a config and for a guest.

    The test driver does not [9.0]; its domains are redefined.
    """
    return bool(connection.getType() == "QEMU")


def version_text(number: int) -> str:
    """`9.0.0` for libvirt's 9000000."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def vendor_vfio_refusal(number: int) -> str | None:
    """Why this version of libvirt takes no VF that stays bound to nvidia; None when it does."""
    if number >= _VENDOR_VFIO_SINCE:
        return None
    return (
        f"libvirt {version_text(number)} starts no guest with a VF that stays bound to the nvidia driver; "
        f"libvirt {version_text(_VENDOR_VFIO_SINCE)} is the first that does"
    )

"""The guests of the rig: which Debian, and what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TRIXIE: Final = "trixie"
BOOKWORM: Final = "bookworm"

_SYSTEM = (
    "systemd systemd-sysv udev dbus kmod pciutils iproute2 procps util-linux polkitd psmisc strace "
    "libvirt-daemon-system libvirt-clients libvirt-daemon-driver-qemu qemu-system-x86 seabios ovmf "
    "apparmor libxml2-utils mdevctl python3 python3-libvirt python3-pip-whl busybox-static cpio"
)
_FOR_ANSIBLE = "python3-apt"  # what its module apt imports
_BUILD = "gcc make libc6-dev linux-headers-amd64"
_MODULES = (
    "virtio_pci virtio_blk virtio_console virtio_rng virtio_net ext4 overlay loop fuse tun vhost_net "
    "vfio vfio_iommu_type1 mdev vfio_pci vfio_pci_core iommufd kvm kvm_amd kvm_intel "
    "crc32c_generic pci_stub pci-pf-stub"
)


@dataclass(frozen=True, slots=True)
class Guest:
    """One Debian release as a guest: its kernel, libvirt, QEMU and Python are the release's own.

    `mib` is its memory; `build` are the packages of the tree in which its kernel modules are made.
    """

    name: str
    python: str
    packages: tuple[str, ...] = tuple(_SYSTEM.split())
    build: tuple[str, ...] = tuple(_BUILD.split())
    modules: tuple[str, ...] = tuple(_MODULES.split())
    mib: int = 2048

    @property
    def site(self) -> str:
        """Where the guest's Python finds what was installed beside Debian's packages."""
        return f"usr/local/lib/python{self.python}/dist-packages"


GUESTS: Final = {
    TRIXIE: Guest(TRIXIE, python="3.13", packages=(*_SYSTEM.split(), _FOR_ANSIBLE)),
    BOOKWORM: Guest(BOOKWORM, python="3.11"),
}
"""Debian 13 (kernel 6.12, libvirt 11, QEMU 10) is the main guest, Debian 12 (6.1, 9.0, 7.2) the old one."""

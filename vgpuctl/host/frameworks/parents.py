"""Parents: the PFs, VFs and other devices on which vGPUs stand, and what sysfs shows of them."""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID
from zlib import crc32

from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.pci import GpuAddress, PciAddress
from vgpuctl.ports.kernel import Kernel

PCI: Final = "sys/bus/pci/devices"
MDEV_BUS: Final = "sys/class/mdev_bus"
MDEVS: Final = "sys/bus/mdev/devices"
NVIDIA: Final = 0x10DE

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NUMBERED = re.compile(r"(?P<driver>.+)-(?P<number>[0-9]+)")
_SYNTHETIC = 0x4000_0000


def device_path(address: GpuAddress) -> str:
    """Where sysfs keeps that function, or that mdev parent."""
    if isinstance(address, PciAddress):
        return f"{PCI}/{address}"
    return f"{MDEV_BUS}/{address}"


def type_directories(kernel: Kernel, parent: GpuAddress) -> tuple[str, ...]:
    """The names in `mdev_supported_types` (`nvidia-558`); empty where the parent offers none."""
    try:
        return kernel.list(f"{device_path(parent)}/mdev_supported_types")
    except (FileNotFoundError, NotADirectoryError):
        return ()


def is_settled(directories: tuple[str, ...]) -> bool:
    """Whether these type directories are the final ones.

    The kernel names them after the driver, which it does not know while that is still probing: they are
    `pci-558` for a moment (dev_driver_string() in mdev_sysfs.c).
    """
    return bool(directories) and not any(each.startswith("pci-") for each in directories)


def type_number(directory: str) -> int:
    """The type id of a type directory: 558 for `nvidia-558`.

    Other drivers have names that carry no number (`i915-GVTg_V5_4`); they get one from their name, far
    above NVIDIA's, the same on every host.
    """
    match = _NUMBERED.fullmatch(directory)
    return int(match["number"]) if match else _SYNTHETIC | (crc32(directory.encode()) & 0x3FFF_FFFF)


def mdevs_under(kernel: Kernel, parent: GpuAddress) -> tuple[UUID, ...]:
    """The mdevs below a parent, also those that are being removed.

    A removal that waits for a user has left sys/bus/mdev/devices, its directory here stays, and it
    still occupies its place.
    """
    return tuple(UUID(name) for name in kernel.list(device_path(parent)) if _UUID.fullmatch(name))


def is_leaving(kernel: Kernel, mdev: UUID) -> bool:
    """Whether that mdev, seen below its parent, is no longer a device of the mdev bus."""
    try:
        return str(mdev) not in kernel.list(MDEVS)
    except FileNotFoundError:
        return True


def vfio_nodes(kernel: Kernel, path: str) -> Fact[tuple[str, ...]]:
    """The device nodes by which a process can hold the device at `path`: group and cdev."""
    nodes: list[str] = []
    try:
        nodes.append(f"/dev/vfio/{kernel.link(f'{path}/iommu_group')}")
    except FileNotFoundError:
        pass  # it has no group, so nobody can hold it by one
    except OSError as error:
        return Unknown(f"{path}/iommu_group: {error.strerror}")
    try:
        nodes += [f"/dev/vfio/devices/{name}" for name in kernel.list(f"{path}/vfio-dev")]
    except FileNotFoundError:
        pass  # a kernel without VFIO device cdevs (before 6.6), or no VFIO driver bound
    except OSError as error:
        return Unknown(f"{path}/vfio-dev: {error.strerror}")
    return tuple(nodes)


def number_in(kernel: Kernel, path: str) -> Fact[int] | None:
    """A decimal in a file; None where there is no such file, or it says that it does not apply.

    The driver answers ENXIO for placement and GPU instance while there is no vGPU.
    """
    try:
        text = kernel.read(path).strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}")
    if text.lower() in {"not applicable", "n/a", ""}:
        return None
    try:
        return int(text)
    except ValueError:
        return Unknown(f"{path} says {text!r}")


def text_in(kernel: Kernel, path: str) -> Fact[str] | None:
    """The text of a file; None where there is no such file."""
    try:
        return kernel.read(path).strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}")

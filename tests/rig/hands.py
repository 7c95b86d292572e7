"""Raw hands on the kernel of a guest: writes with their errno, VFIO devices opened without QEMU."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vgpuctl.model.catalog import Catalog
from vgpuctl.model.nvrm import explain

PCI: Final = Path("/sys/bus/pci/devices")
MDEVS: Final = Path("/sys/bus/mdev/devices")
SRIOV_MANAGE: Final = "/usr/lib/nvidia/sriov-manage"
PF: Final = "0000:81:00.0"
"""Where the tests of one card put it."""

_VFIO = ord(";") << 8
GET_API, CHECK, SET_IOMMU, GROUP_STATUS, SET_CONTAINER = (_VFIO | 100 + each for each in range(5))
GET_DEVICE, DEVICE_INFO, REGION_INFO = _VFIO | 106, _VFIO | 107, _VFIO | 108
TYPE1: Final = 1
CONFIG, BAR0, BAR1 = 7, 0, 1


def written(path: Path, text: object) -> str | None:
    """Write as `echo` does; the name of the errno with which it was refused."""
    descriptor = None
    try:
        descriptor = os.open(path, os.O_WRONLY)
        os.write(descriptor, f"{text}\n".encode())
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return None


def read(path: Path) -> str:
    """A file's text; `!ENXIO` and the like for one that cannot be read."""
    try:
        return path.read_text().strip()
    except OSError as error:
        return f"!{errno.errorcode[error.errno or 0]}"


def until(holds: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait for something that happens by itself."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.02)


def manage(flag: str, address: str) -> tuple[int, str]:
    """Run sriov-manage: exit status and output."""
    done = subprocess.run([SRIOV_MANAGE, flag, address], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def kernel_log() -> list[str]:
    """What the kernel has said since this was last asked."""
    done = subprocess.run(["dmesg", "-c", "--notime"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def vf(number: int, pf: str = PF) -> Path:
    """A VF's directory: offset 4, stride 1."""
    return PCI / f"{pf[:8]}{(4 + number) // 8:02x}.{(4 + number) % 8}"


def types(parent: Path) -> dict[str, Path]:
    """The type directories of an mdev parent, by short name."""
    return {
        read(each / "name").rpartition(" ")[2]: each for each in (parent / "mdev_supported_types").iterdir()
    }


def ids(key: str) -> dict[str, int]:
    """Type ids of a model, by short name."""
    return {each.name: each.type_id for each in Catalog().keyed(key).types if each.type_id is not None}


def set_type(number: int, type_id: object, pf: str = PF) -> str | None:
    """Write a VF's type; the errno with which it was refused."""
    return written(vf(number, pf) / "nvidia/current_vgpu_type", type_id)


def creatable(number: int, pf: str = PF) -> set[str]:
    """The short names in a VF's `creatable_vgpu_types`."""
    lines = read(vf(number, pf) / "nvidia/creatable_vgpu_types").splitlines()
    assert lines[0] == "ID    : vGPU Name"
    return {each.rpartition(" ")[2] for each in lines[1:]}


def refusal() -> int | None:
    """The resource manager's code in the kernel log, since that was last asked for."""
    found = explain(kernel_log())
    return None if found is None else found.code


class Vfio:
    """A VFIO device held open as QEMU does: container, group, device.  Raises OSError."""

    def __init__(self, device: Path) -> None:
        group = (device / "iommu_group").readlink().name
        self._open: list[int] = []
        try:
            container = self._take(os.open("/dev/vfio/vfio", os.O_RDWR | os.O_CLOEXEC))
            self._group = self._take(os.open(f"/dev/vfio/{group}", os.O_RDWR | os.O_CLOEXEC))
            fcntl.ioctl(self._group, SET_CONTAINER, struct.pack("i", container))
            fcntl.ioctl(container, SET_IOMMU, TYPE1)
            name = ctypes.create_string_buffer(device.name.encode())
            self.device = self._take(fcntl.ioctl(self._group, GET_DEVICE, name))
        except BaseException:
            self.close()
            raise

    def _take(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor

    def region(self, index: int) -> tuple[int, int]:
        """Size and offset of a region."""
        record = bytearray(struct.pack("IIIIQQ", 32, 0, index, 0, 0, 0))
        fcntl.ioctl(self.device, REGION_INFO, record)
        *_, size, offset = struct.unpack("IIIIQQ", record)
        return size, offset

    def read(self, index: int, offset: int, count: int) -> bytes:
        """Some bytes of a region."""
        return os.pread(self.device, count, self.region(index)[1] + offset)

    def write(self, index: int, offset: int, data: bytes) -> None:
        """Put some bytes into a region."""
        os.pwrite(self.device, data, self.region(index)[1] + offset)

    def close(self) -> None:
        """Let go of everything, the device first."""
        while self._open:
            os.close(self._open.pop())

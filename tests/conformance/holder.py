"""Stand-alone script: hold a device open as QEMU does, until stdin ends; says when it has it.

    holder.py COMMAND NODE [DEVICE] [QEMU ARGUMENT...]

COMMAND is what the process is called.  With DEVICE (an mdev's UUID, a function's address) NODE is its VFIO
group, and the device itself is opened through it: an open group alone keeps nobody from removing it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys

_SET_IOMMU = 0x3B66
_GROUP_SET_CONTAINER = 0x3B68
_GROUP_GET_DEVICE_FD = 0x3B6A
_TYPE1 = 1
"""linux/vfio.h"""


def hold(node: str, device: str | None) -> None:
    group = os.open(node, os.O_RDWR)
    if device is not None:
        container = os.open("/dev/vfio/vfio", os.O_RDWR)
        fcntl.ioctl(group, _GROUP_SET_CONTAINER, struct.pack("i", container))
        fcntl.ioctl(container, _SET_IOMMU, _TYPE1)
        fcntl.ioctl(group, _GROUP_GET_DEVICE_FD, device.encode() + b"\0")


if __name__ == "__main__":
    with open("/proc/self/comm", "w") as comm:  # noqa: PTH123
        comm.write(sys.argv[1])
    hold(sys.argv[2], next(iter(sys.argv[3:4]), None))
    os.write(1, b"held\n")
    os.read(0, 1)

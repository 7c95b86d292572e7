"""The device nodes of the simulated driver, as nvsim_uapi.h describes them."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

NONE: Final = 0xFFFFFFFF
ON_GPU: Final = NONE
"""Where an argument names a GPU instance: the GPU itself."""

_U32, _U64, _S32 = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32


class Host(ctypes.Structure):
    _fields_ = (("count", _U32), ("minors", _U32 * 16), ("driver_version", ctypes.c_char * 32))


class Gpu(ctypes.Structure):
    _fields_ = (
        *((name, _U32) for name in ("domain", "bus", "device", "function", "vendor_device", "subsystem")),
        *((name, _U32) for name in ("vfs", "mig_capable", "mig_current", "mig_pending", "mixed_capable")),
        *((name, _U32) for name in ("mixed", "sriov", "clients")),
        *((name, _U64) for name in ("fb_bytes", "fb_used_bytes")),
        *(("key", ctypes.c_char * 32), ("name", ctypes.c_char * 64), ("uuid", ctypes.c_char * 48)),
    )


class Types(ctypes.Structure):
    _fields_ = (("creatable", _U32), ("gi", _U32), ("count", _U32), ("ids", _U32 * 128))


class Vgpu(ctypes.Structure):
    _fields_ = (
        *((name, _U32) for name in ("handle", "type", "vf_bdf", "gi", "placement")),
        ("pid", _S32),
        *((name, _U32) for name in ("licensed", "sm_util", "mem_util", "enc_util", "dec_util")),
        ("fb_used_bytes", _U64),
        ("mdev_uuid", ctypes.c_char * 40),
        ("params", ctypes.c_char * 256),
    )


class Vgpus(ctypes.Structure):
    _fields_ = (("gi", _U32), ("count", _U32), ("list", Vgpu * 64))


class Instance(ctypes.Structure):
    _fields_ = (
        *((name, _U32) for name in ("id", "profile", "start", "size", "vgpus", "cis")),
        ("ci_profiles", _U32 * 8),
        ("mixed", _U32),
    )


class Instances(ctypes.Structure):
    _fields_ = (("count", _U32), ("list", Instance * 16))


class InstanceRequest(ctypes.Structure):
    _fields_ = (("profile", _U32), ("start", _U32), ("id", _U32))


class Number(ctypes.Structure):
    _fields_ = (("value", _U32),)


class Room(ctypes.Structure):
    _fields_ = (("profile", _U32), ("remaining", _U32))


class ComputeInstance(ctypes.Structure):
    _fields_ = (("gi", _U32), ("slices", _U32), ("id", _U32))


class Mig(ctypes.Structure):
    _fields_ = (("enable", _U32), ("status", _U32))


class Mixed(ctypes.Structure):
    _fields_ = (("gi", _U32), ("enable", _U32))


class Placements(ctypes.Structure):
    _fields_ = (
        *((name, _U32) for name in ("type", "gi", "creatable", "homogeneous", "size", "count")),
        ("starts", _U32 * 320),
    )


class Scheduler(ctypes.Structure):
    _fields_ = tuple(
        (name, _U32) for name in ("gi", "engine", "policy", "arr", "avg_factor", "frequency", "timeslice_ns")
    )


class LogEntry(ctypes.Structure):
    _fields_ = (
        *((name, _U64) for name in ("timestamp_ns", "run_total_ns", "run_ns", "target_slice_ns")),
        ("preemption_ns", _U64),
        *((name, _U32) for name in ("sw_runlist", "reserved")),
    )


class Log(ctypes.Structure):
    _fields_ = (
        *((name, _U32) for name in ("gi", "engine", "count", "reserved")),
        ("list", LogEntry * 200),
    )


_READ, _WRITE = 2, 1
_REQUESTS: Final[dict[str, tuple[int, int, type[ctypes.Structure]]]] = {
    "host": (_READ, 1, Host),
    "gpu": (_READ, 2, Gpu),
    "types": (_READ | _WRITE, 3, Types),
    "vgpus": (0, 4, Vgpus),
    "instances": (_READ, 5, Instances),
    "create_instance": (_READ | _WRITE, 6, InstanceRequest),
    "destroy_instance": (_WRITE, 7, Number),
    "room": (_READ | _WRITE, 8, Room),
    "create_ci": (_READ | _WRITE, 9, ComputeInstance),
    "destroy_ci": (_WRITE, 10, ComputeInstance),
    "mig": (_READ | _WRITE, 11, Mig),
    "mixed": (_WRITE, 12, Mixed),
    "placements": (_READ | _WRITE, 13, Placements),
    "scheduler": (_READ | _WRITE, 14, Scheduler),
    "set_scheduler": (_WRITE, 15, Scheduler),
    "log": (_READ | _WRITE, 16, Log),
}


def number(name: str) -> int:
    """The number of that request, as the macros of asm-generic/ioctl.h make it."""
    direction, sequence, kind = _REQUESTS[name]
    size = ctypes.sizeof(kind) if direction else 0
    return direction << 30 | size << 16 | ord("v") << 8 | sequence


class Node:
    """One open node; an open `/dev/nvidia<N>` keeps that GPU in use."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def ask(self, name: str, **arguments: int) -> Any:
        """One request; raises OSError."""
        record = _REQUESTS[name][2](**arguments)
        fcntl.ioctl(self._descriptor, number(name), record)
        return record

    def close(self) -> None:
        """Let go."""
        os.close(self._descriptor)


@contextmanager
def opened(minor: int | None) -> Iterator[Node]:
    """The node of a GPU, or of the driver."""
    node = Node(Path("/dev/nvidiactl" if minor is None else f"/dev/nvidia{minor}"))
    try:
        yield node
    finally:
        node.close()


def ask(minor: int | None, name: str, **arguments: int) -> Any:
    """One request in a node that is opened for it alone."""
    with opened(minor) as node:
        return node.ask(name, **arguments)

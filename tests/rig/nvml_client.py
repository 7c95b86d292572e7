"""A client of NVML in the rig: the binding's errors as numbers, the nodes it has open, what a helper says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml

from vgpuctl.host.nvml.adapter import HelperNvml
from vgpuctl.ports.nvml import NvmlGpu, NvmlHost

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
CONFIG = Path("/run/nvsim/nvml.conf")
DEVICES = Path("/sys/bus/pci/devices")
MDEVS = Path("/sys/bus/mdev/devices")
AT_41, AT_61, AT_81 = "0000:41:00.0", "0000:61:00.0", "0000:81:00.0"
NOBODY = 65534


def code_of(function: Callable[..., Any], *arguments: Any) -> int:
    """NVML's number of what this call came to."""
    try:
        function(*arguments)
    except pynvml.NVMLError as error:
        return int(error.value)
    return int(pynvml.NVML_SUCCESS)


def as_nobody(ask: Callable[[], Any]) -> Any:
    """What `ask` returns to an effective user who is not root."""
    os.seteuid(NOBODY)
    try:
        return ask()
    finally:
        os.seteuid(0)


def sriov_manage(flag: str, pf: str) -> subprocess.CompletedProcess[str]:
    command = ["/usr/lib/nvidia/sriov-manage", flag, pf]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def vfs_of(pf: str) -> list[str]:
    links = sorted(DEVICES.joinpath(pf).glob("virtfn*"), key=lambda each: int(each.name[6:]))
    return [each.resolve().name for each in links]


def nodes_open() -> list[str]:
    links = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return sorted(each for each in links if each.startswith("/dev/nvidia"))


def node_of(handle: Any) -> str:
    return f"/dev/nvidia{pynvml.nvmlDeviceGetMinorNumber(handle)}"


def answer(helper: HelperNvml) -> NvmlHost:
    host = helper.host(60, in_full=True)
    assert isinstance(host, NvmlHost), host
    return host


def answer_of(helper: HelperNvml) -> NvmlHost:
    try:
        return answer(helper)
    finally:
        helper.release()


def gpu_at(host: NvmlHost, address: str) -> NvmlGpu:
    (found,) = (each for each in host.gpus if str(each.address) == address)
    return found

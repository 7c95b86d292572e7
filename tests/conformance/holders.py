"""Processes that hold vGPUs, VFs and GPUs open, as QEMU and NVML's clients do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_HOLDER: Final = Path(__file__).with_name("holder.py")


class Holders:
    """The processes of one case, by the name of what each of them holds."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def hold(
        self, vgpu: str | None = None, parent: str | None = None, domain: str = "desk"
    ) -> dict[str, Any]:
        name = str(vgpu or parent)
        minor = minor_of(name)
        if minor is not None:
            command, arguments = "nv-hostengine", [f"/dev/nvidia{minor}"]
        else:
            command = "qemu-system-x86"
            arguments = [f"/dev/vfio/{group_of(name)}", name, "-name", f"guest={domain},debug-threads=on"]
        process = subprocess.Popen(
            (sys.executable, "-I", "-S", str(_HOLDER), command, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._processes[name] = process
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n", f"{name} could not be opened"
        return {"pid": process.pid}

    def release(self, vgpu: str | None = None, parent: str | None = None) -> dict[str, Any]:
        self._end(str(vgpu or parent))
        return {}

    def _end(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait(30)

    def release_all(self) -> None:
        """End every one."""
        for name in list(self._processes):
            self._end(name)


def minor_of(address: str) -> int | None:
    """The N of `/dev/nvidiaN` of a PF; None for anything else."""
    try:
        text = Path(f"/proc/driver/nvidia/gpus/{address}/information").read_text()
    except FileNotFoundError:
        return None
    return next(int(line.split(":")[1]) for line in text.splitlines() if line.startswith("Device Minor"))


def group_of(name: str) -> str:
    """The IOMMU group of an mdev or a VF."""
    for path in (Path("/sys/bus/mdev/devices") / name, Path("/sys/bus/pci/devices") / name):
        if path.exists():
            return (path / "iommu_group").resolve().name
    raise LookupError(name)

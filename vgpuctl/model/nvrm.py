"""What NVIDIA's resource manager said in the kernel log when it refused a vGPU.

A refused create reaches user space as EIO; the NVRM code in the kernel log is the only detail.
Codes: nvstatuscodes.h of open-gpu-kernel-modules 595.45.04; causes: kernel_vgpu_mgr.c of the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_REQUEST = re.compile(r"NVRM:.*Failed to add vgpu create request:\s*0x([0-9a-f]+)", re.IGNORECASE)
_CREATION = re.compile(r"vGPU creation failed on device (0x[0-9a-f]+)\.\s*(-?\d+)", re.IGNORECASE)
_PROBE = re.compile(r"nvidia-vgpu-vfio.*probe failed with error\s*(-?\d+)", re.IGNORECASE)

_MEANINGS = {
    0x1A: ("insufficient resources", "the GPU already holds as many vGPUs as it can"),
    0x38: ("invalid operation", "the VF already has a vGPU, or the type does not go with the GPU's MIG mode"),
    0x40: ("invalid state", "no matching free GPU instance or placement"),
    0x56: ("not supported", "vGPUs of another frame-buffer size are on this GPU"),
    0x57: ("object not found", "the driver does not know this vGPU type"),
    0x66: ("timeout, retry", "the GPU is not initialised yet; try again"),
}
_RETRY = 0x66


@dataclass(frozen=True, slots=True, kw_only=True)
class NvrmRefusal:
    """One refusal, put together from the lines that the driver printed about it.

    `code` is the NVRM status, None where the driver printed none; `errno` is positive, as in
    `errno`; `device` is the driver's own number of the GPU, not a PCI address; `lines` are the words
    of the kernel log.
    """

    code: int | None = None
    errno: int | None = None
    device: int | None = None
    lines: tuple[str, ...]

    @property
    def meaning(self) -> str:
        """What the code says, and what usually causes it."""
        if self.code is None:
            return "the driver refused without a code"
        name, cause = _MEANINGS.get(self.code, ("unknown code", "see nvstatuscodes.h"))
        return f"NVRM 0x{self.code:02x} ({name}): {cause}"

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.code == _RETRY


def explain(lines: Iterable[str]) -> NvrmRefusal | None:
    """The last refusal in these lines of the kernel log; None when there is none.

    The driver prints up to three lines for one refusal; a second `create request` line begins
    another one.
    """
    found: NvrmRefusal | None = None
    for line in lines:
        if match := _REQUEST.search(line):
            found = NvrmRefusal(code=int(match[1], 16), lines=(line,))
        elif match := _CREATION.search(line):
            found = _with(found, line, errno=abs(int(match[2])), device=int(match[1], 16))
        elif match := _PROBE.search(line):
            found = _with(found, line, errno=abs(int(match[1])))
    return found


def _with(found: NvrmRefusal | None, line: str, *, errno: int, device: int | None = None) -> NvrmRefusal:
    if found is None:
        return NvrmRefusal(errno=errno, device=device, lines=(line,))
    return NvrmRefusal(
        code=found.code,
        errno=errno if found.errno is None else found.errno,
        device=device if found.device is None else found.device,
        lines=(*found.lines, line),
    )

"""The kernel's sample mdev parents: no PCI devices, no NVIDIA, and types of other names [samples/vfio-mdev].

What their vGPUs share is counted in a unit of each driver's own, which stands in `fb_mib`.
"""

from __future__ import annotations

import errno
from typing import Final

from vgpuctl.model.catalog import GpuModel
from vgpuctl.model.types import TypeKind, VgpuType

FAMILY: Final = "sample"


def _sample(key: str, total: int, types: tuple[tuple[str, str, int], ...]) -> GpuModel:
    """A parent that has `total` to give away, and its types: last part of the name, raw name, share."""
    return GpuModel(
        key=key,
        name=key,
        board="",
        family=FAMILY,
        device=0,
        subsystem=None,
        fb_mib=total,
        vfs=0,
        gpus_per_board=1,
        mixed_size=True,
        mig=False,
        types=tuple(
            VgpuType(
                name=f"{key}-{name}",
                raw_name=raw_name,
                type_id=number,
                kind=TypeKind.OTHER,
                series="",
                fb_mib=share,
                max_per_gpu=total // share,
                source="sim",
            )
            for number, (name, raw_name, share) in enumerate(types, 1)
        ),
    )


MTTY: Final = _sample("mtty", 24, (("1", "Single port serial", 1), ("2", "Dual port serial", 2)))
"""24 serial ports, one or two for each mdev."""
MDPY: Final = _sample("mdpy", 4, (("vga", "mdpy-vga", 1), ("xga", "mdpy-xga", 1), ("hd", "mdpy-hd", 1)))
"""Four displays, of whatever type."""
MBOCHS: Final = _sample(
    "mbochs",
    256,
    (("small", "mbochs-small", 4), ("medium", "mbochs-medium", 16), ("large", "mbochs-large", 64)),
)
"""256 MB of video memory."""

SAMPLES: Final = {each.key: each for each in (MTTY, MDPY, MBOCHS)}

_DESCRIPTIONS: Final = {
    "mdpy-vga": "virtual display, 640x480 framebuffer",
    "mdpy-xga": "virtual display, 1024x768 framebuffer",
    "mdpy-hd": "virtual display, 1920x1080 framebuffer",
    "mbochs-small": "virtual display, 4 MB video memory",
    "mbochs-medium": "virtual display, 16 MB video memory",
    "mbochs-large": "virtual display, 64 MB video memory",
}


def description(type_name: str) -> str | None:
    """What a type's `description` says; None where there is no such file."""
    return _DESCRIPTIONS.get(type_name)


def errno_when_full(key: str) -> int:
    """How `create` fails: mdpy leaves the counting to the kernel's mdev core, which answers EUSERS."""
    return errno.EUSERS if key == MDPY.key else errno.ENOSPC

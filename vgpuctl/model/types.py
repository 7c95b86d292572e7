"""What a vGPU type is."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class TypeKind(StrEnum):
    """How a vGPU of this type gets its share of the GPU."""

    TIME_SLICED = "time-sliced"
    MIG_BACKED = "mig-backed"
    OTHER = "other"
    """Not NVIDIA's: a type of another mdev parent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VgpuType:
    """A vGPU type as the hardware or the catalogue describes it.

    `name` is NVIDIA's short form (`L40S-8Q`), the last word of the driver's `raw_name`
    (`NVIDIA L40S-8Q`); `type_id` is the number in `nvidia-558` and in `current_vgpu_type`, None
    where the catalogue does not know it.  Limits are None where nobody said.
    `fb_mib` is the profile size, the `framebuffer=` of an mdev description, on which the
    equal-size rule works; a guest sees somewhat less.
    """

    name: str
    raw_name: str
    type_id: int | None
    kind: TypeKind
    series: str
    fb_mib: int | None
    max_per_gpu: int | None = None
    max_per_gpu_mixed: int | None = None
    max_per_gi: int | None = None
    gi_profile: str | None = None
    heads: int | None = None
    max_resolution: str | None = None
    frl_fps: int | None = None
    licence: str | None = None
    source: str = field(default="catalog", compare=False)
    """`catalog`, or the file or NVML call that named it."""

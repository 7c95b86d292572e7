"""vGPU types put together from several sources: the kernel's word, then NVML's, then the catalogue's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from vgpuctl.model import typename
from vgpuctl.model.typename import TypeName
from vgpuctl.model.types import TypeKind, VgpuType

_SHOWN: Final = 5
_OPEN: Final = (
    "type_id",
    "series",
    "fb_mib",
    "max_per_gpu",
    "max_per_gpu_mixed",
    "max_per_gi",
    "gi_profile",
    "heads",
    "max_resolution",
    "frl_fps",
    "licence",
)
_NOTHING: Final = (None, "")


def named_type(
    *,
    raw_name: str,
    type_id: int | None,
    name: str | None = None,
    fb_mib: int | None = None,
    max_per_gpu: int | None = None,
    heads: int | None = None,
    max_resolution: str | None = None,
    frl_fps: int | None = None,
    source: str,
) -> VgpuType:
    """A type as the hardware names it; kind and series follow from NVIDIA's grammar of names."""
    short = name or typename.short_name(raw_name)
    parts = typename.parse(raw_name) if name is None else None
    kind, series = TypeKind.OTHER, ""
    if isinstance(parts, TypeName):
        kind = TypeKind.MIG_BACKED if parts.is_mig_backed else TypeKind.TIME_SLICED
        series = parts.series
    return VgpuType(
        name=short,
        raw_name=raw_name,
        type_id=type_id,
        kind=kind,
        series=series,
        fb_mib=fb_mib,
        max_per_gpu=max_per_gpu,
        heads=heads,
        max_resolution=max_resolution,
        frl_fps=frl_fps,
        source=source,
    )


def enriched(first: VgpuType, *others: VgpuType | None) -> VgpuType:
    """`first`, with what it leaves open taken from `others`, in that order."""
    for other in others:
        if other is None or other is first:
            continue
        found: dict[str, Any] = {
            name: value
            for name in _OPEN
            if getattr(first, name) in _NOTHING and (value := getattr(other, name)) not in _NOTHING
        }
        if first.kind is TypeKind.OTHER and other.kind is not TypeKind.OTHER:
            found["kind"] = other.kind
        if found:
            first = replace(first, **found)
    return first


def sized(each: VgpuType) -> VgpuType:
    """`each`, with the frame buffer that its name promises where no source gave one."""
    parts = typename.parse(each.name)
    if each.fb_mib is not None or not isinstance(parts, TypeName) or each.kind is TypeKind.OTHER:
        return each
    return replace(each, fb_mib=parts.nominal_fb_mib)


def disagreements(hardware: tuple[VgpuType, ...], catalogue: tuple[VgpuType, ...]) -> tuple[str, ...]:
    """Where the hardware says other than the catalogue; the hardware is believed."""
    by_name = {each.name: each for each in catalogue}
    found: list[str] = []
    for here in hardware:
        listed = by_name.get(here.name)
        if listed is None:
            continue
        for what, mine, theirs in (
            ("id", here.type_id, listed.type_id),
            ("frame buffer", here.fb_mib, listed.fb_mib),
            ("maximum per GPU", here.max_per_gpu, listed.max_per_gpu),
        ):
            if mine is not None and theirs is not None and mine != theirs:
                found.append(f"{here.name}: {what} {mine} here, {theirs} in the catalogue")
    if len(found) > _SHOWN:
        found[_SHOWN:] = [f"and {len(found) - _SHOWN} more differences from the catalogue"]
    return tuple(found)

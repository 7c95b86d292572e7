"""vGPU types put together from several sources: the kernel's word, then NVML's, then the catalogue's."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from vgpuctl.model import typename
from vgpuctl.model.typename import TypeName
from vgpuctl.model.types import TypeKind, VgpuType

_SHOWN: Final = 5


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
        if other is None:
            continue
        first = replace(
            first,
            type_id=first.type_id if first.type_id is not None else other.type_id,
            kind=other.kind if first.kind is TypeKind.OTHER else first.kind,
            series=first.series or other.series,
            fb_mib=first.fb_mib if first.fb_mib is not None else other.fb_mib,
            max_per_gpu=first.max_per_gpu if first.max_per_gpu is not None else other.max_per_gpu,
            max_per_gpu_mixed=(
                first.max_per_gpu_mixed if first.max_per_gpu_mixed is not None else other.max_per_gpu_mixed
            ),
            max_per_gi=first.max_per_gi if first.max_per_gi is not None else other.max_per_gi,
            gi_profile=first.gi_profile if first.gi_profile is not None else other.gi_profile,
            heads=first.heads if first.heads is not None else other.heads,
            max_resolution=first.max_resolution or other.max_resolution,
            frl_fps=first.frl_fps if first.frl_fps is not None else other.frl_fps,
            licence=first.licence or other.licence,
        )
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

"""Writes `nvsim_tables.h`: the catalogue's GPU models for the simulated cards and driver.

python -m tests.rig.nvsim.tables OUTPUT
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from vgpuctl.model.catalog import Catalog, GpuModel, MigProfile
from vgpuctl.model.types import TypeKind, VgpuType
from vgpuctl.sim.models import MXGPU, Models, total_vfs, vendor_of

MXGPU_VF_DEVICE = 0x692F
KEEPS_MIG = "ampere"
TIMESLICES_MIG = "blackwell"
NO_SCHEDULER = "maxwell"
_PROFILE = re.compile(r"(?P<slices>\d)g\.(?P<gb>\d+)gb(?P<suffix>\+me)?")
_SEVEN_SLICES = {"1": 19, "1+me": 20, "1 double": 15, "2": 14, "3": 9, "4": 5, "7": 0}
_SEVEN_SLICE_PLACES = {
    19: ((0, 1, 2, 3, 4, 5, 6), 1, 7),
    20: ((0, 1, 2, 3, 4, 5, 6), 1, 1),
    15: ((0, 2, 4, 6), 2, 4),
    14: ((0, 2, 4), 2, 3),
    9: ((0, 4), 4, 2),
    5: ((0,), 4, 1),
    0: ((0,), 8, 1),
}
"""Starts, size and number of each profile, the same on all GPUs of seven slices [hardware.md 3.1]."""


def profiles_of(catalog: Catalog, model: GpuModel) -> tuple[MigProfile, ...]:
    """The GPU-instance profiles of a model, all with placements.

    Where no source prints them: those that all GPUs of seven slices have, else as many memory slices as
    compute slices, aligned to their number.
    """
    if model is MXGPU:
        return ()
    listed = catalog.mig_profiles(model)
    if not listed:
        return tuple(_seven_slices(model))
    return tuple(each if each.starts else _aligned(each, max(p.slices for p in listed)) for each in listed)


def _seven_slices(model: GpuModel) -> Iterator[MigProfile]:
    names = {each.gi_profile: None for each in model.types if each.gi_profile is not None}
    matches = [match for name in names if (match := _PROFILE.fullmatch(name))]
    if not any(match["slices"] == "7" for match in matches):
        return
    single = min(int(match["gb"]) for match in matches if match["slices"] == "1")
    for match in matches:
        is_double = match["slices"] == "1" and int(match["gb"]) > single
        number = _SEVEN_SLICES[match["slices"] + (match["suffix"] or "") + (" double" if is_double else "")]
        starts, size, count = _SEVEN_SLICE_PLACES[number]
        yield MigProfile(
            name=match[0],
            gi_profile_id=number,
            slices=int(match["slices"]),
            max=count,
            starts=starts,
            size=size,
        )


def _aligned(profile: MigProfile, slices: int) -> MigProfile:
    return MigProfile(
        name=profile.name,
        gi_profile_id=profile.gi_profile_id,
        slices=profile.slices,
        max=profile.max,
        starts=tuple(range(0, slices, profile.slices)),
        size=profile.slices,
    )


class Tables:
    """The header, one model after the other."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._models = Models(catalog, (*catalog.keys(), MXGPU.key))

    def lines(self) -> Iterator[str]:
        """The whole header."""
        keys = (*self._catalog.keys(), MXGPU.key)
        yield "/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */"
        yield "/* Written by tables.py from the catalogue. */"
        yield "#ifndef NVSIM_TABLES_H"
        yield "#define NVSIM_TABLES_H"
        yield '#include "nvsim_model.h"'
        entries = []
        for key in keys:
            model = self._models.model(key)
            profiles = profiles_of(self._catalog, model if key != MXGPU.key else MXGPU)
            yield from self._types(model, profiles)
            yield from _profiles(model, profiles)
            entries.append(_entry(model, profiles))
        yield "static const struct nvsim_model nvsim_models[] = {"
        yield from entries
        yield "};"
        yield "#endif"

    def _types(self, model: GpuModel, profiles: tuple[MigProfile, ...]) -> Iterator[str]:
        numbers = {each.name: each.gi_profile_id for each in profiles}
        entries = []
        for number, each in enumerate(self._usable(model, numbers)):
            starts = self._starts(model, each)
            if starts:
                yield f"static const unsigned short {_name(model)}_starts_{number}[] = {{ {_list(starts)} }};"
            entries.append(
                _type(model, each, numbers, f"{_name(model)}_starts_{number}" if starts else "0", len(starts))
            )
        yield f"static const struct nvsim_type {_name(model)}_types[] = {{"
        yield from entries or ("\t{ 0 },",)
        yield "};"

    @staticmethod
    def _usable(model: GpuModel, numbers: dict[str, int]) -> Iterator[VgpuType]:
        """What can be simulated: a MIG-backed type needs its profile."""
        for each in model.types:
            if each.kind is not TypeKind.MIG_BACKED or each.gi_profile in numbers:
                yield each

    def _starts(self, model: GpuModel, each: VgpuType) -> tuple[int, ...]:
        if each.kind is TypeKind.MIG_BACKED or each.fb_mib is None:
            return ()
        found = self._models.placements(model, each.fb_mib)
        return () if found is None else found.starts


def _type(model: GpuModel, each: VgpuType, numbers: dict[str, int], starts: str, nstarts: int) -> str:
    assert each.fb_mib is not None
    width, height = (each.max_resolution or "4096x2160").split("x")
    profile = "NVSIM_NO_PROFILE" if each.gi_profile is None else str(numbers[each.gi_profile])
    fields = (
        str(each.type_id),
        _text(each.raw_name),
        _text(each.name),
        f"'{each.series or '-'}'",
        _text(each.licence or ""),
        str(each.fb_mib),
        str(each.max_per_gpu or model.fb_mib // each.fb_mib),
        str(each.max_per_gpu_mixed or 0),
        str(each.max_per_gi or 0),
        str(each.heads or 1),
        width,
        height,
        str(each.frl_fps or 60),
        profile,
        str(nstarts),
        starts,
    )
    return f"\t{{ {', '.join(fields)} }},"


def _profiles(model: GpuModel, profiles: Iterable[MigProfile]) -> Iterator[str]:
    yield f"static const struct nvsim_profile {_name(model)}_profiles[] = {{"
    listed = False
    for each in profiles:
        listed = True
        match = _PROFILE.match(each.name)
        assert match is not None
        fb_mib = min(int(match["gb"]) * 1024, model.fb_mib)
        yield (
            f"\t{{ {each.gi_profile_id}, {_text(each.name)}, {each.slices}, {each.max}, {fb_mib}, "
            f"{each.size}, {len(each.starts)}, {{ {_list(each.starts)} }} }},"
        )
    if not listed:
        yield "\t{ 0 },"
    yield "};"


def _entry(model: GpuModel, profiles: tuple[MigProfile, ...]) -> str:
    is_mig = bool(model.mig and profiles)
    slices = max((start + (each.size or 0) for each in profiles for start in each.starts), default=0)
    vf_device = MXGPU_VF_DEVICE if model.key == MXGPU.key else model.device
    values = {
        "key": _text(model.key),
        "name": _text(model.name),
        "family": _text(model.family),
        "vendor": f"0x{vendor_of(model):04x}",
        "device": f"0x{model.device:04x}",
        "vf_device": f"0x{vf_device:04x}",
        "subsystem": f"0x{model.subsystem or model.device:04x}",
        "fb_mib": model.fb_mib,
        "vfs": model.vfs,
        "total_vfs": total_vfs(model),
        "mixed": int(model.mixed_size),
        "mig": int(is_mig),
        "mig_kept": int(is_mig and model.family == KEEPS_MIG),
        "mig_timesliced": int(is_mig and model.family == TIMESLICES_MIG),
        "mig_slices": slices,
        "schedulers": int(model.family != NO_SCHEDULER),
        "ntypes": len(list(Tables._usable(model, {each.name: 0 for each in profiles}))),
        "types": f"{_name(model)}_types",
        "nprofiles": len(profiles),
        "profiles": f"{_name(model)}_profiles",
    }
    return f"\t{{ {', '.join(f'.{key} = {value}' for key, value in values.items())} }},"


def _name(model: GpuModel) -> str:
    return f"nvsim_{model.key.replace('-', '_')}"


def _text(text: str) -> str:
    return f'"{text}"'


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def main(output: Path) -> None:
    """Write the header to `output`."""
    output.write_text("\n".join(Tables(Catalog()).lines()) + "\n", encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

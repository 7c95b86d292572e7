"""What is known of GPU models and vGPU types, for where there is no hardware to ask.

The data lies in `mdev-profiles/catalog/`, is made by `tools/build_catalog.py`, and names its sources.
A family's file is read when one of its models is first asked for.  Whatever the hardware says wins.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgpuctl.errors import NotFound
from vgpuctl.model.giprofile import MigProfile
from vgpuctl.model.gpu import DeviceId
from vgpuctl.model.typename import TypeName, nearest, parse, short_name
from vgpuctl.model.types import TypeKind, VgpuType
from vgpuctl.resources import profiles_directory

NVIDIA = 0x10DE
"""NVIDIA's PCI vendor id."""
_FEW_SLICES = 4
"""The memory slices of an A30 and of an RTX PRO 6000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuModel:
    """A GPU model.

    `key` is its short name (`l40s`, `a100-80`), `board` the token of its type names (`L40S`, `A100D`).
    `subsystem` is set only where it takes one to tell the model from another with the same device id.
    `fb_mib` is nominal: the frame buffer of the type that takes the whole GPU; NVML shows less.
    `vfs` is the number of VFs that sriov-manage makes, 0 for a model without SR-IOV.
    """

    key: str
    name: str
    board: str
    family: str
    device: int
    subsystem: int | None
    fb_mib: int
    vfs: int
    gpus_per_board: int
    mixed_size: bool
    mig: bool
    types: tuple[VgpuType, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPlacements:
    """Where vGPUs of one frame-buffer size may lie in mixed-size mode, in GB from the region's start.

    The order of `starts` is the driver's first-fit order.
    """

    fb_mib: int
    size: int
    starts: tuple[int, ...]


class Catalog:
    """The GPU models of a directory; reading is lazy, and what was read is kept."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or profiles_directory() / "catalog"
        self._heads: dict[str, dict[str, Any]] = {}
        self._families: dict[str, dict[str, Any]] = {}
        self._models: dict[str, GpuModel] = {}
        self._placements: dict[str, list[dict[str, Any]]] = {}

    def keys(self) -> tuple[str, ...]:
        """The keys of all models, sorted."""
        return tuple(self._index())

    def keyed(self, key: str) -> GpuModel:
        """The model of that key; NotFound, with near keys, when there is none."""
        folded = key.casefold()
        if folded not in self._index():
            near = nearest(folded, self._index())
            raise NotFound(
                f"the catalogue has no GPU model {key!r}",
                hint=f"near ones: {', '.join(near)}" if near else f"known ones: {', '.join(self._index())}",
                key=key,
                near=list(near),
            )
        return self._model(folded)

    def models(self) -> tuple[GpuModel, ...]:
        """All models, by key; reads every family."""
        return tuple(self._model(key) for key in self._index())

    def find(self, device: DeviceId) -> GpuModel | None:
        """The model of a PCI function, or None where the catalogue has none.

        The subsystem counts only where device ids are shared (A16 and A2: 0x25b6): boards of other
        makers have their own.
        """
        if device.vendor != NVIDIA:
            return None
        code = f"{device.device:04x}"
        heads = [each for each in self._index().values() if code in each["devices"]]
        if len(heads) > 1:
            heads = [each for each in heads if each.get("subsystem") == f"{device.subsystem_device:04x}"]
        return self._model(heads[0]["key"]) if len(heads) == 1 else None

    def type_named(self, name: str) -> tuple[GpuModel, VgpuType] | None:
        """The type of that name (short or the driver's, in any case) and the model that has it."""
        wanted = short_name(name).casefold()
        for key in self._keys_of_board(wanted):
            model = self._model(key)
            found = next((each for each in model.types if each.name.casefold() == wanted), None)
            if found is not None:
                return model, found
        return None

    def type_names(self) -> tuple[str, ...]:
        """The names of all types, sorted; reads every family."""
        return tuple(sorted({each.name for model in self.models() for each in model.types}))

    def mig_profiles(self, model: GpuModel) -> tuple[MigProfile, ...]:
        """The GPU-instance profiles of a model; empty where it has none or no source lists them.

        Where a source lists profiles without placements (RTX PRO 6000) they are those of the A30, which
        has the same four slices and ids (hardware.md 3.1.7: inferred).
        """
        return tuple(
            _mig_profile(each) for each in self._family(model.family)["models"][model.key]["mig_profiles"]
        )

    def mixed_placements(self, model: GpuModel, fb_mib: int) -> MixedPlacements | None:
        """Where vGPUs of that size may lie in mixed-size mode.

        None for a model without that mode, a size it does not have, and 48 and 96 GB regions, whose
        tables are not public.
        """
        if not model.mixed_size:
            return None
        if not self._placements:
            self._placements = self._read("placements.json")
        table = self._placements.get(str(round(model.fb_mib / 1024)), [])
        return next(
            (
                MixedPlacements(fb_mib=fb_mib, size=each["size"], starts=tuple(each["ids"]))
                for each in table
                if each["fb_mib"] == fb_mib
            ),
            None,
        )

    def _keys_of_board(self, short: str) -> Iterable[str]:
        """The models whose type names begin as `short` does; asking only these reads one family."""
        name = parse(short.upper())
        board = name.board.casefold() if isinstance(name, TypeName) else short
        return [key for key, head in self._index().items() if head["board"].casefold() == board]

    def _index(self) -> dict[str, dict[str, Any]]:
        if not self._heads:
            self._heads = {head["key"]: head for head in self._read("index.json")["models"]}
        return self._heads

    def _family(self, family: str) -> dict[str, Any]:
        if family not in self._families:
            self._families[family] = self._read(f"{family}.json")
        return self._families[family]

    def _model(self, key: str) -> GpuModel:
        if key not in self._models:
            head = self._index()[key]
            types = self._family(head["family"])["models"][key]["types"]
            self._models[key] = GpuModel(
                key=key,
                name=head["name"],
                board=head["board"],
                family=head["family"],
                device=int(head["devices"][0], 16),
                subsystem=int(head["subsystem"], 16) if "subsystem" in head else None,
                fb_mib=head["fb_mib"],
                vfs=head["vfs"],
                gpus_per_board=head["gpus_per_board"],
                mixed_size=head["mixed_size"],
                mig=head["mig"],
                types=tuple(_type(each) for each in types),
            )
        return self._models[key]

    def _read(self, name: str) -> Any:
        return json.loads((self._directory / name).read_text(encoding="utf-8"))


def _mig_profile(entry: dict[str, Any]) -> MigProfile:
    slices: int = entry["slices"]
    starts = entry.get("starts") or range(0, _FEW_SLICES, slices)
    return MigProfile(
        name=entry["name"],
        gi_profile_id=entry["gi_profile_id"],
        slices=slices,
        max=entry["max"],
        starts=tuple(starts),
        size=entry.get("size") or slices,
    )


def _type(entry: dict[str, Any]) -> VgpuType:
    """A type of the catalogue; its `source` says how sure its id is."""
    return VgpuType(
        name=entry["name"],
        raw_name=entry["raw_name"],
        type_id=entry.get("type_id"),
        kind=TypeKind(entry["kind"]),
        series=entry["series"],
        fb_mib=entry["fb_mib"],
        max_per_gpu=entry.get("max_per_gpu"),
        max_per_gpu_mixed=entry.get("max_per_gpu_mixed"),
        max_per_gi=entry.get("max_per_gi"),
        gi_profile=entry.get("gi_profile"),
        heads=entry.get("heads"),
        max_resolution=entry.get("max_resolution"),
        frl_fps=entry.get("frl_fps"),
        licence=entry.get("licence"),
        source="catalog" if entry["id_status"] == "documented" else f"catalog, id {entry['id_status']}",
    )

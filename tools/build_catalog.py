#!/usr/bin/env python3
"""Build `mdev-profiles/catalog/` from a vgpu-types.yaml and `tools/gpu_models.yaml`.

    tools/build_catalog.py PATH/TO/vgpu-types.yaml

Writes `index.json` (every model's ids, and the sources), `placements.json` (mixed-size mode) and one
file per GPU family.  What is not in the sources but follows from them is filled in and named in a
type's `derived` list.  The output is the same for the same input, one type a line.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from vgpuctl.model.typename import TypeName, parse, short_name  # noqa: E402

CATALOG = HERE.parent / "mdev-profiles" / "catalog"
KINDS = {"time-sliced": "time-sliced", "mig": "mig-backed"}

Entry = dict[str, Any]


def build(facts: Entry, models: Entry) -> dict[str, str]:
    """The catalogue's files, by name."""
    files: dict[str, str] = {}
    index: list[Entry] = []
    rows = [dict(row, device=int(str(row["pci_device"]), 16)) for row in facts["types"]]
    taken: set[int] = set()
    for family, described in models["models"].items():
        body: Entry = {}
        for model in described:
            devices = {model["device"], *model.get("aliases", ())}
            own = [row for row in rows if row["device"] in devices and row["gpu_token"] == model["board"]]
            taken |= {id(row) for row in own}
            types = model_types(own, model, facts["mixed_size_placements"])
            head = model_head(model, family, types)
            mig = [mig_profile(each) for each in facts["mig_gi_profiles"].get(model.get("mig_table"), ())]
            body[model["key"]] = {"mig_profiles": mig, "types": types}
            index.append(head)
        files[f"{family}.json"] = family_text(family, body)
    left = [row["name"] for row in rows if id(row) not in taken]
    if left:
        raise SystemExit(f"no model in gpu_models.yaml has these types: {', '.join(left)}")
    index.sort(key=lambda head: str(head["key"]))
    files["index.json"] = index_text(facts["sources"], index)
    files["placements.json"] = placements_text(facts["mixed_size_placements"])
    return files


def model_head(model: Entry, family: str, types: list[Entry]) -> Entry:
    """What the index says of a model."""
    head = {
        "key": model["key"],
        "name": model["name"],
        "board": model["board"],
        "family": family,
        "devices": [f"{each:04x}" for each in (model["device"], *model.get("aliases", ()))],
        "subsystem": f"{model['subsystem']:04x}" if "subsystem" in model else None,
        "fb_mib": max(each["fb_mib"] for each in types),
        "vfs": model["vfs"],
        "vfs_status": model.get("vfs_src", "documented" if model["vfs"] == 0 else "assumed"),
        "gpus_per_board": model.get("gpus", 1),
        "mixed_size": has_mixed_size(model),
        "mig": any(each["kind"] == "mig-backed" for each in types),
    }
    return {key: value for key, value in head.items() if value is not None}


def has_mixed_size(model: Entry) -> bool:
    """Whether the model has a mixed-size mode: SR-IOV GPUs only (hardware.md 3.4)."""
    return bool(model.get("mixed", model["vfs"] > 0))


def model_types(rows: list[Entry], model: Entry, placements: Entry) -> list[Entry]:
    """A model's types, each once, by kind, frame buffer and name."""
    prefix = next((row["name"].rsplit(maxsplit=1)[0] for row in rows if " " in row["name"]), None)
    # A type that stands under a board and under its alias is one type; the row with more facts wins.
    unique: dict[str, Entry] = {}
    for row in sorted(rows, key=len):
        unique[short_name(row["name"])] = row
    types = [one_type(row, prefix) for row in unique.values()]
    region = round(max(each["fb_mib"] for each in types) / 1024)
    table = placements.get(f"region_{region}", ())
    mixed = {each["fb_mib"]: each["mixed"] for each in table} if has_mixed_size(model) else None
    complete_limits(types, region, mixed, mixed_like_equal=model.get("mixed_max") == "equal")
    return sorted(types, key=lambda each: (each["kind"] != "time-sliced", each["fb_mib"], each["name"]))


def one_type(row: Entry, prefix: str | None) -> Entry:
    """One type; facts that follow from its name are named in `derived`."""
    name = parse(row["name"])
    if not isinstance(name, TypeName):
        raise SystemExit(f"not a name of NVIDIA's grammar: {row['name']}")
    derived = []
    raw = row["name"]
    if " " not in raw and prefix is not None:
        raw = f"{prefix} {raw}"
        derived.append("raw_name")
    fb_mib = row.get("fb_mib")
    if fb_mib is None:
        fb_mib = name.nominal_fb_mib
        derived.append("fb_mib")
    return {
        "name": str(name),
        "raw_name": raw,
        "type_id": row.get("id"),
        "id_status": row.get("id_status", "unknown"),
        "kind": KINDS[row["kind"]],
        "series": row["series"],
        "fb_mib": fb_mib,
        "max_per_gpu": row.get("max_per_gpu"),
        "max_per_gpu_mixed": row.get("max_per_gpu_mixed"),
        "max_per_gi": row.get("max_per_gi"),
        "gi_profile": row.get("gi_profile"),
        "heads": row.get("heads"),
        "max_resolution": row.get("max_res"),
        "frl_fps": row.get("frl_fps"),
        "licence": row.get("license"),
        "note": row.get("note"),
        "derived": derived,
        "src": row["src"],
    }


def complete_limits(
    types: list[Entry], total_gib: int, mixed: dict[int, int] | None, *, mixed_like_equal: bool
) -> None:
    """Fill in limits: types of one kind, slices and size on one GPU model share them.

    `mixed` are the maxima of mixed-size mode by frame buffer, None for a model without that mode.
    """

    def group(entry: Entry) -> tuple[Any, ...]:
        return entry["kind"], slices(entry), entry["fb_mib"]

    def known(limit: str) -> dict[tuple[Any, ...], int]:
        found: dict[tuple[Any, ...], int] = {}
        for each in types:
            if each[limit] is not None:
                found[group(each)] = min(each[limit], found.get(group(each), each[limit]))
        return found

    def fill(each: Entry, limit: str, value: int | None) -> None:
        if each[limit] is None and value is not None:
            each[limit] = value
            each["derived"].append(limit)

    equal, mixed_known = known("max_per_gpu"), known("max_per_gpu_mixed")
    for each in types:
        fits = min(total_gib * 1024 // each["fb_mib"], 32) if each["kind"] == "time-sliced" else None
        fill(each, "max_per_gpu", equal.get(group(each), fits))
        if each["kind"] == "time-sliced" and mixed is not None:
            table = each["max_per_gpu"] if mixed_like_equal else mixed.get(each["fb_mib"])
            fill(each, "max_per_gpu_mixed", mixed_known.get(group(each), table))


def slices(entry: Entry) -> int | None:
    """The GPU slices in a type's name."""
    name = parse(entry["name"])
    return name.slices if isinstance(name, TypeName) else None


def mig_profile(row: Entry) -> Entry:
    """One GPU-instance profile; `{0,2,4}:2` becomes starts and a size on the memory-slice axis."""
    profile = {
        "name": row["profile"],
        "gi_profile_id": row["gi_profile_id"],
        "slices": row["gpu_slices"],
        "max": row["max"],
    }
    match = re.fullmatch(r"\{([\d,]+)\}:(\d+)", row.get("placements", ""))
    if match:
        profile |= {"starts": [int(each) for each in match[1].split(",")], "size": int(match[2])}
    return profile


def line(value: Any) -> str:
    """One JSON value on one line, without what is empty."""
    if isinstance(value, dict):
        value = {key: each for key, each in value.items() if each is not None and each != []}
    return json.dumps(value, ensure_ascii=False)


def lines(values: list[Any], indent: str) -> str:
    """A JSON list, one element a line."""
    if not values:
        return "[]"
    return "[\n" + ",\n".join(f"{indent} {line(each)}" for each in values) + f"\n{indent}]"


def family_text(family: str, body: Entry) -> str:
    """A family's file."""
    models = ",\n".join(
        f'  "{key}": {{\n   "mig_profiles": {lines(body[key]["mig_profiles"], "   ")},\n'
        f'   "types": {lines(body[key]["types"], "   ")}\n  }}'
        for key in sorted(body)
    )
    return f'{{\n "family": "{family}",\n "models": {{\n{models}\n }}\n}}\n'


def placements_text(regions: Entry) -> str:
    """The placement tables of mixed-size mode, by size of the region in GB."""
    tables = {
        int(region.removeprefix("region_")): [
            {"fb_mib": each["fb_mib"], "size": each["size"], "max": each["mixed"], "ids": each["ids"]}
            for each in table
        ]
        for region, table in regions.items()
    }
    body = ",\n".join(f' "{region}": {lines(tables[region], " ")}' for region in sorted(tables))
    return f"{{\n{body}\n}}\n"


def index_text(sources: Entry, models: list[Entry]) -> str:
    """The index."""
    legend = ",\n".join(f'  "{key}": {line(text)}' for key, text in sources.items())
    return f'{{\n "format": 1,\n "sources": {{\n{legend}\n }},\n "models": {lines(models, " ")}\n}}\n'


def main() -> None:
    """Read, build, write."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    facts = yaml.load(Path(sys.argv[1]).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    models = yaml.safe_load((HERE / "gpu_models.yaml").read_text(encoding="utf-8"))
    CATALOG.mkdir(parents=True, exist_ok=True)
    for name, text in build(facts, models).items():
        json.loads(text)
        (CATALOG / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

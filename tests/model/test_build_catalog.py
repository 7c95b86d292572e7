"""The tool that makes the catalogue."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "tools" / "build_catalog.py"
SPEC = importlib.util.spec_from_file_location("build_catalog", SOURCE)
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)

MODEL = {"key": "l4", "board": "L4", "device": 0x27B8, "name": "NVIDIA L4", "vfs": 32}


def row(name, number=None, **facts):
    known = {"id": number, "id_status": "documented"} if number else {}
    return (
        {
            "name": name,
            "gpu_token": "L4",
            "pci_device": "0x27b8",
            "kind": "time-sliced",
            "series": name[-1],
            "src": ["S1"],
        }
        | known
        | facts
    )


def facts(*rows):
    return {
        "sources": {"S1": "a source"},
        "mig_gi_profiles": {},
        "mixed_size_placements": {
            "region_24": [{"fb_mib": 8192, "size": 8, "equal": 3, "mixed": 2, "ids": [0, 16], "src": "S1"}]
        },
        "types": list(rows),
    }


def types_of(*rows, **model):
    files = tool.build(facts(*rows), {"models": {"ada": [MODEL | model]}})
    return {each["name"]: each for each in json.loads(files["ada.json"])["models"]["l4"]["types"]}


def test_what_follows_is_filled_in_and_named():
    types = types_of(
        row("NVIDIA L4-24Q", 5, max_per_gpu=1),
        row("NVIDIA L4-8Q", 7, fb_mib=8192, max_per_gpu=3),
        row("L4-8A"),
    )
    assert types["L4-8A"] == {
        "name": "L4-8A",
        "raw_name": "NVIDIA L4-8A",
        "id_status": "unknown",
        "kind": "time-sliced",
        "series": "A",
        "fb_mib": 8192,
        "max_per_gpu": 3,
        "max_per_gpu_mixed": 2,
        "derived": ["raw_name", "fb_mib", "max_per_gpu", "max_per_gpu_mixed"],
        "src": ["S1"],
    }
    assert types["L4-8Q"]["derived"] == ["max_per_gpu_mixed"]
    assert "max_per_gpu_mixed" not in types["L4-24Q"]


def test_a_model_without_vfs_has_no_mixed_size_limits():
    """hardware.md 3.4.3: mixed-size mode is for SR-IOV GPUs only."""
    types = types_of(row("NVIDIA L4-24Q", 5), row("NVIDIA L4-8Q", 7), vfs=0)
    assert "max_per_gpu_mixed" not in types["L4-8Q"]


def test_an_alias_adds_no_type_twice():
    rows = (row("NVIDIA L4-24Q", 5), row("NVIDIA L4-24Q", 5, pci_device="0x27b9", heads=4))
    types = types_of(*rows, aliases=[0x27B9])
    assert list(types) == ["L4-24Q"]
    assert types["L4-24Q"]["heads"] == 4


def test_the_output_does_not_depend_on_the_order_of_the_input():
    rows = [row("NVIDIA L4-24Q", 5), row("NVIDIA L4-8Q", 7), row("L4-8A")]
    models = {"models": {"ada": [MODEL]}}
    assert tool.build(facts(*rows), models) == tool.build(facts(*reversed(rows)), models)


def test_a_type_without_a_model_stops_the_build():
    with pytest.raises(SystemExit, match="NVIDIA X1-8Q"):
        tool.build(
            facts(row("NVIDIA L4-24Q", 5), row("NVIDIA X1-8Q", gpu_token="X1")), {"models": {"ada": [MODEL]}}
        )

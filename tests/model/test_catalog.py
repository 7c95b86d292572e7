"""The catalogue against the grammar, the documented maxima, and itself."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.cards import CATALOG
from vgpuctl.errors import NotFound
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.gpu import DeviceId
from vgpuctl.model.typename import TypeName, parse, short_name
from vgpuctl.model.types import TypeKind
from vgpuctl.resources import profiles_directory

TOP = Path(__file__).parents[2]
ALL = [(model, each) for model in CATALOG.models() for each in model.types]


def nvidia(device: int, subsystem: int = 0x1234) -> DeviceId:
    return DeviceId(0x10DE, device, 0x10DE, subsystem)


def test_every_name_parses_and_its_size_is_its_frame_buffer():
    for model, each in ALL:
        name = parse(each.raw_name)
        assert isinstance(name, TypeName), each.raw_name
        assert (str(name), name.board, name.series) == (each.name, model.board, each.series)
        assert name.is_mig_backed == (each.kind is TypeKind.MIG_BACKED)
        # H100L-94C is 96246 MiB, and 1-24C is 24672: the only ones that are not 1024 x the number.
        assert abs(each.fb_mib - name.nominal_fb_mib) <= name.nominal_fb_mib // 200, each.name


def test_there_is_no_type_without_a_limit():
    assert [each.name for _model, each in ALL if each.max_per_gpu is None] == []


def test_names_and_ids_are_unique_on_a_gpu_and_ids_across_gpus():
    for model in CATALOG.models():
        assert max(Counter(each.name for each in model.types).values()) == 1, model.key
    ids = Counter(each.type_id for _model, each in ALL if each.type_id is not None)
    assert [number for number, count in ids.items() if count > 1] == []


# hardware.md 2.14, "Table of C-series maxima, equal-size / mixed-size".
MAXIMA = {
    ("a16", "a2"): "16:1/1 8:2/2 4:4/4",
    ("a10", "l4", "rtx-a5000", "rtx-a5500"): "24:1/1 12:2/2 8:3/2 6:4/4 4:6/4",
    ("a30",): "24:1/1 12:2/2 8:3/2 6:4/4 4:6/4",
    ("a40", "l40", "l40s", "rtx-6000-ada", "rtx-a6000"): "48:1/1 24:2/2 16:3/2 12:4/4 8:6/4 6:8/8 4:12/8",
    ("a100-40",): "40:1/1 20:2/2 10:4/4 8:5/4 5:8/8 4:10/8",
    ("a100-80", "a100-80-sxm"): "80:1/1 40:2/2 20:4/4 16:5/4 10:8/8 8:10/8 4:20/16",
    ("h100", "h100-sxm"): "80:1/1 40:2/2 20:4/4 16:5/4 10:8/8 8:10/8 5:16/16 4:20/16",
    ("h100-94", "h100-94-sxm"): "94:1/1 47:2/2 23:4/4 15:6/4 11:8/8 6:15/8 4:23/16",
    ("h200", "h200-sxm"): "141:1/1 70:2/2 35:4/4 28:5/5 17:8/8 14:10/10 8:16/16 7:20/20 4:32/32",
}
EQUAL_SIZE_MAXIMA = {
    ("a16", "Q"): "16:1 8:2 4:4 2:8 1:16",
    ("a10", "Q"): "3:8 2:12 1:24",
    ("l40s", "Q"): "3:16 2:24 1:32",
    ("t4", "Q"): "16:1 8:2 4:4 2:8 1:16",
    ("v100", "Q"): "16:1 8:2 4:4 2:8 1:16",
    ("v100-32", "Q"): "32:1 16:2 8:4 4:8 2:16 1:32",
    ("rtx-pro-6000", "Q"): "96:1 48:2 32:3 24:4 16:6 12:8 8:12 6:16 4:24 3:32",
}
MIG_MAXIMA = {1: "24:4 12:8 8:12 6:16 4:24 3:32 2:48", 2: "48:2 24:4 16:6 12:8", 4: "96:1 48:2 32:3 24:4"}


def pairs(text: str) -> list[tuple[int, list[int]]]:
    return [
        (int(size), [int(each) for each in limits.split("/")])
        for size, limits in (entry.split(":") for entry in text.split())
    ]


@pytest.mark.parametrize(("keys", "table"), MAXIMA.items())
def test_documented_maxima_of_the_c_series(keys, table):
    """hardware.md 2.14: equal-size and mixed-size, per GPU."""
    for key in keys:
        model = CATALOG.keyed(key)
        for size, (equal, mixed) in pairs(table):
            found = next(each for each in model.types if each.name == f"{model.board}-{size}C")
            assert (found.max_per_gpu, found.max_per_gpu_mixed) == (equal, mixed), found.name


@pytest.mark.parametrize(("which", "table"), EQUAL_SIZE_MAXIMA.items())
def test_documented_maxima_of_equal_size(which, table):
    """hardware.md 2.8, 2.14: equal-size, with the cap of 32."""
    model = CATALOG.keyed(which[0])
    for size, (equal,) in pairs(table):
        found = next(each for each in model.types if each.name == f"{model.board}-{size}{which[1]}")
        assert found.max_per_gpu == equal, found.name


def test_maxima_that_are_not_what_division_gives():
    """hardware.md 2.8: RTX8000P-4C = 8, DC-2B = 32 and not 48, M60-0Q = 16."""
    for name, limit in (("RTX8000P-4C", 8), ("DC-2B", 32), ("M60-0Q", 16), ("H100L-15C", 6)):
        assert CATALOG.type_named(name)[1].max_per_gpu == limit, name


@pytest.mark.parametrize(("slices", "table"), MIG_MAXIMA.items())
def test_documented_maxima_in_gpu_instances(slices, table):
    """hardware.md 2.14, MIG-backed RTX PRO 6000: Max Instances = Max Instances Per GI x GI count."""
    for size, (equal,) in pairs(table):
        _model, found = CATALOG.type_named(f"DC-{slices}-{size}Q")
        assert found.max_per_gpu == equal, found.name
        assert found.max_per_gpu == found.max_per_gi * {1: 4, 2: 2, 4: 1}[slices], found.name


def test_an_equal_size_set_always_fits_the_frame_buffer():
    for model, each in ALL:
        if each.kind is TypeKind.TIME_SLICED:
            assert each.fb_mib * each.max_per_gpu <= model.fb_mib * 1.001, each.name


def test_vfs_are_enough_for_every_set():
    """hardware.md 1.3.4: number of VFs >= max vGPUs."""
    for model, each in ALL:
        assert model.vfs == 0 or model.vfs >= each.max_per_gpu, each.name


def test_t4_has_no_vfs_and_no_mixed_size():
    """hardware.md T19: T4 shows totalvfs but has no VFs."""
    model = CATALOG.find(nvidia(0x1EB8))
    assert (model.key, model.vfs, model.mixed_size, model.mig) == ("t4", 0, False, False)


def test_a16_and_a2_differ_by_subsystem():
    """hardware.md 2.5: A16 and A2 share 0x25b6 and differ by subsystem (0x14a9 / 0x157e)."""
    assert CATALOG.find(nvidia(0x25B6, 0x14A9)).key == "a16"
    assert CATALOG.find(nvidia(0x25B6, 0x157E)).key == "a2"
    assert CATALOG.find(nvidia(0x25B6, 0x0001)) is None


def test_alias_boards_share_types():
    """hardware.md 2.6: alias boards (0x2336 -> 0x2330, 0x20b8 -> 0x20b5) share type ids."""
    assert CATALOG.find(nvidia(0x2336)) is CATALOG.find(nvidia(0x2330))
    assert CATALOG.find(nvidia(0x20B8)).key == "a100-80"


def test_a_device_of_another_vendor_or_none_is_not_found():
    assert CATALOG.find(DeviceId(0x1002, 0x26B9, 0, 0)) is None
    assert CATALOG.find(nvidia(0xFFFF)) is None


def test_keyed_names_near_keys():
    assert CATALOG.keyed("L40S").board == "L40S"
    with pytest.raises(NotFound) as caught:
        CATALOG.keyed("l40t")
    assert "l40s" in caught.value.facts["near"]
    assert "l40s" in caught.value.hint


def test_keys_that_the_simulation_offers_are_there():
    wanted = {"t4", "a16", "a40", "l4", "l40s", "a100-40", "a100-80", "h100", "h200", "rtx-pro-6000"}
    assert wanted <= set(CATALOG.keys())
    assert list(CATALOG.keys()) == sorted(CATALOG.keys())


def test_gpus_per_board():
    """hardware.md 2.7: A16 = 4 GPUs, M10 = 4, M60 = 2, the rest 1."""
    many = {model.key: model.gpus_per_board for model in CATALOG.models() if model.gpus_per_board > 1}
    assert many == {"a16": 4, "m10": 4, "m60": 2}


def test_type_named_takes_any_case_and_the_drivers_name():
    model, found = CATALOG.type_named("nvidia rtx6000-ADA-48q")
    assert (model.key, found.name) == ("rtx-6000-ada", "RTX6000-Ada-48Q")
    assert CATALOG.type_named("L40S-9Q") is None
    assert CATALOG.type_named("mtty-2") is None


def test_two_boards_with_the_token_dc_are_told_apart():
    assert CATALOG.type_named("DC-1-24Q")[0].key == "rtx-pro-6000"
    assert CATALOG.type_named("DC-1-16Q")[0].key == "rtx-pro-4500"


def test_the_documents_count_what_is_there():
    without_id = {each.name for _, each in ALL if each.type_id is None}
    lacking = {model.name for model, each in ALL if each.type_id is None}
    said = re.compile(
        r"(\d+) of the catalogue's (\d+) vGPU types, on (\d+) of its (\d+) models: (\d+) of the C"
    )
    (found,) = said.findall((TOP / "docs/hardware.md").read_text())
    models = list(CATALOG.models())
    counted = [without_id, ALL, lacking, models, [each for each in without_id if each.endswith("C")]]
    assert [int(each) for each in found] == [len(each) for each in counted]
    for page in ("docs/hardware.md", "CHANGELOG.md"):
        assert f"{len(ALL)} vGPU types of {len(models)} " in (TOP / page).read_text()


def test_every_type_is_found_by_name():
    for name in CATALOG.type_names():
        assert CATALOG.type_named(name)[1].name == name


def test_an_inferred_id_says_so():
    inferred = CATALOG.type_named("DC-12Q")[1]
    assert (inferred.type_id, inferred.source) == (1528, "catalog, id inferred")
    assert CATALOG.type_named("L40S-8Q")[1].source == "catalog"
    without = CATALOG.type_named("L40S-48C")[1]
    assert (without.type_id, without.source) == (None, "catalog, id unknown")


def test_mig_profiles_name_what_the_types_ask_for():
    """hardware.md 3.1.1: 7-slice GPUs: ids 19, 20, 15, 14, 9, 5, 0."""
    for model in CATALOG.models():
        profiles = {each.name: each for each in CATALOG.mig_profiles(model)}
        if not profiles:
            continue
        for each in model.types:
            if each.gi_profile is not None:
                assert profiles[each.gi_profile].slices == parse(each.name).slices, each.name
    a100 = CATALOG.mig_profiles(CATALOG.keyed("a100-80"))
    assert {each.gi_profile_id for each in a100} == {19, 20, 15, 14, 9, 5, 0}
    assert next(each for each in a100 if each.name == "3g.40gb").starts == (0, 4)
    assert CATALOG.mig_profiles(CATALOG.keyed("l40s")) == ()


def test_mixed_placements():
    """hardware.md 3.4.5: 24 GB region, three 8 GB equal-size but only two (0,16) mixed."""
    l4 = CATALOG.keyed("l4")
    placements = CATALOG.mixed_placements(l4, 8192)
    assert (placements.starts, placements.size) == ((0, 16), 8)
    assert CATALOG.mixed_placements(l4, 5120) is None
    assert CATALOG.mixed_placements(CATALOG.keyed("t4"), 8192) is None
    assert CATALOG.mixed_placements(CATALOG.keyed("l40s"), 8192) is None


def test_placements_agree_with_the_maxima():
    for model, each in ALL:
        placements = CATALOG.mixed_placements(model, each.fb_mib)
        if placements is not None and each.kind is TypeKind.TIME_SLICED:
            assert len(placements.starts) == each.max_per_gpu_mixed, each.name
            region = round(model.fb_mib / 1024)
            ordered = sorted(placements.starts)
            assert ordered[-1] + placements.size <= region
            assert all(b - a >= placements.size for a, b in pairwise(ordered))


def test_finding_one_model_reads_one_family(tmp_path):
    source = profiles_directory() / "catalog"
    for name in ("index.json", "ada.json"):
        (tmp_path / name).write_text((source / name).read_text())
    catalog = Catalog(tmp_path)
    assert catalog.find(nvidia(0x26B9)).key == "l40s"
    assert catalog.type_named("l40s-8q")[1].type_id == 1152
    with pytest.raises(FileNotFoundError):
        catalog.keyed("t4")


def test_every_source_that_a_type_names_is_in_the_legend():
    directory = profiles_directory() / "catalog"
    legend = set(json.loads((directory / "index.json").read_text())["sources"])
    for model in CATALOG.models():
        body = json.loads((directory / f"{model.family}.json").read_text())["models"][model.key]
        for each in body["types"]:
            assert set(each["src"]) <= legend
            assert short_name(each["raw_name"]) == each["name"]

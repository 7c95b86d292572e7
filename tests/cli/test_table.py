"""Tables, pictures and YAML as such."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vgpuctl.cli.cells import plain
from vgpuctl.cli.folding import fold
from vgpuctl.cli.picture import ASCII, UNICODE, card, mini_bar
from vgpuctl.cli.style import Paint
from vgpuctl.cli.table import Column, display_width, fitting, render
from vgpuctl.cli.yamltext import dump, dump_all

PLAIN = Paint(enabled=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_yaml_says_what_json_said(value: object) -> None:
    assert yaml.safe_load(dump(value)) == value


def test_yaml_quotes_what_readers_take_for_something_else() -> None:
    """YAML 1.1 reads 0000:41:00.0 as a base-60 number, and `no` as false."""
    tricky = [
        "0000:41:00.0",
        "no",
        "1e3",
        "0x10",
        "2026-11-09",
        "~",
        "",
        " a",
        "a: b",
        "a #b",
        "- a",
        "a:",
        "\t",
        "\x85",
    ]
    assert yaml.safe_load(dump(tricky)) == tricky
    assert dump({"type": "L40S-8Q", "gpu": "0000:41:00.0"}) == 'type: L40S-8Q\ngpu: "0000:41:00.0"\n'


@given(st.lists(st.dictionaries(st.text(min_size=1), st.text(), min_size=1), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_yaml_documents(documents: list[dict[str, str]]) -> None:
    assert list(yaml.safe_load_all(dump_all(documents))) == documents


@given(st.lists(st.text("abc ", min_size=1, max_size=120), min_size=1, max_size=5), st.integers(30, 100))
@settings(max_examples=60, deadline=None)
def test_a_narrow_table_fits_and_loses_nothing(cells: list[str], width: int) -> None:
    columns = [Column("KEY", ["k"] * len(cells)), Column("TEXT", cells)]
    lines = list(render(columns, width=width))
    longest = max(len(word) for cell in cells for word in cell.split() or [""])
    assert all(display_width(each) <= max(width, 5 + longest) for each in lines)
    words = [word for each in lines[1:] for word in each[5:].split()]
    assert words == [word for each in cells for word in each.split()]


@given(st.lists(st.text("ab日`", min_size=1, max_size=30), max_size=30), st.integers(40, 100))
@settings(max_examples=60, deadline=None)
def test_folded_text_fits_and_loses_nothing(words: list[str], width: int) -> None:
    lines = fold(" ".join(words), width, first="- ", rest="    ")
    assert " ".join([lines[0][2:], *(each[4:] for each in lines[1:])]).split() == words
    longest = max(map(display_width, words), default=0) + 4
    assert all(display_width(each) <= max(width, longest) for each in lines)


def test_a_command_stays_on_one_line_where_it_has_room() -> None:
    text = "it went away: `vgpuctl vgpu delete cad-1` removes it"
    assert fold(text, 40) == ["it went away:", "`vgpuctl vgpu delete cad-1` removes it"]
    assert fold(f"`{'vgpuctl ' * 6}x`", 40) == ["`vgpuctl vgpuctl vgpuctl vgpuctl vgpuctl", "vgpuctl x`"]
    assert fold(text * 9, None, first="- ") == [f"- {text * 9}"]


def test_an_address_is_never_cut() -> None:
    lines = list(render([Column("A", ["0000:41:00.0"]), Column("B", ["L40S-8Q,A40-8Q,T4-8Q"])], width=10))
    assert lines == [
        "A             B",
        "0000:41:00.0  L40S-8Q,",
        "              A40-8Q,",
        "              T4-8Q",
    ]


def narrow() -> list[Column]:
    return [
        Column("NAME", ["a" * 20, "b" * 20]),
        Column("GPU", ["0000:41:00.0", "-"], spare=True),
        Column("VF", ["-", "-"]),
        Column("SPARE", ["x", "y"], spare=True),
        Column("STATE", ["present", "-"]),
    ]


@pytest.mark.parametrize(
    ("width", "goes"),
    [
        (54, []),
        (53, ["VF"]),
        (49, ["VF", "SPARE"]),
        (42, ["GPU", "VF", "SPARE"]),
        (9, ["GPU", "VF", "SPARE"]),
    ],
)
def test_what_is_empty_makes_room_first_and_then_what_can_be_spared(width: int, goes: list[str]) -> None:
    kept, left_out = fitting(narrow(), width)
    assert [each.heading for each in left_out] == goes
    assert [each.heading for each in kept] == [each.heading for each in narrow() if each.heading not in goes]


def test_an_unread_cell_is_not_empty() -> None:
    kept, _ = fitting([Column("A", ["a"]), Column("B", ["?"]), Column("C", ["-"])], 1)
    assert [each.heading for each in kept] == ["A", "B"]


def test_wide_characters_keep_the_columns_straight() -> None:
    lines = list(render([Column("N", ["日本", "ab", "e\u0301"]), Column("X", ["1", "2", "3"])]))
    assert lines == ["N     X", "日本  1", "ab    2", "e\u0301     3"]


@given(
    st.lists(st.integers(256, 49152), max_size=48),
    st.integers(1, 4),
)
@settings(max_examples=100, deadline=None)
def test_every_vgpu_of_a_card_can_be_seen_in_its_picture(sizes: list[int], share: int) -> None:
    total = max(1, sum(sizes)) * share
    allocated = [
        {"name": f"v{i}", "type": "T", "fb_mib": each, "state": "present"} for i, each in enumerate(sizes)
    ]
    bar, *legend = card({"fb_mib": total, "allocated": allocated}, ASCII, PLAIN)
    inner = bar[1 : bar.index("]")]
    parts = inner.split("|")
    assert len(inner.replace("|", "")) == 48
    assert sum(set(each) <= {"#", "="} for each in parts) == len(sizes)
    assert all(parts)
    assert len(legend) == len(sizes) + 1


def test_a_card_whose_size_is_not_known_has_no_picture() -> None:
    assert list(card({"fb_mib": None, "allocated": []}, UNICODE, PLAIN)) == []
    assert mini_bar({"fb_mib": None, "fb_used_mib": 0}, UNICODE) == "-"


def test_mini_bar() -> None:
    assert mini_bar({"fb_mib": 16384, "fb_used_mib": 1024}, ASCII) == "#....... 1/16 GiB"
    assert mini_bar({"fb_mib": 23028, "fb_used_mib": 512}, ASCII) == "#....... 0.5/22.5 GiB"
    assert mini_bar({"fb_mib": 16384, "fb_used_mib": 16384}, ASCII) == "######## 16/16 GiB"


def test_objects_on_one_line() -> None:
    """What a plan says of a desktop's vGPUs names their profile; what is empty says nothing."""
    assert (
        plain([{"name": "a", "profile": "office"}, {"name": "b", "type": "T4-4Q"}]) == "a (office),b (T4-4Q)"
    )
    assert (
        plain({"vgpus": [], "documents": ["Desktop/a"], "places": {}, "count": 0})
        == "documents=Desktop/a count=0"
    )

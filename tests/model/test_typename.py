"""NVIDIA's type names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgpuctl.model.typename import OtherName, TypeName, lookup, nearest, parse, short_name


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("L40S-8Q", TypeName("L40S", None, 8, "Q")),
        ("GRID T4-4Q", TypeName("T4", None, 4, "Q")),
        ("NVIDIA RTX6000-Ada-48Q", TypeName("RTX6000-Ada", None, 48, "Q")),
        ("NVIDIA RTX Pro 6000 Blackwell DC-1-24Q", TypeName("DC", 1, 24, "Q")),
        ("NVIDIA RTX Pro 6000 Blackwell DC-24Q", TypeName("DC", None, 24, "Q")),
        ("A100D-1-10C", TypeName("A100D", 1, 10, "C")),
        ("A100D-1-10CME", TypeName("A100D", 1, 10, "C", "ME")),
        ("DC-1-24CNOME", TypeName("DC", 1, 24, "C", "NOME")),
        ("DC-1-24CMEALL", TypeName("DC", 1, 24, "C", "MEALL")),
        ("DC-2-48QGFX", TypeName("DC", 2, 48, "Q", "GFX")),
        ("M10-2B4", TypeName("M10", None, 2, "B", "4")),
        ("M60-0Q", TypeName("M60", None, 0, "Q")),
        # The board's own digits are no size.
        ("NVIDIA RTX 6000D-1-42Q", TypeName("6000D", 1, 42, "Q")),
        ("6000D-84C", TypeName("6000D", None, 84, "C")),
        ("H200X-141C", TypeName("H200X", None, 141, "C")),
    ],
)
def test_names_of_the_grammar(name, parts):
    """hardware.md 2.3: the grammar, and the driver's prefixes before it."""
    assert parse(name) == parts
    assert str(parts) == short_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "i915-GVTg_V5_4",
        "Dual port serial",
        "mtty-2",
        "L40S",
        "L40S-8",
        "L40S-8X",
        "L40S-08Q",
        "L40S-8QME",  # only MIG-backed types have a media engine suffix
        "A100D-1-10C4",
        "8Q",
        "",
    ],
)
def test_other_names_are_kept_and_never_raise(name):
    assert parse(name) == OtherName(name)
    assert str(parse(name)) == name


def test_size_zero_is_half_a_gibibyte():
    """hardware.md 2.2: `0` in the size means 512 MB (M60-0Q)."""
    assert parse("GRID M60-0Q").nominal_fb_mib == 512
    assert parse("M60-1Q").nominal_fb_mib == 1024


def test_slices_make_a_name_mig_backed():
    assert parse("DC-1-24Q").is_mig_backed
    assert not parse("DC-24Q").is_mig_backed


def test_short_name_keeps_other_vendors_names_whole():
    """mtty's two types end in the same word; cut, they would be one."""
    assert short_name("NVIDIA L40S-1B") == "L40S-1B"
    assert short_name("  GRID A100D-1-10C\n") == "A100D-1-10C"
    assert short_name("NVIDIA Z9000-Next-9Z") == "Z9000-Next-9Z"
    assert short_name("Single port serial") != short_name("Dual port serial")


def test_lookup_minds_neither_case_nor_prefix():
    names = ["L40S-8Q", "RTX6000-Ada-48Q"]
    assert lookup("l40s-8q", names) == "L40S-8Q"
    assert lookup("nvidia rtx6000-ADA-48q", names) == "RTX6000-Ada-48Q"
    assert lookup("L40S-8", names) is None
    assert lookup("", names) is None


def test_nearest_is_best_first_and_short():
    names = ["L40S-8Q", "L40S-8A", "L40S-48Q", "T4-4Q", "A16-16C"]
    assert nearest("l40-8q", names)[0] == "L40S-8Q"
    assert len(nearest("l40-8q", names, n=2)) == 2
    assert nearest("voodoo", names) == ()


@given(st.text(max_size=30))
def test_any_text_parses_and_prints_as_its_short_name(text):
    assert str(parse(text)) == short_name(text)


@given(
    st.builds(
        TypeName,
        board=st.from_regex(r"[A-Z0-9]{1,6}(-[A-Za-z]{2,4})?", fullmatch=True),
        slices=st.none() | st.integers(1, 9),
        size_gib=st.integers(0, 300),
        series=st.sampled_from("ABCQ"),
    )
)
def test_parse_undoes_str(name):
    assert parse(str(name)) == name

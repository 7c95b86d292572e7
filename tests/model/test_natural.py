"""The order in which names are listed."""

from __future__ import annotations

from vgpuctl.model.natural import natural


def test_numbers_are_counted():
    names = ["desk-10", "desk-2", "desk", "desk-2-b", "desk-2-a", "10", "9", "cad1x2", "cad1x10"]
    assert sorted(names, key=natural) == [
        *("9", "10", "cad1x2", "cad1x10", "desk", "desk-2", "desk-2-a", "desk-2-b", "desk-10")
    ]


def test_leading_zeros_make_another_name():
    assert natural("desk-01") != natural("desk-1")
    assert sorted(["desk-1", "desk-01"], key=natural) == ["desk-01", "desk-1"]

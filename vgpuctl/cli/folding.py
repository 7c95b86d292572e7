"""Text in lines that fit a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vgpuctl.cli.table import display_width

_NARROWEST = 40
_PIECE = re.compile(r"(?:`[^`]*`|\S)+")


def fold(text: str, width: int | None, *, first: str = "", rest: str = "") -> list[str]:
    """`text` in lines of at most `width`, the first behind `first`, others behind `rest`; None is any width.

    Only spaces are broken at, and those of a command in backticks only where it has no room on a line.
    """
    if width is None or display_width(first + text) <= width:
        return [first + text]
    width = max(width, _NARROWEST)
    lines, empty = [first], True
    for piece in _pieces(text, width - display_width(rest)):
        if not empty and display_width(f"{lines[-1]} {piece}") > width:
            lines.append(rest)
            empty = True
        lines[-1] += piece if empty else f" {piece}"
        empty = False
    return lines


def _pieces(text: str, room: int) -> Iterator[str]:
    for piece in _PIECE.findall(text):
        if display_width(piece) <= room:
            yield piece
        else:
            yield from piece.split()

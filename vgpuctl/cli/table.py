"""Plain columns: two spaces apart, no boxes, every row one line unless the terminal is too narrow."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from vgpuctl.cli.cells import NULL

_GAP = 2
_BREAK = re.compile(r"(?<=[ ,])(?=[^ ,])")


@dataclass(slots=True)
class Column:
    """A column: its heading, its cells, and how they are shown.

    A `rigid` one is never wrapped; a `spare` one may be left out.
    """

    heading: str
    cells: list[str] = field(default_factory=list)
    right: bool = False
    rigid: bool = False
    spare: bool = False
    paint: Callable[[str], str] = str

    def width(self, *, headers: bool) -> int:
        """What the widest cell needs, and the heading where it is shown."""
        return max((display_width(each) for each in [*([self.heading] * headers), *self.cells]), default=0)

    def least_width(self, *, headers: bool) -> int:
        """What it needs when it is wrapped: its longest word."""
        if self.rigid:
            return self.width(headers=headers)
        return max(
            display_width(word.rstrip()) for text in [self.heading, *self.cells] for word in _words(text)
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        return bool(self.cells) and all(each == NULL for each in self.cells)


def display_width(text: str) -> int:
    """Terminal cells that `text` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )


def fitting(
    columns: Sequence[Column], width: int, *, headers: bool = True
) -> tuple[list[Column], list[Column]]:
    """The columns that a terminal has room for, and those left out: empty ones first, then spare ones.

    Of several the rightmost goes first; the first column of all stays.
    """
    others = columns[:0:-1]
    going = [each for each in others if each.is_empty]
    going += [each for each in others if each.spare and not each.is_empty]
    for count in range(len(going) + 1):
        gone = {id(each) for each in going[:count]}
        kept = [each for each in columns if id(each) not in gone]
        if sum(each.least_width(headers=headers) for each in kept) + _GAP * (len(kept) - 1) <= width:
            break
    return kept, [each for each in columns if id(each) in gone]


def render(
    columns: Sequence[Column],
    *,
    headers: bool = True,
    width: int | None = None,
    heading_paint: Callable[[str], str] = str,
) -> Iterator[str]:
    """The lines of the table.  Where it is wider than `width`, text is wrapped between words."""
    widths = _fitted(columns, width, headers=headers)
    if headers:
        yield _line([each.heading for each in columns], columns, widths, [heading_paint] * len(columns))
    paints = [each.paint for each in columns]
    for row in zip(*(each.cells for each in columns), strict=True):
        wrapped = [_wrapped(cell, limit) for cell, limit in zip(row, widths, strict=True)]
        for number in range(max(len(lines) for lines in wrapped)):
            yield _line(
                [lines[number] if number < len(lines) else "" for lines in wrapped], columns, widths, paints
            )


def _fitted(columns: Sequence[Column], width: int | None, *, headers: bool) -> list[int]:
    """Widths of the columns: the widest that can be wrapped gives way first, down to its longest word."""
    widths = [each.width(headers=headers) for each in columns]
    if width is None:
        return widths
    least = [each.least_width(headers=headers) for each in columns]
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        room = [has - needs for has, needs in zip(widths, least, strict=True)]
        if max(room, default=0) <= 0:
            break
        widths[max((index for index, more in enumerate(room) if more > 0), key=widths.__getitem__)] -= 1
    return widths


def _words(text: str) -> list[str]:
    """`text` in pieces that are never cut, with what separates them: a name in two cannot be copied."""
    return _BREAK.split(text)


def _wrapped(cell: str, limit: int) -> list[str]:
    if display_width(cell) <= limit:
        return [cell]
    lines = [""]
    for word in _words(cell):
        if lines[-1] and display_width((lines[-1] + word).rstrip()) > limit:
            lines.append(word)
        else:
            lines[-1] += word
    return [each.rstrip() for each in lines]


def _line(
    texts: Sequence[str],
    columns: Sequence[Column],
    widths: Sequence[int],
    paints: Sequence[Callable[[str], str]],
) -> str:
    parts = []
    last = len(columns) - 1
    for index, (text, column, width, paint) in enumerate(zip(texts, columns, widths, paints, strict=True)):
        padding = " " * max(0, width - display_width(text))
        if column.right:
            parts.append(padding + paint(text))
        else:
            parts.append(paint(text) + ("" if index == last else padding))
    return (" " * _GAP).join(parts).rstrip()

"""Findings and problems as blocks of lines, where a table of them has no room."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vgpuctl.cli.cells import plain, text_of
from vgpuctl.cli.folding import fold
from vgpuctl.cli.output import Item
from vgpuctl.cli.style import Paint
from vgpuctl.surface import FINDING

_SINCE = next(each for each in FINDING.fields if each.name == "since")
_HEAD, _BODY, _REST = "  ", "    ", "      "
_NAMED_MAX = 3
"""So many subjects of one block are named; of more the first is."""


def gathered(items: list[Item]) -> list[Item]:
    """One for all of which the same is to be said, with `desk-1 and 11 more` for its subject."""
    alike: dict[tuple[str, ...], list[Item]] = {}
    for each in items:
        alike.setdefault(_said(each), []).append(each)
    return [_one_for(each) if len(each) > 1 else each[0] for each in alike.values()]


def blocks(items: list[Item], paint: Paint, width: int) -> Iterator[str]:
    """For each, what it is, and below that: what was found, the hint, and the steps that would mend it."""
    for each in items:
        yield from (paint.bold(line) for line in fold(_head(each), width, first=_HEAD, rest=_BODY))
        yield from fold(plain(each.get("detail")), width, first=_BODY, rest=_BODY)
        if each.get("hint"):
            yield from fold(f"hint: {plain(each['hint'])}", width, first=_BODY, rest=_REST)
        for number, step in enumerate(each.get("steps") or [], start=1):
            yield from fold(f"step {number}: {plain(step)}", width, first=_BODY, rest=_REST)


def _said(item: Item) -> tuple[str, ...]:
    subject = plain(item.get("subject"))
    return tuple(
        re.sub(rf"\b{re.escape(subject)}\b", "it", plain(item.get(name)))
        for name in ("code", "repair", "detail", "hint")
    )


def _one_for(items: list[Item]) -> Item:
    names = [plain(each.get("subject")) for each in items]
    subject = ", ".join(names) if len(names) <= _NAMED_MAX else f"{names[0]} and {len(names) - 1} more"
    steps = {"steps": [step for each in items for step in each["steps"]]} if "steps" in items[0] else {}
    return {**items[0], "subject": subject, **steps}


def _head(item: Item) -> str:
    parts = [plain(item.get("subject")), plain(item.get("code"))]
    if item.get("since"):
        parts.append(f"since {text_of(_SINCE, item)}")
    if item.get("repair"):
        parts.append(f"repair: {plain(item['repair'])}")
    return "  ".join(each for each in parts if each)

"""One resource as lines of `name: value`, with what it contains as small tables."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from vgpuctl.cli.cells import plain, text_of
from vgpuctl.cli.output import Item, table
from vgpuctl.cli.style import Paint, width_of
from vgpuctl.surface import RESOURCES, Field, Resource

_NARROWEST = 20
_FOR_PROGRAMS = frozenset({"uuid", "alias"})
"""Too wide for a small table, and a name says the same."""


def view(
    resource: Resource, item: Item, paint: Paint, *, skip: frozenset[str] = frozenset()
) -> Iterator[str]:
    """The lines.  A field that could not be read shows `?` and the reason; empty lists are left out."""
    unknown = item.get("unknown") or {}
    lists = [each for each in resource.fields if _is_table(each)]
    singles = [
        each
        for each in resource.fields
        if each not in lists and each.name not in skip and each.name != "unknown"
    ]
    unread = [each for each in lists if item.get(each.name) is None and each.name in unknown]
    width = max(len(each.name) for each in [*singles, *unread]) + 1
    for field in [*singles, *unread]:
        text = _value(field, item)
        if item.get(field.name) is None and field.name in unknown:
            text = f"{paint.red(text)}  ({plain(unknown[field.name])})"
        elif field.name in ("state", "verdict"):
            text = paint.word(text)
        first, *more = _wrapped(text, width + 1)
        yield f"{field.name + ':':<{width}} {first}"
        hint = _hint(item.get(field.name))
        for line in [*more, *([f"hint: {hint}"] if hint else [])]:
            yield f"{'':<{width}} {line}"
    for field in lists:
        if item.get(field.name) and field.name not in skip:
            yield ""
            yield f"{field.name}:"
            yield from table(fields_of(field, item[field.name]), item[field.name], paint, indent=2)


def fields_of(field: Field, items: list[Item]) -> tuple[Field, ...]:
    """Columns for a list inside a resource: its resource's, or whatever keys its objects have."""
    inner = RESOURCES.get(field.kind.strip("[]"))
    if inner is not None:
        return inner.columns()
    names = dict.fromkeys(name for each in items for name in each if name not in _FOR_PROGRAMS)
    return tuple(Field(name, _kind_of(items, name), "", nullable=True, column=name.upper()) for name in names)


def _kind_of(items: list[Item], name: str) -> str:
    values = [each.get(name) for each in items]
    numbers = all(isinstance(each, int) and not isinstance(each, bool) for each in values if each is not None)
    return "integer" if numbers and any(each is not None for each in values) else "string"


def _value(field: Field, item: Item) -> str:
    value = item.get(field.name)
    if isinstance(value, list) and value:
        return ", ".join(plain(each) for each in value)
    return text_of(field, item)


def _wrapped(text: str, indent: int) -> list[str]:
    """`text` in lines that fit beside its name on a terminal."""
    room = (width_of(sys.stdout) or 0) - indent
    if room < _NARROWEST or len(text) <= room or "\x1b" in text:
        return [text]
    return textwrap.wrap(text, room, break_on_hyphens=False, break_long_words=False)


def _is_table(field: Field) -> bool:
    return field.kind == "[object]" or field.kind.strip("[]") in RESOURCES


def _hint(value: Any) -> str | None:
    return plain(value["hint"]) if isinstance(value, dict) and value.get("hint") else None

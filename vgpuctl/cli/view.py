"""One resource as lines of `name: value`, with what it contains as small tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from vgpuctl.cli.cells import plain, text_of
from vgpuctl.cli.finding import blocks, gathered
from vgpuctl.cli.folding import fold
from vgpuctl.cli.output import Item, table
from vgpuctl.cli.style import Paint, width_of
from vgpuctl.cli.table import display_width
from vgpuctl.surface import RESOURCES, Field, Resource

_TOLD = frozenset({"problems", "drift"})
"""Lists whose items are whole sentences."""
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
    columns = width_of(sys.stdout)
    width = max(len(each.name) for each in [*singles, *unread]) + 1
    rest = " " * (width + 1)
    for field in [*singles, *unread]:
        text, name = _value(field, item), f"{field.name + ':':<{width}} "
        if item.get(field.name) is None and field.name in unknown:
            first, *more = fold(
                f"({plain(unknown[field.name])})", columns, first=f"{name}{text}  ", rest=rest
            )
            yield name + paint.red(text) + first.removeprefix(name + text)
            yield from more
        elif field.name in ("state", "verdict"):
            yield name + paint.word(text)
        else:
            yield from fold(text, columns, first=name, rest=rest)
        if hint := _hint(item.get(field.name)):
            yield from fold(f"hint: {hint}", columns, first=rest, rest=rest + "  ")
    for field in lists:
        if item.get(field.name) and field.name not in skip:
            yield ""
            yield f"{field.name}:"
            items = gathered(item[field.name]) if field.name in _TOLD else item[field.name]
            if field.name in _TOLD and columns is not None and _is_wider(field, items, columns):
                yield from blocks(items, paint, columns)
            else:
                yield from table(fields_of(field, items), items, paint, indent=2)


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


def _is_wider(field: Field, items: list[Item], columns: int) -> bool:
    """Whether a table of `items` takes more than so many columns, unless it is wrapped."""
    lines = table(fields_of(field, items), items, Paint(enabled=False), indent=2, wrap=False)
    return max(display_width(each) for each in lines) > columns


def _is_table(field: Field) -> bool:
    return field.kind == "[object]" or field.kind.strip("[]") in RESOURCES


def _hint(value: Any) -> str | None:
    return plain(value["hint"]) if isinstance(value, dict) and value.get("hint") else None

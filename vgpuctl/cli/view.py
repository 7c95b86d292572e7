"""One resource as lines of `name: value`, with what it contains as small tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vgpuctl.cli.cells import plain, text_of
from vgpuctl.cli.output import Item, table
from vgpuctl.cli.style import Paint
from vgpuctl.surface import RESOURCES, Field, Resource


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
    width = max(len(each.name) for each in singles) + 1
    for field in singles:
        text = text_of(field, item)
        if item.get(field.name) is None and field.name in unknown:
            text = f"{paint.red(text)}  ({plain(unknown[field.name])})"
        elif field.name in ("state", "verdict"):
            text = paint.word(text)
        yield f"{field.name + ':':<{width}} {text}"
        hint = _hint(item.get(field.name))
        if hint:
            yield f"{'':<{width}} hint: {hint}"
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
    names = dict.fromkeys(name for each in items for name in each)
    return tuple(Field(name, _kind_of(items, name), "", nullable=True, column=name.upper()) for name in names)


def _kind_of(items: list[Item], name: str) -> str:
    values = [each.get(name) for each in items]
    numbers = all(isinstance(each, int) and not isinstance(each, bool) for each in values if each is not None)
    return "integer" if numbers and any(each is not None for each in values) else "string"


def _is_table(field: Field) -> bool:
    return field.kind == "[object]" or field.kind.strip("[]") in RESOURCES


def _hint(value: Any) -> str | None:
    return plain(value["hint"]) if isinstance(value, dict) and value.get("hint") else None

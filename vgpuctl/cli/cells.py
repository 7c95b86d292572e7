"""A field's value as text: for a table's cell, a line of a view, or a CSV field."""

from __future__ import annotations

import re
from typing import Any

from vgpuctl.surface import Field

NULL = "-"
UNKNOWN = "?"
_SECONDS = re.compile(r"\.\d+Z$")
"""What is left out of a time that a person reads."""
_NOTHING: tuple[Any, ...] = (None, "", [], {})


def is_number(field: Field) -> bool:
    """Whether a column of it is aligned to the right."""
    return field.kind == "integer"


def text_of(field: Field, item: dict[str, Any]) -> str:
    """For people: `-` for null and nothing, `?` for what could not be read."""
    value = item.get(field.name)
    if value is None and field.name in (item.get("unknown") or {}):
        return UNKNOWN
    if field.kind == "time" and isinstance(value, str):
        return _SECONDS.sub("Z", printable(value))
    return plain(value) or NULL


def csv_of(field: Field, item: dict[str, Any]) -> str:
    """For programs: empty for null, `?` for what could not be read."""
    value = item.get(field.name)
    if value is None:
        return UNKNOWN if field.name in (item.get("unknown") or {}) else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return plain(value)


def plain(value: Any) -> str:
    """Any JSON value on one line, without a character that a terminal would act on."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return ",".join(plain(each) for each in value)
        case dict():
            return _object(value)
        case _:
            return printable(str(value))


def printable(text: str) -> str:
    """`text` with control characters replaced: names come from guests, and a name must not clear a screen."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _object(value: dict[str, Any]) -> str:
    if "detail" in value:
        return plain(value["detail"])
    if "name" in value and ("type" in value or "profile" in value):
        return f"{plain(value['name'])} ({plain(value.get('type') or value.get('profile')) or UNKNOWN})"
    if "name" in value:
        return plain(value["name"])
    return " ".join(f"{name}={plain(each)}" for name, each in value.items() if each not in _NOTHING)

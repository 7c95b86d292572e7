"""JSON values as YAML text: block style, and quotes wherever any YAML reader could see something else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# A letter first: `0000:41:00.0` would be a base-60 number in YAML 1.1.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@+-]*(?:[ :][A-Za-z0-9_./@+-]+)*\Z")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def dump(value: Any) -> str:
    """One YAML document."""
    return "".join(f"{line}\n" for line in _lines(value))


def dump_all(documents: list[Any]) -> str:
    """Several YAML documents in one text."""
    return "---\n".join(dump(each) for each in documents)


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _entry(f"{_scalar(str(name))}:", each, indent="  ")
    elif isinstance(value, list) and value:
        for each in value:
            if isinstance(each, dict | list) and each:
                for number, line in enumerate(_lines(each)):
                    yield ("  " if number else "- ") + line
            else:
                yield f"- {_scalar(each)}"
    else:
        yield _scalar(value)


def _entry(head: str, value: Any, *, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield head
        yield from (indent + line for line in _lines(value))
    else:
        yield f"{head} {_scalar(value)}"


def _scalar(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            text = repr(value)
            return text if "e" not in text or "." in text else text.replace("e", ".0e")
        case dict():
            return "{}"
        case list():
            return "[]"
        case _:
            return _string(str(value))


def _string(text: str) -> str:
    if _PLAIN.match(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(_character(each) for each in text) + '"'


def _character(each: str) -> str:
    if each in '"\\':
        return "\\" + each
    if each == "\n":
        return "\\n"
    if each.isprintable():
        return each
    code = ord(each)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

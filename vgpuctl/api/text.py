"""YAML and JSON text to plain values, with the line of every value, and nothing guessed.

YAML 1.1, as PyYAML resolves it, reads the unquoted address `0000:41:00.0` as the number 2460.0 and `no`
as false; only null, true, false, decimal numbers and text are known here.  Anchors and tags are refused.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from vgpuctl.api.faults import Fault, Path, dotted, refuse

MAX_DEPTH = 32

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"(?:\.[0-9]+|[-+]?(?:0|[1-9][0-9]*)\.[0-9]*)(?:[eE][-+][0-9]+)?")
"""No more than PyYAML takes for one: it writes -.0 and 1.0e5 without quotes where they are text."""


@dataclass(slots=True)
class Read:
    """One document as it was read: its value, the line of each path, and what is wrong with the text."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[tuple[Path, str]] = field(default_factory=list)

    def line_of(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def decode(text: str | bytes, source: str) -> str:
    """`text` as UTF-8; InvalidInput when it is something else."""
    if isinstance(text, str):
        _refuse_half_characters(text, source)
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refuse(source, [Fault("", f"is not UTF-8 text (byte {error.start})")]) from error


def read_json(text: str | bytes, source: str) -> Any:
    """The JSON value of `text`; InvalidInput with line and column, also for a key that stands twice."""
    faults: list[Fault] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        counted = Counter(key for key, _ in items)
        faults.extend(Fault(key, "stands twice") for key, times in counted.items() if times > 1)
        return dict(items)

    def constant(name: str) -> Any:
        faults.append(Fault("", f"{name} is no JSON number"))

    raw = decode(text, source)
    try:
        value = json.loads(raw, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise refuse(source, [Fault("", f"{error.msg}, column {error.colno}", line=error.lineno)]) from error
    except (RecursionError, ValueError) as error:
        raise refuse(source, [Fault("", f"cannot be read: {error}")]) from error
    if faults:
        raise refuse(source, faults)
    if "\\u" in raw:
        _refuse_half_characters(value, source)
    return value


def _refuse_half_characters(value: Any, source: str) -> None:
    """Half a surrogate pair, as an escape can write it, is no text: no file and no log takes it."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        text = "has half of a surrogate pair in it, which is no text"
        raise refuse(source, [Fault("", text)]) from error


def is_json(text: str) -> bool:
    """Whether `text` is JSON, whose escapes YAML does not know; what is not quite JSON may be YAML."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def read_yaml(text: str | bytes, source: str) -> list[Read]:
    """The documents of a YAML text (JSON is YAML too); InvalidInput with line and column."""
    raw = decode(text, source)
    try:
        found = list(_documents(yaml.parse(raw, Loader=_LOADER), source))
    except yaml.MarkedYAMLError as error:
        what = " ".join(part for part in (error.problem, error.context) if part)
        mark = error.problem_mark
        column, line = ("", None) if mark is None else (f", column {mark.column + 1}", mark.line + 1)
        fault = Fault("", f"is not YAML: {what}{column}", line=line)
        raise refuse(source, [fault]) from error
    except yaml.YAMLError as error:
        raise refuse(source, [Fault("", f"is not YAML: {error}")]) from error
    if "\\" in raw:
        _refuse_half_characters([each.value for each in found], source)
    return found


def _documents(events: Iterator[Any], source: str) -> Iterator[Read]:
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            read = Read()
            read.value = _Builder(events, read, source).value(next(events), ())
            yield read


@dataclass(frozen=True, slots=True)
class _Builder:
    events: Iterator[Any]
    read: Read
    source: str

    def value(self, event: Any, path: Path) -> Any:
        self.read.lines[path] = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return self.fault(path, "anchors and aliases are not supported; write it out")
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            self.fault(path, f"tags such as {event.tag} are not supported")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event.value) if event.implicit[0] and event.tag is None else event.value
        if len(path) >= MAX_DEPTH:
            fault = Fault(dotted(path[:3]) + "...", f"is nested more than {MAX_DEPTH} deep")
            raise refuse(self.source, [fault])
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path)
        return self.mapping(path)

    def sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.value(event, (*path, len(items))))
        return items

    def mapping(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self.value(event, path)
                self.value(next(self.events), path)
                self.fault(path, "has a key that is no plain text")
                continue
            key: str = event.value
            mark: Any = event.start_mark
            if key in found:
                self.fault((*path, key), f"stands twice (first in line {self.read.lines[(*path, key)]})")
                self.value(next(self.events), (*path, key))
                continue
            found[key] = None
            found[key] = self.value(next(self.events), (*path, key))
            self.read.lines[(*path, key)] = mark.line + 1
        return found

    def fault(self, path: Path, message: str) -> None:
        self.read.faults.append((path, message))


def _scalar(text: str) -> Any:
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text

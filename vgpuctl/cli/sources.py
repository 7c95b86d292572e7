"""Files of documents, sent to the daemon as one text; what is wrong with it is told by file and line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgpuctl.errors import InvalidInput

STDIN = "-"


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    text: str
    first_line: int
    """Of the joined text, from 1."""


class Sources:
    """Some files, read.  Raises InvalidInput where one cannot be."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._files: list[_File] = []
        line = 1
        for name in names:
            text = _read(name)
            if self._files and not text.startswith("---"):
                line += 1  # for the mark that `joined` puts before it
            self._files.append(_File("stdin" if name == STDIN else name, text, line))
            line += text.count("\n") + 1

    def joined(self) -> str:
        """All of them as one text: each begins a new document."""
        head, *rest = (each.text for each in self._files)
        return "\n".join([head, *(each if each.startswith("---") else f"---\n{each}" for each in rest)])

    @contextmanager
    def told(self) -> Iterator[None]:
        """Have what the daemon finds wrong with the text told by file and line of that file."""
        try:
            yield
        except InvalidInput as error:
            faults = error.facts.get("faults")
            if isinstance(faults, list) and all(isinstance(each, dict) for each in faults):
                raise self._located(error, faults) from None
            raise

    def _located(self, error: InvalidInput, faults: list[dict[str, Any]]) -> InvalidInput:
        found = [self._fault(each) for each in faults]
        names = ", ".join(dict.fromkeys(each["file"] for each in found))
        message = f"{names}: {len(found)} faults" if len(found) > 1 else _said(found[0])
        return InvalidInput(message, hint=error.hint, **{**error.facts, "faults": found})

    def _fault(self, fault: dict[str, Any]) -> dict[str, Any]:
        line = fault.get("line")
        if not isinstance(line, int):
            return {"file": ", ".join(each.name for each in self._files), **fault}
        file = next(each for each in reversed(self._files) if each.first_line <= max(line, 1))
        return {"file": file.name, **fault, "line": line - file.first_line + 1}


def _said(fault: dict[str, Any]) -> str:
    from vgpuctl.cli.fault import fault_line  # noqa: PLC0415 - json is not needed where nothing fails

    return fault_line(fault)


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == STDIN else Path(name).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}") from error

"""Errors as the user sees them, on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from vgpuctl.cli.cells import printable
from vgpuctl.cli.folding import fold
from vgpuctl.cli.session import Session, talk
from vgpuctl.cli.style import width_of
from vgpuctl.errors import VgpuctlError


def tell(session: Session, error: VgpuctlError) -> int:
    """Write `error` to stderr, as a problem document under -o json; the exit status that it asks for."""
    if session.format == "json":
        talk(json.dumps(error.to_problem(), ensure_ascii=False))
        return error.exit_status
    paint = session.paint_talk()
    first, *rest = error.message.splitlines() or [error.title]
    _say("vgpuctl:", first, "  ", paint.red)
    for line in rest:
        _say(" ", line, "  ")
    for fault in _faults(error):
        _say("  -", fault, "    ")
    more = len(error.facts.get("problems") or []) - 1
    if more > 0:
        _say("  and", f"{more} more cannot be done; --dry-run shows all", "    ")
    if error.hint:
        _say("  hint:", error.hint, "    ", paint.bold)
    return error.exit_status


def _say(mark: str, text: str, rest: str, paint: Callable[[str], str] = str) -> None:
    """`text` behind `mark`, which alone is painted, in lines that fit the terminal."""
    lines = fold(printable(text), width_of(sys.stderr), first=f"{mark} ", rest=rest)
    word = mark.lstrip()
    talk("\n".join([lines[0].replace(word, paint(word), 1), *lines[1:]]))


def _faults(error: VgpuctlError) -> list[str]:
    """Each fault on a line; none where the message has said the only one."""
    found = [
        fault_line(each) if isinstance(each, dict) else str(each) for each in error.facts.get("faults") or []
    ]
    return [] if len(found) == 1 and found[0] in error.message else found


def fault_line(fault: dict[str, Any]) -> str:
    """One fault: `FILE:LINE: document: path: what would be right`, as far as they are known."""
    file, line = fault.get("file"), fault.get("line")
    place = ":".join(str(each) for each in (file, line) if each) if file else f"line {line}" if line else None
    parts = (place, *(fault.get(name) for name in ("document", "path", "message")))
    return ": ".join(str(each) for each in parts if each)

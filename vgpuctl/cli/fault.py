"""Errors as the user sees them, on stderr."""

from __future__ import annotations

import json

from vgpuctl.cli.cells import printable
from vgpuctl.cli.session import Session, talk
from vgpuctl.errors import VgpuctlError


def tell(session: Session, error: VgpuctlError) -> int:
    """Write `error` to stderr, as a problem document under -o json; the exit status that it asks for."""
    if session.format == "json":
        talk(json.dumps(error.to_problem(), ensure_ascii=False))
        return error.exit_status
    paint = session.paint_talk()
    first, *rest = error.message.splitlines() or [error.title]
    talk(f"{paint.red('vgpuctl:')} {printable(first)}")
    for line in rest:
        talk(f"  {printable(line)}")
    for fault in _faults(error):
        talk(f"  - {printable(fault)}")
    if error.hint:
        talk(f"  {paint.bold('hint:')} {printable(error.hint)}")
    return error.exit_status


def _faults(error: VgpuctlError) -> list[str]:
    """Each fault on a line; none where the message has said the only one."""
    found = [_fault(each) for each in error.facts.get("faults") or []]
    return [] if len(found) == 1 and found[0] in error.message else found


def _fault(fault: object) -> str:
    if not isinstance(fault, dict):
        return str(fault)
    return ": ".join(str(fault[name]) for name in ("document", "path", "message") if fault.get(name))

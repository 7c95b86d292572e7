"""The steps of an operation on a terminal, as they are done."""

from __future__ import annotations

from typing import Any, TextIO

from vgpuctl.cli.cells import plain
from vgpuctl.cli.style import Paint, has_unicode


class Progress:
    """Writes a line for each step that ended, and one that is written over for the one that runs."""

    def __init__(self, stream: TextIO, paint: Paint) -> None:
        self._stream = stream
        self._paint = paint
        self._told: set[tuple[int, int]] = set()
        self._temporary = False
        self._marks = ("\N{CHECK MARK}", "\N{BALLOT X}") if has_unicode(stream) else ("ok", "failed")

    def seen(self, operation: dict[str, Any]) -> None:
        """Tell what is new in `operation`."""
        steps = operation.get("steps") or []
        for step in steps:
            key = (step.get("round", 1), step["number"])
            if step.get("state") not in ("done", "failed") or key in self._told:
                continue
            self._told.add(key)
            self.clear()
            failed = step["state"] == "failed"
            mark = self._paint.red(self._marks[1]) if failed else self._paint.green(self._marks[0])
            self._stream.write(f"  {mark} {plain(step.get('summary'))}\n")
        running = [plain(step.get("summary")) for step in steps if step.get("state") == "running"]
        if running:
            self.clear()
            self._stream.write(f"  ... {', '.join(running)}"[:78])
            self._temporary = True
        self._stream.flush()

    def clear(self) -> None:
        """Take back the line of the step that runs."""
        if self._temporary:
            self._stream.write("\r\x1b[K")
            self._temporary = False

"""What the terminal can show: colour, width, and which characters."""

from __future__ import annotations

import os
from typing import TextIO

ROOMY = 100
"""Columns from which on a table may show what is only good to know."""

_GOOD = frozenset({"present", "ready", "running", "succeeded", "done", "match"})
_WAITING = frozenset(
    {"absent", "pending", "vfs-off", "paused", "drift", "rolling-back", "planned", "foreign", "reserved"}
)
_BAD = frozenset(
    {"no-driver", "parked", "conflict", "failed", "unknown", "needs-operator", "unreadable", "cancelled", "?"}
)


def wants_colour(stream: TextIO, mode: str) -> bool:
    """Whether `stream` is painted.  `mode` (auto, always, never) wins; then NO_COLOR; then being forced."""
    if mode != "auto":
        return mode == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if any(os.environ.get(name, "0") != "0" for name in ("CLICOLOR_FORCE", "FORCE_COLOR")):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_unicode(stream: TextIO) -> bool:
    """Whether block characters can be written to `stream`."""
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


def width_of(stream: TextIO) -> int | None:
    """Columns of the terminal; None where `stream` is not one, and nothing is ever shortened."""
    if not stream.isatty():
        return None
    import shutil  # noqa: PLC0415 - loads every archive format

    return shutil.get_terminal_size().columns


class Paint:
    """Escape sequences around text, or none."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled

    def _in(self, sequence: str, text: str) -> str:
        return f"\x1b[{sequence}m{text}\x1b[0m" if self.enabled and text.strip() else text

    def bold(self, text: str) -> str:
        """Headings."""
        return self._in("1", text)

    def dim(self, text: str) -> str:
        """What is there for completeness."""
        return self._in("2", text)

    def red(self, text: str) -> str:
        """What failed."""
        return self._in("31", text)

    def green(self, text: str) -> str:
        """What is well."""
        return self._in("32", text)

    def yellow(self, text: str) -> str:
        """What is to come."""
        return self._in("33", text)

    def word(self, text: str) -> str:
        """A state, in the colour of what it means; any other text as it is."""
        word = text.strip()
        if word in _GOOD:
            return self.green(text)
        if word in _WAITING:
            return self.yellow(text)
        return self.red(text) if word in _BAD else text

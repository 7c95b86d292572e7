"""How long a restore that failed is not tried again, and why it failed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

FIRST_S = 60.0
MOST_S = 3600.0


class Backoff:
    """A pause for each name that a restore did not bring back; it doubles with each failure.

    Times are of the monotonic clock: at boot the time of day may be hours wrong, and is then put right.
    """

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, float]] = {}
        self._why: dict[str, dict[str, Any]] = {}

    def is_over(self, name: str, now_s: float) -> bool:
        """Whether that name may be tried again."""
        return name not in self._until or self._until[name][0] <= now_s

    def why(self, name: str) -> dict[str, Any] | None:
        """The problem that kept that name away; None where it was not tried, or came back."""
        return self._why.get(name)

    def note(self, tried: Iterable[str], failed: Collection[str], now_s: float, why: dict[str, Any]) -> None:
        """Remember which of the names that were tried have failed."""
        for name in tried:
            _, wait = self._until.pop(name, (now_s, FIRST_S))
            self._why.pop(name, None)
            if name in failed:
                self._until[name] = (now_s + wait, min(wait * 2, MOST_S))
                self._why[name] = why

    def forget(self, names: Iterable[str]) -> None:
        """Let those be tried again at once: what they failed at is no longer so."""
        for name in names:
            self._until.pop(name, None)
            self._why.pop(name, None)

    def forget_all_but(self, wished: Collection[str]) -> None:
        """Forget vGPUs that nobody wishes any longer; what names a document has a slash, and stays."""
        self._until = {name: until for name, until in self._until.items() if name in wished or "/" in name}
        self._why = {name: why for name, why in self._why.items() if name in self._until}

"""A fact is a value or a named UNKNOWN; UNKNOWN is neither false nor zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, Union

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that could not be read, and why."""

    reason: str

    def __bool__(self) -> bool:
        """Refuse to be taken for false: the caller has to say what UNKNOWN means there."""
        msg = f"UNKNOWN ({self.reason}) is neither true nor false"
        raise TypeError(msg)


NOT_READ = Unknown("not read")

Fact = Union[T, Unknown]
"""A value, or the reason why it is not known."""


def known(fact: Fact[T]) -> T | None:
    """The value, or None where it is not known."""
    return None if isinstance(fact, Unknown) else fact

"""The order of names in which people count: desk-2 before desk-10."""

from __future__ import annotations

import re
from typing import Union

_DIGITS = re.compile(r"([0-9]+)")


def natural(name: str) -> tuple[Union[str, int], ...]:
    """A key to sort by; names that differ in leading zeros only stay apart."""
    parts = _DIGITS.split(name)
    return (*(int(each) if number % 2 else each for number, each in enumerate(parts)), name)

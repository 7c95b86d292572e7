"""Pseudonyms for what identifies a site: serials, GPU and VM UUIDs, mdev UUIDs, domain names."""

from __future__ import annotations

import hmac
import re
from typing import Any
from uuid import UUID

_UUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE)
_SERIAL = re.compile(r"(\bserial(?:[ _]number)?[ \t]*[:=][ \t]*)\S+", re.IGNORECASE)


class Pseudonyms:
    """One name for one thing: the same input gives the same pseudonym under the same `key`.

    Another key gives others, so that two captures of one host cannot be joined, and a short name
    cannot be guessed and checked.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def uuid(self, text: str) -> str:
        """A UUID in place of another, whatever its case."""
        return str(UUID(bytes=self._digest(text.lower())[:16], version=4))

    def name(self, kind: str, text: str) -> str:
        """`<kind>-<8 hexadecimal digits>` in place of a name."""
        return f"{kind}-{self._digest(text).hex()[:8]}"

    def text(self, text: str) -> str:
        """The text with every UUID and serial in it replaced."""
        replaced = _UUID.sub(lambda match: self.uuid(match[0]), text)
        return _SERIAL.sub(lambda match: f"{match[1]}redacted", replaced)

    def document(self, value: Any) -> Any:
        """A JSON value with all its texts, keys too, replaced."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.text(key): self.document(each) for key, each in value.items()}
            case list():
                return [self.document(each) for each in value]
            case _:
                return value

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode(), "sha256")

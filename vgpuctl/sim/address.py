"""Socket paths of any length."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ADDRESS_MAX = 107
"""Bytes in the address of a unix socket (unix(7)); a state directory may lie deeper."""


@contextmanager
def address_of(socket: Path) -> Iterator[str]:
    """The path of a socket, short enough to bind or connect to while in this context."""
    if len(os.fsencode(socket)) <= _ADDRESS_MAX:
        yield str(socket)
        return
    directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{socket.name}"
    finally:
        os.close(directory)

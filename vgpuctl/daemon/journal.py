"""The journal's native protocol: one datagram a message, with fields that can be asked for."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import re
import socket
from collections.abc import Mapping
from typing import Any

SOCKET = "/run/systemd/journal/socket"

_PATIENCE_S = 0.25
"""How long a journal may take that has no room: whoever logs waits for it, the decision loop too."""

MESSAGE_IDS = {
    "operation admitted": "6b8defb2a194422584592f4e06c11401",
    "operation ended": "b6d0f360966d4feea7ab7aeb61b0ed5c",
    "step done": "40cdd6b5b3054cf69c6424859c7fb0b2",
    "step failed": "74ce980c91764b8da58d33b6bb0fe7bf",
    "drift": "7c89f0c8b7a44ebd9f4d8ae1d1be2918",
    "drift gone": "f47854699d3049c79cd91bdf682f2623",
    "a vGPU is missing": "bec8359c8b1c44098c71e948cce76ce6",
    "the first restore is over": "4dfa21f1fae84df1b5f00a45cbfb9b73",
    "libvirt is gone": "6dc343dfa7cc4b21a528d1aab0a5aca9",
}
"""What an event is known by, whatever words are found for it one day; docs/service.md lists them."""

_OWN = ("event", "level", "timestamp", "exception")
_PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


def is_stderr(environ: Mapping[str, str], fd: int = 2) -> bool:
    """Whether `fd` leads to the journal, as systemd says in JOURNAL_STREAM."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def fields_of(event: Mapping[str, Any]) -> dict[str, str]:
    """A structlog event as journal fields: `gpu` becomes VGPUCTL_GPU, and all of it the MESSAGE.

    What is None says nothing, and has no field.
    """
    rest = {key: value for key, value in event.items() if key not in _OWN and value is not None}
    what = str(event.get("event", ""))
    words = [what, *(f"{key}={value}" for key, value in sorted(rest.items()))]
    message = " ".join(words)
    if "exception" in event:
        message += f"\n{event['exception']}"
    fields = {
        "MESSAGE": message,
        "PRIORITY": str(_PRIORITIES.get(str(event.get("level")), 6)),
        "SYSLOG_IDENTIFIER": "vgpuctl",
    }
    if what in MESSAGE_IDS:
        fields["MESSAGE_ID"] = MESSAGE_IDS[what]
    fields.update({f"VGPUCTL_{_field_name(key)}": str(value) for key, value in rest.items()})
    return fields


def encode(fields: Mapping[str, str]) -> bytes:
    """The fields as the journal reads them; a value with a line break goes with its length."""
    parts = []
    for name, value in fields.items():
        raw = value.encode("utf-8", "backslashreplace")
        if b"\n" in raw:
            parts.append(name.encode() + b"\n" + len(raw).to_bytes(8, "little") + raw + b"\n")
        else:
            parts.append(name.encode() + b"=" + raw + b"\n")
    return b"".join(parts)


class Journal:
    """A structlog logger that writes to the journal."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(_PATIENCE_S)

    def write(self, event: Mapping[str, Any]) -> None:
        """Send one event; a journal that is away, or hangs, loses it, and nothing else happens."""
        data = encode(fields_of(event))
        try:
            self._socket.sendto(data, self._address)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                with contextlib.suppress(OSError):
                    self._send_as_file(data)

    def _send_as_file(self, data: bytes) -> None:
        """What is too large for a datagram goes as a sealed memory file."""
        fd = os.memfd_create("vgpuctl-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(fd, data)
            # F_ADD_SEALS with SEAL, SHRINK, GROW and WRITE, which journald insists on.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0x1 | 0x2 | 0x4 | 0x8)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
            self._socket.sendmsg([], [rights], 0, self._address)
        finally:
            os.close(fd)

    debug = info = warning = error = critical = msg = write


def _field_name(key: str) -> str:
    return re.sub(r"[^A-Z0-9_]", "_", key.upper())[:48]

"""The journal's protocol, against a socket that listens in its place."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from pathlib import Path

import pytest
import structlog

from vgpuctl.daemon import journal, logs

TOP = Path(__file__).parents[2]


def decode(data: bytes) -> dict[str, str]:
    """What journald makes of a datagram."""
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
            data = rest
        else:
            name, size = line, int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + size], rest[9 + size :]
        fields[name.decode()] = value.decode()
    return fields


def test_an_event_becomes_fields_that_can_be_asked_for() -> None:
    event = {
        "event": "step done",
        "level": "warning",
        "gpu": "0000:41:00.0",
        "operation": "o1",
        "domain": None,
        "timestamp": "t",
    }
    fields = decode(journal.encode(journal.fields_of(event)))
    assert fields["VGPUCTL_GPU"] == "0000:41:00.0"
    assert fields["VGPUCTL_OPERATION"] == "o1"
    assert fields["MESSAGE"] == "step done gpu=0000:41:00.0 operation=o1"
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"]) == ("4", "vgpuctl")
    assert fields["MESSAGE_ID"] == journal.MESSAGE_IDS["step done"]
    assert not {"VGPUCTL_TIMESTAMP", "VGPUCTL_DOMAIN"} & set(fields)


def test_every_event_with_an_id_is_logged_somewhere() -> None:
    """In these words; docs/service.md has the same ids."""
    code = "".join(path.read_text() for path in (TOP / "vgpuctl").rglob("*.py") if path.name != "journal.py")
    page = (TOP / "docs/service.md").read_text()
    for event, number in journal.MESSAGE_IDS.items():
        assert re.search(rf'\(\s*"{re.escape(event)}"', code), event
        assert f"| {event} | `{number}` |" in page
    assert len(re.findall(r"`[0-9a-f]{32}`", page)) == len(set(journal.MESSAGE_IDS.values()))


def test_line_breaks_do_not_forge_fields() -> None:
    event = {"event": "x\nPRIORITY=0", "domain": "a\nMESSAGE=b", "level": "info"}
    fields = decode(journal.encode(journal.fields_of(event)))
    assert fields["PRIORITY"] == "6"
    assert fields["VGPUCTL_DOMAIN"] == "a\nMESSAGE=b"


def test_a_message_too_large_for_a_datagram_goes_as_a_file(tmp_path: Path) -> None:
    address = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.settimeout(10)
        writer = journal.Journal(address)
        writer.info({"event": "small"})
        assert decode(listening.recv(1 << 16))["MESSAGE"] == "small"
        writer.info({"event": "x" * 1_000_000})
        data, fds, _, _ = socket.recv_fds(listening, 1 << 16, 1)
        assert data == b""
        with os.fdopen(fds[0], "rb") as file:
            file.seek(0)
            assert decode(file.read())["MESSAGE"] == "x" * 1_000_000


def test_a_journal_that_is_away_is_no_error(tmp_path: Path) -> None:
    address = str(tmp_path / "nobody")
    writer = journal.Journal(address)
    writer.error({"event": "lost"})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.settimeout(10)
        writer.error({"event": "heard"})
        assert decode(listening.recv(1 << 16))["MESSAGE"] == "heard"


def test_a_journal_that_hangs_holds_up_nobody_for_long(tmp_path: Path) -> None:
    """It waits for its disk now and then: then the queue of its socket is full."""
    address = str(tmp_path / "journal")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hanging,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other,
    ):
        hanging.bind(address)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"x", address)
        writing = threading.Thread(
            target=journal.Journal(address).error, args=({"event": "lost"},), daemon=True
        )
        writing.start()
        writing.join(20)
        assert not writing.is_alive()


def test_under_systemd_the_log_goes_to_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "journal")
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    monkeypatch.setattr(journal, "SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.settimeout(10)
        try:
            structlog.contextvars.clear_contextvars()
            logs.configure("info")
            log = structlog.get_logger("x")
            log.debug("too quiet")
            log.error("broken", gpu="g", exc_info=ZeroDivisionError("by nothing"))
            fields = decode(listening.recv(1 << 16))
        finally:
            structlog.reset_defaults()
    assert fields["MESSAGE"] == "broken gpu=g\nZeroDivisionError: by nothing"
    assert fields["PRIORITY"] == "3"


def test_a_stream_that_is_not_the_journals() -> None:
    assert not journal.is_stderr({})
    assert not journal.is_stderr({"JOURNAL_STREAM": "1:1"})

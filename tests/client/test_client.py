"""The client: requests as the daemon sees them, and what becomes of every way in which it fails."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.fakedaemon import FakeDaemon, Raw
from vgpuctl.client.address import SYSTEM_SOCKET, socket_path
from vgpuctl.client.client import Client, at
from vgpuctl.errors import (
    Conflict,
    DaemonUnreachable,
    DeadlineExceeded,
    Denied,
    GpuNotFound,
    InvalidInput,
    NotFound,
    Unavailable,
    VgpuctlError,
)


def test_parameters_as_the_daemon_sees_them(daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/v1/types"] = []
    assert Client(daemon.host).get("/v1/types", gpu="a b&c", creatable=True, catalog=False, more=None) == []
    assert daemon.requests[-1].query == {"gpu": "a b&c", "creatable": "1"}


@pytest.mark.parametrize("name", ["0000:41:00.0", "a/b", "dotted..", "ünï cöde", "50%", "?x=1#y"])
def test_any_name_can_stand_in_a_path(name: str, daemon: FakeDaemon) -> None:
    daemon.answers["GET", f"/v1/vgpus/{name}"] = {"name": name}
    assert Client(daemon.host).get(at("vgpus", name)) == {"name": name}


@pytest.mark.parametrize("segments", [("vgpus", ""), ("domains", "", "xml")])
def test_no_name_names_nothing(segments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="a name is empty"):
        at(*segments)


def test_body_and_headers(daemon: FakeDaemon) -> None:
    daemon.answers["POST", "/v1/plans"] = {"id": "p"}
    assert Client(daemon.host).post("/v1/plans", {"a": "ü"}, headers={"If-Match": '"3"'}) == {"id": "p"}
    request = daemon.requests[-1]
    assert request.body == {"a": "ü"}
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["If-Match"] == '"3"'


def test_refusals_are_errors_with_their_facts(daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/v1/gpus/9"] = GpuNotFound("no GPU 9", hint="there are 0 to 2", gpus=3)
    with pytest.raises(GpuNotFound) as caught:
        Client(daemon.host).get("/v1/gpus/9")
    assert (caught.value.message, caught.value.hint) == ("no GPU 9", "there are 0 to 2")
    assert caught.value.facts == {"gpus": 3}


@pytest.mark.parametrize("facts", [7, None, {"message": "x"}])
def test_facts_that_are_none(facts: object, daemon: FakeDaemon) -> None:
    problem = GpuNotFound("no GPU 9").to_problem() | {"facts": facts}
    daemon.answers["GET", "/v1"] = Raw(json.dumps(problem).encode(), 404)
    with pytest.raises(GpuNotFound, match="no GPU 9"):
        Client(daemon.host).get("/v1")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (403, Denied),
        (404, NotFound),
        (409, Conflict),
        (418, InvalidInput),
        (502, Unavailable),
    ],
)
@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[1]", b"", b'{"code"'])
def test_refusals_without_a_reason(
    status: int, kind: type[VgpuctlError], body: bytes, daemon: FakeDaemon
) -> None:
    daemon.answers["GET", "/v1"] = Raw(body, status)
    with pytest.raises(kind):
        Client(daemon.host).get("/v1")


def test_text_is_text(daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/v1/x"] = Raw(b"<domain/>", 200, "application/xml; charset=utf-8")
    assert Client(daemon.host).get("/v1/x") == "<domain/>"


def test_a_daemon_that_hangs_up_may_have_heard(daemon: FakeDaemon) -> None:
    daemon.answers["POST", "/v1/pause"] = Raw(None)
    with pytest.raises(DaemonUnreachable) as caught:
        Client(daemon.host).post("/v1/pause")
    assert caught.value.facts["sent"] is True


def test_a_reply_that_is_cut_off(daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/v1"] = Raw(b"{}", 200)
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"
    with _speaking(daemon.path.with_name("cut"), cut) as path, pytest.raises(DaemonUnreachable):
        Client(str(path)).get("/v1")


def test_a_reply_that_is_no_json(daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/v1"] = Raw(b"{oops", 200)
    with pytest.raises(DaemonUnreachable, match="not JSON"):
        Client(daemon.host).get("/v1")


def test_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    """connect() on a unix socket with a time limit fails at once where the backlog is full."""
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(tmp_path / "busy"))
        busy.listen(0)
        first.connect(str(tmp_path / "busy"))
        with pytest.raises(DaemonUnreachable, match="temporarily unavailable"):
            Client(str(tmp_path / "busy"), connect_timeout_s=0.05).get("/v1")

        def serve() -> None:
            busy.accept()[0].close()
            connection, _address = busy.accept()
            with connection:
                connection.recv(65536)  # closing a socket with words unread resets it
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nword")

        waiting = threading.Timer(0.2, serve)
        waiting.start()
        assert Client(str(tmp_path / "busy")).get("/v1") == "word"
        waiting.join(10)


def test_something_else_answers(tmp_path: Path) -> None:
    with (
        _speaking(tmp_path / "ssh", b"SSH-2.0-OpenSSH_9.2\r\n") as path,
        pytest.raises(DaemonUnreachable),
    ):
        Client(str(path)).get("/v1")


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable) as caught:
        Client(str(tmp_path / "none")).get("/v1")
    assert "sent" not in caught.value.facts
    assert "systemctl status vgpuctl" in (caught.value.hint or "")


def test_a_socket_that_was_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(DaemonUnreachable, match="connection refused"):
        Client(str(path)).get("/v1")


def test_a_path_that_is_too_long_for_a_socket() -> None:
    with pytest.raises(DaemonUnreachable, match="too long"):
        Client("/tmp/" + "x" * 200).get("/v1")


def test_a_daemon_that_does_not_answer_in_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        with pytest.raises(DeadlineExceeded):
            Client(str(tmp_path / "mute"), reply_timeout_s=0.05).get("/v1")


def test_a_socket_that_is_not_for_this_user(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else for a moment")
    with _speaking(tmp_path / "root-only", b"") as path:
        path.chmod(0o600)
        for parent in [tmp_path, *tmp_path.parents[:2]]:
            parent.chmod(0o755)
        # The interpreter and the package are loaded first: nobody may not be able to read them.
        code = (
            "import os, sys\nfrom vgpuctl.client.client import Client\nfrom vgpuctl.errors import Denied\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            f"try: Client({str(path)!r}).get('/v1')\nexcept Denied as e: print(e.hint)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
    assert "group vgpuctl" in done.stdout


def test_stream_passes_over_signs_of_life(daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/v1/events"] = Raw(
        b'{"revision": 1}\n\n\n{"revision": 2}\n', 200, "application/x-ndjson"
    )
    assert list(Client(daemon.host).stream("/v1/events", follow=1)) == [{"revision": 1}, {"revision": 2}]


def test_stream_refused(daemon: FakeDaemon) -> None:
    with pytest.raises(NotFound):
        next(iter(Client(daemon.host).stream("/v1/events")))


def test_trace_tells_both_ways(daemon: FakeDaemon) -> None:
    daemon.answers["POST", "/v1/plans"] = {}
    said: list[str] = []
    Client(daemon.host, trace=said.append).post("/v1/plans", {"action": "adopt"}, dry_run=True)
    assert said[0] == '> POST /v1/plans?dry_run=1 {"action": "adopt"}'
    assert said[1].startswith("< 200 application/json, 2 bytes")


def test_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert socket_path("unix:///a/b") == "/a/b"
    assert socket_path("/a/b") == "/a/b"
    for wrong in ("https://hv-07", "unix://a", "hv-07"):
        with pytest.raises(InvalidInput):
            socket_path(wrong)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert socket_path(None) == SYSTEM_SOCKET
    own = tmp_path / "vgpuctl" / "vgpuctl.sock"
    own.parent.mkdir()
    own.touch()
    assert socket_path(None) == str(own)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert socket_path(None) == str(own), "as the daemon, where nobody logged in has a runtime directory"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert socket_path(None) == SYSTEM_SOCKET


@contextmanager
def _speaking(path: Path, words: bytes) -> Iterator[Path]:
    """Somebody who says just `words` to whoever connects, and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def speak() -> None:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(words)

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_a_slow_answer_is_told_of_once(daemon: FakeDaemon) -> None:
    """A person before a silent terminal learns what is waited for, once in a run."""
    told: list[str] = []
    asked = threading.Event()

    def late(_request: object) -> object:
        assert asked.wait(30)
        return {}

    daemon.answers["GET", "/v1/host"] = late

    def slow(text: str) -> None:
        told.append(text)
        asked.set()

    client = Client(daemon.host, slow=slow, patience_s=0.01)
    client.get("/v1/host")
    client.get("/v1/host")
    assert told == [f"no answer yet from the daemon at {daemon.path}: it may be at what was asked before ..."]


@pytest.mark.parametrize(("method", "may_happen"), [("GET", False), ("POST", True)])
def test_only_a_change_may_still_happen(method: str, may_happen: bool, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        with pytest.raises(DeadlineExceeded) as refused:
            Client(str(tmp_path / "mute"), reply_timeout_s=0.05).request(method, "/v1/plans", {})
    assert ("may still happen" in refused.value.message) is may_happen
    assert "stopped" in (refused.value.hint or "")


def test_a_stream_that_falls_silent_ends(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        with pytest.raises(DeadlineExceeded):
            list(Client(str(tmp_path / "mute"), reply_timeout_s=0.05).stream("/v1/events", follow=1))

"""The server on its unix socket, over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vgpuctl.daemon import server as module
from vgpuctl.daemon.server import BACKLOG, BODY_BYTES, HEADER_BYTES, UnixServer, admit_readers, open_socket
from vgpuctl.errors import Conflict, InvalidInput


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(str(self.path))


def tell_environ(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({key: value for key, value in environ.items() if key.startswith("X_REMOTE")}).encode()]


@contextlib.contextmanager
def serving(path: Path, **options: Any) -> Iterator[UnixServer]:
    server = UnixServer(path, tell_environ, threads=3, **options)
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)


def ask(path: Path) -> dict[str, str]:
    connection = UnixConnection(path)
    try:
        connection.request("GET", "/", headers={"X-Remote-Uid": "4711"})
        answer: dict[str, str] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


def test_every_request_has_the_credentials_of_its_connection(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(path):
        assert ask(path) == {
            "X_REMOTE_PID": str(os.getpid()),
            "X_REMOTE_UID": str(os.getuid()),
            "X_REMOTE_GID": str(os.getgid()),
        }
    assert not path.exists()


def test_connections_that_say_nothing_do_not_use_up_all_descriptors(tmp_path: Path) -> None:
    def open_files() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    def connect() -> None:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        clients.enter_context(client)
        for _ in range(50):
            try:
                client.connect(str(tmp_path / "s"))
                break
            except BlockingIOError:  # the backlog is full just now
                time.sleep(0.01)

    with serving(tmp_path / "s"), contextlib.ExitStack() as clients:
        before, many = open_files(), 2 * BACKLOG + 10
        for _ in range(many):
            connect()
        assert open_files() - before - many <= BACKLOG + 5


def test_a_socket_that_systemd_passed_keeps_credentials(tmp_path: Path) -> None:
    """ecosystem.md B0.6: taken for AF_INET, the peer credentials silently vanish."""
    path = tmp_path / "s"
    passed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    passed.bind(str(path))
    passed.listen()
    with serving(path, inherited=passed):
        assert ask(path)["X_REMOTE_UID"] == str(os.getuid())
    assert path.exists(), "systemd's socket file is systemd's"


def test_the_socket_is_for_its_group_only(tmp_path: Path) -> None:
    with open_socket(tmp_path / "deep" / "s"):
        assert stat.S_IMODE((tmp_path / "deep" / "s").stat().st_mode) == 0o660
        assert [each.name for each in (tmp_path / "deep").iterdir()] == ["s"]


def test_readers_are_let_in_by_an_acl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_gid", lambda _group: 4242)
    path = tmp_path / "s"
    path.touch(mode=0o660)
    admit_readers(path)
    acl = os.getxattr(path, "system.posix_acl_access")
    entries = list(struct.iter_unpack("<HHI", acl[4:]))
    assert (0x08, 6, 4242) in entries
    assert (0x20, 0, 0xFFFFFFFF) in entries


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    open_socket(path).close()
    with serving(path):
        with pytest.raises(Conflict, match="another daemon answers"):
            open_socket(path)
        assert ask(path)


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(Conflict, match="no socket"):
        open_socket(path)
    assert path.read_text() == "precious"


def test_another_daemons_socket_file_is_left_at_stop(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(path):
        path.unlink()
        other = open_socket(path)
    assert path.exists()
    other.close()


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="too long"):
        open_socket(tmp_path / ("x" * 120))


def test_a_place_where_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot listen at"):
        open_socket(tmp_path / "file" / "s")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * (HEADER_BYTES + 1) + b" HTTP/1.1\r\n", b" 41"),
        (b"GET / HTTP/1.1\r\nX-Much: " + b"a" * (HEADER_BYTES + 1) + b"\r\n", b" 413"),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n" % (BODY_BYTES + 1), b" 413"),
    ],
    ids=["line", "header", "body"],
)
def test_what_is_too_much_is_not_taken_in(head: bytes, status: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(path):
        with socket.socket(socket.AF_UNIX) as much:
            much.connect(str(path))
            much.settimeout(10)
            with contextlib.suppress(BrokenPipeError):
                much.sendall(head + b"Host: x\r\n\r\n")
            assert status in much.recv(1000).split(b"\r\n")[0]
        assert ask(path)


def test_a_client_that_sends_nonsense_does_not_hurt(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(path):
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(path))
            rude.sendall(b"\x00\xff\r\n\r\n")
            assert b"400" in rude.recv(1000)
        assert ask(path)

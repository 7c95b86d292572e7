"""A daemon for the tests: HTTP over a real unix socket, with answers laid down beforehand."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from vgpuctl.errors import NotFound, VgpuctlError


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass(frozen=True)
class Raw:
    """An answer that is not plain JSON: bytes under a status; `None` hangs up without a word."""

    body: bytes | None
    status: int = 200
    media_type: str = "application/json"


Answer = Any | Callable[[Request], Any]


@dataclass
class FakeDaemon:
    """Answers by method and path; an exception as an answer becomes a problem document.

    A list under `in_turn` is answered one after the other, its last one for ever.
    """

    path: Path
    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    in_turn: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    heard: threading.Condition = field(default_factory=threading.Condition)

    @property
    def host(self) -> str:
        return f"unix://{self.path}"

    def calls(self, method: str, path: str) -> list[Request]:
        return [each for each in self.requests if (each.method, each.path) == (method, path)]

    def wait_for(self, method: str, path: str) -> None:
        """Return once such a request has come in."""
        with self.heard:
            assert self.heard.wait_for(lambda: self.calls(method, path), timeout=30)

    def answer(self, request: Request) -> Any:
        with self.heard:
            self.requests.append(request)
            self.heard.notify_all()
            key = (request.method, request.path)
            turns = self.in_turn.get(key)
            if turns:
                given = turns.pop(0) if len(turns) > 1 else turns[0]
            elif key in self.answers:
                given = self.answers[key]
            else:
                given = NotFound(f"nothing at {request.method} {request.path}")
        return given(request) if callable(given) else given


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    daemon: FakeDaemon

    def log_message(self, *_args: Any) -> None:
        pass

    def address_string(self) -> str:
        return "unix"

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        target = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        given = self.daemon.answer(
            Request(
                self.command,
                unquote(target.path),
                dict(parse_qsl(target.query)),
                json.loads(raw) if raw else None,
                dict(self.headers.items()),
            )
        )
        if isinstance(given, VgpuctlError):
            problem = json.dumps(given.to_problem()).encode()
            given = Raw(problem, given.http_status, "application/problem+json")
        if not isinstance(given, Raw):
            given = Raw(json.dumps(given).encode())
        self.close_connection = True
        if given.body is None:
            return
        self.send_response(given.status)
        self.send_header("Content-Type", given.media_type)
        if given.media_type != "application/x-ndjson":
            self.send_header("Content-Length", str(len(given.body)))
        self.end_headers()
        self.wfile.write(given.body)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_args: Any) -> None:
        """A client that leaves early is what some tests are about."""


@contextmanager
def serving(path: Path) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(path)
    handler = type("Handler", (_Handler,), {"daemon": fake})
    server = _Server(str(path), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()

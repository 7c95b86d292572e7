"""A simulated host in a process of its own, so that a killed daemon finds devices as a kernel keeps them.

    python -m vgpuctl.sim.server --socket SOCKET --state FILE [--cards SPEC]

Every change is in FILE before anybody sees its result: a server that was killed goes on where it was.
It leaves by itself when nobody has been connected for some seconds.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import socket
import socketserver
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from vgpuctl.errors import VgpuctlError
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.codec import DecodeError, dumps, loads
from vgpuctl.sim import wire
from vgpuctl.sim.address import address_of
from vgpuctl.sim.engine import Engine
from vgpuctl.sim.models import ModelSource
from vgpuctl.sim.spec import Spec, from_json, initial_state, parse
from vgpuctl.sim.state import State

IDLE_S = 10.0
_POLL_S = 0.2


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves one engine, a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, engine: Engine, source: ModelSource) -> None:
        self.engine = engine
        self.source = source
        self._lock = threading.Lock()
        self._connections = 0
        self._idle_since = time.monotonic()
        path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            with address_of(path) as address:
                super().__init__(address, Connection)
        finally:
            os.umask(old)
        self.timeout = _POLL_S

    def serve_until_idle(self, idle_s: float) -> None:
        """Serve until nobody has been connected for `idle_s`."""
        while not self._is_idle(idle_s):
            self.handle_request()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Count the connection before anybody looks whether there is one, then serve it."""
        with self._lock:
            self._connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The connection has ended."""
        super().shutdown_request(request)
        with self._lock:
            self._connections -= 1
            self._idle_since = time.monotonic()

    def _is_idle(self, idle_s: float) -> bool:
        with self._lock:
            return not self._connections and time.monotonic() - self._idle_since > idle_s


class Connection(socketserver.StreamRequestHandler):
    """One connection: a line in, a line out."""

    server: Server

    def handle(self) -> None:
        """Answer until the other side goes away."""
        try:
            for line in self.rfile:
                self.connection.sendall(self._answer(line))
        except OSError:
            return

    def _answer(self, line: bytes) -> bytes:
        try:
            return self._do(wire.unpack(line))
        except TimeoutError:
            return wire.pack({"timeout": True})
        except OSError as error:
            return wire.pack({"errno": error.errno, "about": error.filename or ""})
        except VgpuctlError as error:
            return wire.pack({"problem": error.to_problem()})
        except (ValueError, TypeError, KeyError) as error:
            return wire.pack({"problem": VgpuctlError(f"simulated host: {error!r}").to_problem()})

    def _do(self, message: dict[str, Any]) -> bytes:
        engine = self.server.engine
        match message:
            case {"call": str(verb), "arguments": list(arguments)}:
                result = engine.call(
                    verb, *arguments, timeout_s=message.get("timeout_s"), is_gone=self._is_gone
                )
                return wire.pack_result(verb, result)
            case {"control": str(action), "arguments": dict(arguments)}:
                return wire.pack({"result": engine.control(action, arguments)})
            case {"events": since, "wait_s": wait_s}:
                return wire.pack_result("events", engine.events(since, wait_s))
            case {"install": data}:
                _install(engine, from_json(data), self.server.source)
                return wire.pack({"result": True})
            case _:
                raise ValueError("not a message")

    def _is_gone(self) -> bool:
        """Whether the caller has hung up while it was blocked."""
        ready, _, _ = select.select([self.connection], [], [], 0)
        return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)


def is_same(state: State, spec: Spec) -> bool:
    """Whether the host in `state` was made from that specification."""
    return replace(from_json(state.spec), capture=state.capture) == spec


def _install(engine: Engine, spec: Spec, source: ModelSource) -> None:
    if not is_same(engine.state, spec):
        engine.install(initial_state(spec, source, uuid4()))


def load(path: Path) -> State | None:
    """The state that was saved there, None when there is none; raises DecodeError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    state: State = loads(text, State)
    return state


def save(path: Path, state: State) -> None:
    """Put `state` in the place of what was saved; never half of it."""
    new = path.with_name(path.name + ".new")
    new.write_text(dumps(state, State), encoding="utf-8")
    new.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Serve until idle; 0 also where another server has this host already."""
    parser = argparse.ArgumentParser(prog="vgpuctl.sim.server")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--cards", help="what to simulate; needed when there is no state yet")
    parser.add_argument("--idle-s", type=float, default=IDLE_S)
    options = parser.parse_args(arguments)
    options.state.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{options.state}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        try:
            return _serve(options)
        except (VgpuctlError, DecodeError, OSError) as error:
            sys.stderr.write(f"vgpuctl.sim.server: {error}\n")
            return 1


def _serve(options: argparse.Namespace) -> int:
    source = Catalog()
    state = load(options.state)
    spec = None if options.cards is None else parse(options.cards)
    if spec is None and state is None:
        sys.stderr.write("vgpuctl.sim.server: no state yet: say with --cards what to simulate\n")
        return 2
    if state is None or (spec is not None and not is_same(state, spec)):
        assert spec is not None
        state = initial_state(spec, source, uuid4())
        save(options.state, state)
    engine = Engine(state, source, save=lambda changed: save(options.state, changed))
    with Server(options.socket, engine, source) as server:
        server.serve_until_idle(options.idle_s)
        options.socket.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A socket by which the connection plugin in `connection/` reaches a machine of the rig."""

from __future__ import annotations

import base64
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def relayed(machine: Any, socket: Path, *, timeout_s: float) -> Iterator[None]:
    """Run in the machine whatever comes to the socket, a command a connection, each at most so long."""

    class Command(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked = json.loads(self.rfile.readline())
            stdin = base64.b64decode(asked["stdin"])
            status, output = machine.sh(asked["command"], stdin=stdin, timeout_s=timeout_s)
            self.wfile.write(json.dumps({"status": status, "output": output}).encode() + b"\n")

    with socketserver.ThreadingUnixStreamServer(str(socket), Command) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()

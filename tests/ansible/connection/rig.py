"""A connection: commands and files go to a machine of the rig, by its test (tests/ansible/relay.py)."""

from __future__ import annotations

import base64
import json
import shlex
import socket
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: rig
short_description: A machine of the rig
description: For the tests.
options:
  relay:
    description: The socket of whoever speaks to the machine.
    vars: [{name: rig_relay}]
"""
PIECE_BYTES = 1 << 20


class Connection(ConnectionBase):
    transport = "rig"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._ask(cmd, in_data or b"")

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        to = shlex.quote(out_path)
        self._must(f": >{to}")
        with Path(in_path).open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                self._must(f"cat >>{to}", piece)

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        Path(out_path).write_bytes(self._must(f"cat {shlex.quote(in_path)}"))

    def close(self):
        self._connected = False

    def _must(self, command, stdin=b""):
        status, output, _ = self._ask(command, stdin)
        if status:
            raise AnsibleConnectionFailure(output.decode())
        return output

    def _ask(self, command, stdin):
        """Exit status, what was printed on both streams, and nothing."""
        with socket.socket(socket.AF_UNIX) as relay:
            relay.connect(self.get_option("relay"))
            with relay.makefile("rw") as stream:
                stdin = base64.b64encode(stdin).decode()
                stream.write(json.dumps({"command": command, "stdin": stdin}) + "\n")
                stream.flush()
                reply = json.loads(stream.readline())
        return reply["status"], reply["output"].encode(), b""

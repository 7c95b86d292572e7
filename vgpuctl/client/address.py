"""Where the daemon is."""

from __future__ import annotations

import os

from vgpuctl.errors import InvalidInput

SYSTEM_SOCKET = "/run/vgpuctl/vgpuctl.sock"


def default_socket() -> str:
    """The socket of the system's daemon; for an ordinary user the own daemon's, where there is one."""
    if os.geteuid() != 0:
        # pathlib costs start-up time.
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111
        for directory in filter(None, (os.environ.get("XDG_RUNTIME_DIR"), home)):
            own = os.path.join(directory, "vgpuctl", "vgpuctl.sock")  # noqa: PTH118
            if os.path.exists(own):  # noqa: PTH110
                return own
    return SYSTEM_SOCKET


def socket_path(host: str | None) -> str:
    """The socket that `host` names: `unix://PATH`, an absolute path, or None for the default.

    Raises InvalidInput for anything else.
    """
    if not host:
        return default_socket()
    path = host.removeprefix("unix://")
    if path.startswith("/"):
        return path
    raise InvalidInput(
        f"{host!r} does not name a daemon",
        hint="give unix:///PATH/TO/SOCKET; for another machine use: ssh HOST vgpuctl ...",
    )

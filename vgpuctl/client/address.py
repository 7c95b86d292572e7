"""Where the daemon is."""

from __future__ import annotations

import os

from vgpuctl.errors import InvalidInput

SYSTEM_SOCKET = "/run/vgpuctl/vgpuctl.sock"


def default_socket() -> str:
    """The socket of the system's daemon; for an ordinary user the own daemon's, where there is one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if os.geteuid() != 0 and runtime:
        own = os.path.join(runtime, "vgpuctl", "vgpuctl.sock")  # noqa: PTH118 - pathlib costs start-up time
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

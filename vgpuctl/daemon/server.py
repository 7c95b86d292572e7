"""The HTTP server on its unix socket: credentials per request, and a socket file that is ours alone."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any

import cheroot.wsgi
import structlog

from vgpuctl.api.access import OPERATE_GROUP, READ_GROUP
from vgpuctl.api.app import MAX_BODY_BYTES
from vgpuctl.errors import Conflict, InvalidInput

BACKLOG = 128
HEADER_BYTES = 64 << 10
BODY_BYTES = 4 * MAX_BODY_BYTES
"""What is not even taken in; a body between the two is refused in words."""
_PATH_MAX = 107
_MODE = 0o660
_log = structlog.get_logger("vgpuctl.server")


class UnixServer(cheroot.wsgi.Server):
    """A threaded WSGI server on a unix socket, its own or one that systemd passed."""

    def __init__(
        self,
        path: Path,
        app: Any,
        *,
        threads: int = 52,
        inherited: socket.socket | None = None,
    ) -> None:
        super().__init__(
            str(path),
            app,
            numthreads=threads,
            server_name="vgpuctl",
            request_queue_size=BACKLOG,
            shutdown_timeout=5,
            # Without a bound every connection is taken in, also the one for which no descriptor is left.
            accepted_queue_size=BACKLOG,
            peercreds_enabled=True,
        )
        self.keep_alive_conn_limit = 128
        # Without limits cheroot takes in whatever is sent, before it is known who sends it.
        self.max_request_header_size = HEADER_BYTES
        self.max_request_body_size = BODY_BYTES
        self.software = "vgpuctl"
        self._path = path
        self._inherited = inherited
        self._identity: tuple[int, int] | None = None

    def bind_unix_socket(self, _bind_addr: str) -> socket.socket:
        """Listen on the socket that systemd passed, else on one made at our path."""
        listening = self._inherited
        if listening is not None:
            admit_readers(self._path)
        else:
            listening = open_socket(self._path)
            found = self._path.lstat()
            self._identity = (found.st_dev, found.st_ino)
        self.socket = listening
        return listening

    def stop(self) -> None:
        """Serve no more, and take the socket file away unless another has put its own there."""
        super().stop()
        if self._identity is None:
            return
        try:
            found = self._path.lstat()
            if (found.st_dev, found.st_ino) == self._identity:
                self._path.unlink()
        except FileNotFoundError:
            pass  # somebody has taken it away already
        self._identity = None

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """What cheroot has to say goes to our log; a client that left is no news."""
        _log.log(level, "http server", detail=msg, exc_info=traceback)


def open_socket(path: Path) -> socket.socket:
    """A listening socket at `path`, for its group; a stale one is replaced.

    Conflict when somebody answers there, or when what is there is no socket.  It is made beside its
    place and moved there: nobody ever sees it with other rights or not listening.
    """
    refuse_live(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    if len(os.fsencode(beside)) > _PATH_MAX:
        raise InvalidInput(
            f"the socket's path is too long: {path}", hint=f"a unix socket has at most {_PATH_MAX} bytes"
        )
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        os.fchmod(made.fileno(), 0o600)
        made.bind(str(beside))
        gid = _gid(OPERATE_GROUP)
        if gid is not None and os.geteuid() == 0:
            os.chown(beside, -1, gid)
        beside.chmod(_MODE)
        admit_readers(beside)
        made.listen(BACKLOG)
        beside.rename(path)
    except OSError as error:
        made.close()
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise InvalidInput(
            f"cannot listen at {path}: {error.strerror}", hint="name another --socket"
        ) from error
    return made


def admit_readers(path: Path) -> None:
    """Let group vgpuctl-ro connect too, by an ACL: the mode has room for one group only."""
    gid = _gid(READ_GROUP)
    if gid is None:
        return
    nobody, rw = 0xFFFFFFFF, 6
    entries = [(0x01, rw, nobody), (0x04, rw, nobody), (0x08, rw, gid), (0x10, rw, nobody), (0x20, 0, nobody)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError as error:
        _log.warning("group vgpuctl-ro cannot connect", reason=str(error), socket=str(path))


def refuse_live(path: Path) -> None:
    """Conflict when somebody answers at `path`, or when what is there is no socket."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        # Nothing there, or not for us to see: listening there says what is wrong with it.
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"{path} is there and is no socket", hint="name another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            # Refused: nobody listens.  Anything else (a full backlog, a timeout) may be somebody alive.
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return
    raise Conflict(f"another daemon answers at {path}", hint="stop it, or name another --socket")


def _gid(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None

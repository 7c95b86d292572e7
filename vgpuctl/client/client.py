"""`Client`: requests to the daemon, and its refusals as errors."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from vgpuctl.client.address import socket_path
from vgpuctl.client.connection import UnixConnection
from vgpuctl.errors import (
    Conflict,
    DaemonUnreachable,
    DeadlineExceeded,
    Denied,
    InvalidInput,
    NotFound,
    Unavailable,
    VgpuctlError,
)

CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 60.0
"""Longer than any read of the daemon takes: its own deadlines are below it."""
PATIENCE_S = 3.0
"""After so long without an answer a person wants to know what is waited for."""

_NOT_RUNNING = (
    "is it running? `systemctl status vgpuctl`; to try it without a GPU: `vgpuctl daemon --simulate l40s`"
)
_STUCK = "is it stopped or stuck? `systemctl status vgpuctl`, `journalctl -u vgpuctl`"
_OTHER = "is it a vgpuctl daemon that answers?"
_BY_STATUS: dict[int, type[VgpuctlError]] = {400: InvalidInput, 403: Denied, 404: NotFound, 409: Conflict}


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of the daemon: status, media type and body."""

    status: int
    media_type: str
    body: bytes

    def value(self) -> Any:
        """The body as JSON says it; text where it is not JSON; None where there is none."""
        if not self.body:
            return None
        text = self.body.decode("utf-8", "replace")
        return _json(text) if self.media_type.endswith("json") else text


class Client:
    """The daemon at `host` (see `address.socket_path`).  `trace` is told of every call.

    `slow` is told once, in words, when an answer takes long.

    Every method raises what the daemon refuses with, DaemonUnreachable where none answers, Denied
    where the socket is not for this user, and DeadlineExceeded where the reply does not come.
    """

    def __init__(
        self,
        host: str | None = None,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        reply_timeout_s: float = REPLY_TIMEOUT_S,
        trace: Callable[[str], None] | None = None,
        slow: Callable[[str], None] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.path = socket_path(host)
        self._connect_timeout_s = connect_timeout_s
        self._reply_timeout_s = reply_timeout_s
        self._trace = trace or (lambda _text: None)
        self._slow = slow
        self._patience_s = patience_s

    def get(self, path: str, *, reply_timeout_s: float | None = None, **params: Any) -> Any:
        """What stands at `path`.  Parameters that are None or False are left out; True is 1."""
        return self.request("GET", path, params=params, reply_timeout_s=reply_timeout_s).value()

    def post(
        self, path: str, body: Any = None, *, headers: dict[str, str] | None = None, **params: Any
    ) -> Any:
        """Send `body` as JSON, and return the answer."""
        return self.request("POST", path, body, params=params, headers=headers).value()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        reply_timeout_s: float | None = None,
    ) -> Reply:
        """One request and its whole reply; a reply of 400 and above is raised."""
        started = time.monotonic()
        connection, response = self._send(
            method,
            path,
            body,
            params=params or {},
            headers=headers or {},
            reply_timeout_s=reply_timeout_s or self._reply_timeout_s,
        )
        try:
            reply = Reply(response.status, _media_type(response), response.read())
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error, sent=True, changes=method != "GET") from error
        finally:
            connection.close()
        took_ms = (time.monotonic() - started) * 1000
        self._trace(f"< {reply.status} {reply.media_type}, {len(reply.body)} bytes, {took_ms:.0f} ms")
        if reply.status >= 400:
            raise _refusal(reply)
        return reply

    def stream(self, path: str, **params: Any) -> Iterator[Any]:
        """The JSON values that the daemon sends line by line, for as long as it sends."""
        # The daemon sends a blank line now and then: a stream that is silent for long has none behind it.
        connection, response = self._send(
            "GET", path, None, params=params, headers={}, reply_timeout_s=self._reply_timeout_s
        )
        try:
            if response.status >= 400:
                raise _refusal(Reply(response.status, _media_type(response), response.read()))
            for line in response:
                if line.strip():  # blank lines say only that the daemon is alive
                    yield _json(line)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error, sent=True) from error
        finally:
            connection.close()

    def _send(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        params: dict[str, Any],
        headers: dict[str, str],
        reply_timeout_s: float | None,
    ) -> tuple[UnixConnection, http.client.HTTPResponse]:
        query = {
            name: 1 if value is True else value
            for name, value in params.items()
            if value is not None and value is not False
        }
        target = f"{path}?{urlencode(query)}" if query else path
        payload = None if body is None else json.dumps(body).encode()
        self._trace(f"> {method} {target}" + (f" {payload.decode()}" if payload else ""))
        connection = UnixConnection(self.path, self._connect_timeout_s, reply_timeout_s)
        sent = False
        try:
            connection.connect()
            sent = True
            all_headers = {"Accept": "application/json", **headers}
            if payload is not None:
                all_headers["Content-Type"] = "application/json"
            connection.request(method, target, payload, all_headers)
            if "wait" not in query:
                self._tell_when_slow(connection)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._broken(error, sent=sent, changes=method != "GET") from error

    def _tell_when_slow(self, connection: UnixConnection) -> None:
        if self._slow is None or connection.answers_within(self._patience_s):
            return
        self._slow(f"no answer yet from the daemon at {self.path}: it may be at what was asked before ...")
        self._slow = None

    def _broken(self, error: Exception, *, sent: bool, changes: bool = False) -> VgpuctlError:
        """Why the daemon at this socket could not be talked to.

        `sent`: it may have been heard.  `changes`: what was asked would have changed something.
        """
        if isinstance(error, PermissionError):
            return Denied(
                f"no permission for {self.path}",
                hint="operating takes root or the group vgpuctl, reading the group vgpuctl-ro",
            )
        if isinstance(error, TimeoutError) and sent:
            what = f"the daemon at {self.path} did not answer in time"
            return DeadlineExceeded(
                f"{what}; what was asked may still happen" if changes else what,
                hint=f"{_STUCK}, then `vgpuctl operation list`" if changes else _STUCK,
            )
        if sent:
            return DaemonUnreachable(
                f"the daemon at {self.path} hung up",
                hint="see `journalctl -u vgpuctl`, and `vgpuctl operation list` once it runs",
                sent=True,
            )
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        return DaemonUnreachable(f"no daemon answers at {self.path}: {reason}", hint=_NOT_RUNNING)


def at(*segments: str) -> str:
    """The path under /v1 that has these segments, whatever characters are in them; an empty one is refused.

    Such a path would be that of the whole list, as a `"$GPU"` that a script did not set.
    """
    if "" in segments:
        raise InvalidInput("a name is empty", hint="is a variable not set?")
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)


def _media_type(response: http.client.HTTPResponse) -> str:
    return (response.getheader("Content-Type") or "").partition(";")[0].strip()


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DaemonUnreachable(f"what the daemon said is not JSON: {error}", hint=_OTHER) from error


def _refusal(reply: Reply) -> VgpuctlError:
    try:
        value = reply.value()
    except DaemonUnreachable:
        value = None
    if isinstance(value, dict) and "code" in value:
        try:
            return VgpuctlError.from_problem(value)
        except TypeError:  # facts that are none: the code and the text still stand
            return VgpuctlError.from_problem({**value, "facts": {}})
    kind = _BY_STATUS.get(reply.status, Unavailable if reply.status >= 500 else InvalidInput)
    return kind(f"HTTP status {reply.status}, without a reason", hint=_OTHER)

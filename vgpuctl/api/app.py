"""The HTTP application: routes of `surface`, bound to their handlers, with access and problems."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import falcon
import structlog

from vgpuctl.api import problems
from vgpuctl.api.access import Access, Caller, require_operate
from vgpuctl.api.faults import Fault, refuse
from vgpuctl.api.handlers import HANDLERS, Backend, Call, Reply
from vgpuctl.api.query import read_query
from vgpuctl.api.text import read_json
from vgpuctl.errors import NotFound
from vgpuctl.surface import ROUTES, Route

App = falcon.App[falcon.Request, falcon.Response]

MAX_BODY_BYTES = 4 * 1024 * 1024

_log = structlog.get_logger("vgpuctl.api")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def create_app(backend: Backend, access: Access) -> App:
    """The WSGI application of the API."""
    app: App = falcon.App(middleware=[_Gate(access)])
    app.req_options.strip_url_path_trailing_slash = True
    problems.install(app)
    resources: dict[str, _Resource] = {}
    for route in ROUTES:
        resource = resources.setdefault(route.path, _Resource())
        responder = _responder(route, backend)
        setattr(resource, f"on_{route.method.lower()}", responder)
        if route.method == "GET":
            setattr(resource, "on_head", responder)  # noqa: B010  (falcon looks responders up by name)
    for path, resource in resources.items():
        app.add_route(path, resource)
    return app


class _Resource:
    """The methods of one path; `create_app` puts them on."""


class _Gate:
    """Middleware: who asks, under which request id, and one line in the debug log."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Name the request, and turn away whoever may not even read."""
        given = req.get_header("X-Request-Id") or ""
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        req.context.started_s = time.monotonic()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        resp.set_header("X-Request-Id", request_id)
        req.context.caller = self._access.identify(req.env)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, _resource: object, _succeeded: bool
    ) -> None:
        """Write the access log."""
        caller: Caller | None = getattr(req.context, "caller", None)
        who = caller.requester if caller else None
        _log.debug(
            "request",
            method=req.method,
            path=req.path,
            status=resp.status_code,
            duration_ms=round((time.monotonic() - req.context.started_s) * 1000, 1),
            uid=who.uid if who else None,
            pid=who.pid if who else None,
        )


_Responder = Callable[..., None]


def _responder(route: Route, backend: Backend) -> _Responder:
    handler = HANDLERS[route.method, route.path]

    def respond(req: falcon.Request, resp: falcon.Response, **path: str) -> None:
        caller: Caller = req.context.caller
        if route.operate:
            require_operate(caller)
        if any("\0" in each for each in path.values()):
            raise NotFound("no name has a NUL in it")
        query = read_query(route.method, route.path, req.query_string)
        if req.method == "HEAD":
            query.pop("follow", None)
        call = Call(
            backend=backend,
            caller=caller,
            path=path,
            query=query,
            body=lambda: _json_body(req),
            if_match=req.get_header("If-Match"),
            idempotency_key=_idempotency_key(req),
        )
        _answer(resp, handler(call))

    return respond


def _answer(resp: falcon.Response, reply: Reply) -> None:
    resp.status = reply.status
    for name, value in reply.headers.items():
        resp.set_header(name, value)
    resp.set_header("Cache-Control", "no-store")
    if reply.stream is not None:
        resp.content_type = "application/x-ndjson"
        resp.stream = reply.stream
        return
    resp.content_type = "application/json"
    resp.data = json.dumps(reply.value).encode()


def _json_body(req: falcon.Request) -> Any:
    """The JSON body, whatever its content type says; None when there is none."""
    raw = _read_body(req)
    return read_json(raw, "request") if raw.strip() else None


def _read_body(req: falcon.Request) -> bytes:
    """The whole body, of a known length or chunked; 413 when it is too large."""
    stream = req.stream if req.env.get("wsgi.input_terminated") else req.bounded_stream
    raw: bytes = stream.read(MAX_BODY_BYTES + 1) or b""
    if len(raw) > MAX_BODY_BYTES:
        _drain(stream)
        raise problems.too_large(MAX_BODY_BYTES)
    return raw


def _drain(stream: Any) -> None:
    """Take in some of what is too much: a client that is cut off while sending never sees the answer."""
    for _ in range(64):
        if not stream.read(1024 * 1024):
            return


def _idempotency_key(req: falcon.Request) -> str | None:
    key = req.get_header("Idempotency-Key")
    if key is not None and _IDEMPOTENCY_KEY.fullmatch(key) is None:
        raise refuse("request", [Fault("Idempotency-Key", "must be 1 to 255 printable characters, no space")])
    return key

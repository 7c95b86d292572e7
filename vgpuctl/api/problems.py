"""Errors as RFC 9457 problem documents, whoever raised them."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import falcon
import structlog

from vgpuctl.errors import InvalidInput, NotFound, Unavailable, VgpuctlError

_log = structlog.get_logger("vgpuctl.api")


def install(app: falcon.App[falcon.Request, falcon.Response]) -> None:
    """Let `app` answer every error with a problem."""
    app.add_error_handler(Exception, _unexpected)
    app.add_error_handler(falcon.HTTPError, _http)
    app.add_error_handler(VgpuctlError, _refused)


def too_large(limit_bytes: int) -> falcon.HTTPError:
    """The body is larger than it may be."""
    return falcon.HTTPContentTooLarge(description=f"a body has at most {limit_bytes} bytes")


def _refused(_req: falcon.Request, resp: falcon.Response, error: VgpuctlError, _params: Any) -> None:
    if error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("request failed", code=error.code, reason=error.message, **_subjects(error))
    if isinstance(error, Unavailable):
        resp.set_header("Retry-After", "1")
    _answer(resp, error.to_problem())


def _http(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, _params: Any) -> None:
    """What HTTP itself refuses: no such route, no such method, a body that is too large."""
    status = error.status_code
    if status == HTTPStatus.NOT_FOUND:
        problem = NotFound(
            f"there is nothing at {req.path}", hint="GET /v1/openapi.json lists the routes"
        ).to_problem()
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = dict(error.headers or {})
        problem = InvalidInput(
            f"{req.method} does not go with {req.path}",
            hint=f"allowed here: {allowed.get('Allow', 'nothing')}",
        ).to_problem()
    else:
        problem = InvalidInput(error.description or error.title or "bad request").to_problem()
    problem |= {"title": HTTPStatus(status).phrase, "status": status}
    if error.headers:
        resp.set_headers(error.headers)
    _answer(resp, problem)


def _unexpected(_req: falcon.Request, resp: falcon.Response, error: Exception, _params: Any) -> None:
    """A fault of ours: the log gets the traceback, the caller an id to find it by."""
    error_id = uuid4().hex
    _log.error("unexpected error", error_id=error_id, exc_info=error)
    problem = VgpuctlError(
        "something went wrong inside vgpuctl",
        hint=f"the daemon's log has the details under error_id={error_id}",
        error_id=error_id,
    ).to_problem()
    _answer(resp, problem)


def _answer(resp: falcon.Response, problem: dict[str, Any]) -> None:
    resp.status = int(problem["status"])
    resp.content_type = "application/problem+json"
    resp.data = json.dumps(problem, default=str).encode()


def _subjects(error: VgpuctlError) -> dict[str, Any]:
    return {key: error.facts[key] for key in ("operation", "gpu", "domain") if key in error.facts}

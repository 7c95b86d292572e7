"""The application over a stub service, and a check of every answer against its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import falcon.testing
import pytest
import structlog
from jsonschema import Draft202012Validator

from tests.api.stub import StubService
from vgpuctl.api import openapi
from vgpuctl.api.access import Access, Account
from vgpuctl.api.app import create_app
from vgpuctl.api.handlers import Backend
from vgpuctl.api.waiting import Waiting
from vgpuctl.surface import ROUTES

ACCOUNTS = {
    1000: Account("operator", frozenset({"users", "vgpuctl"})),
    1001: Account("reader", frozenset({"users", "vgpuctl-ro"})),
    1002: Account("stranger", frozenset({"users"})),
}


def strict(schema: Any) -> Any:
    """The schema with every described object closed: a field that nobody described is a fault."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if "properties" in schema and "type" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


@dataclass
class Caller:
    """Calls the application as one user; every answer has to be what the schema says."""

    app: Any
    uid: int = 1000
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> falcon.testing.Result:
        environ = {"X_REMOTE_PID": "42", "X_REMOTE_UID": str(self.uid), "X_REMOTE_GID": str(self.uid)}
        if body is not None and not isinstance(body, str | bytes):
            body = json.dumps(body)
        result = falcon.testing.simulate_request(self.app, method, path, body=body, extras=environ, **options)
        if method != "HEAD":
            check_answer(method, path, result)
        return result


def route_of(method: str, path: str) -> str | None:
    """The template of `surface.ROUTES` that a path belongs to."""
    parts = path.partition("?")[0].split("/")
    fits = [
        route.path
        for route in ROUTES
        if route.method == method
        and len(route.path.split("/")) == len(parts)
        and all(a == b or a.startswith("{") for a, b in zip(route.path.split("/"), parts, strict=True))
    ]
    return min(fits, key=lambda each: each.count("{"), default=None)


def check_answer(method: str, path: str, result: falcon.testing.Result) -> None:
    """Assert that an answer is one that the OpenAPI document describes."""
    document = openapi.describe()
    kind = result.headers["content-type"].partition(";")[0]
    template = route_of(method, path)
    if result.status_code >= 400 or template is None:
        assert kind == "application/problem+json", result.text
        schema: dict[str, Any] = {"$ref": "#/components/schemas/Problem"}
        assert result.json["status"] == result.status_code
    else:
        answers = document["paths"][template][method.lower()]["responses"]
        schema = answers[str(result.status_code)]["content"][kind]["schema"]
    validator = Draft202012Validator(strict(schema | {"components": document["components"]}))
    values = (
        [json.loads(line) for line in result.text.splitlines() if line]
        if kind == "application/x-ndjson"
        else [result.json]
    )
    for value in values:
        assert [error.message for error in validator.iter_errors(value)] == []


@pytest.fixture(autouse=True)
def plain_log() -> Iterator[None]:
    """One line an event on stdout, with plain tracebacks."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
        cache_logger_on_first_use=False,
    )
    yield
    structlog.reset_defaults()


@pytest.fixture
def service() -> StubService:
    return StubService()


@pytest.fixture
def waiting() -> Waiting:
    return Waiting(heartbeat_s=0.0)


@pytest.fixture
def backend(service: StubService, waiting: Waiting) -> Backend:
    return Backend(service, waiting)


@pytest.fixture
def call(backend: Backend) -> Iterator[Caller]:
    access = Access(own_uid=0, account=lambda uid, _gid: ACCOUNTS[uid])
    yield Caller(create_app(backend, access))
    backend.waiting.end()

"""This API as OpenAPI 3.1, generated from `surface` (resources, routes) and `schema` (what users send)."""

from __future__ import annotations

import functools
import re
from typing import Any

from pydantic.json_schema import models_json_schema

import vgpuctl
from vgpuctl.api.query import PARAMETERS, Parameter
from vgpuctl.api.schema import DOCUMENTS, EDITS, HookShape, PlanReferenceShape, Shape
from vgpuctl.errors import VgpuctlError
from vgpuctl.surface import RESOURCES, ROUTES, Field, Resource, Route

_PREFIX = "#/components/schemas/"
_KINDS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "time": {"type": "string", "format": "date-time"},
    "uuid": {"type": "string", "format": "uuid"},
}
_PARAMETER_KINDS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "boolean": {"type": "string", "enum": ["0", "1", "true", "false"]},
    "integer": {"type": "integer", "minimum": 0},
    "seconds": {"type": "number", "minimum": 0},
}
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "An RFC 9457 problem; `code` is stable, its text is not.",
    "required": ["type", "title", "status", "code", "detail", "exit_status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable."},
        "detail": {"type": "string"},
        "hint": {"type": "string", "description": "What to try next."},
        "facts": {"type": "object"},
        "exit_status": {"type": "integer", "description": "With which the CLI ends."},
    },
}
_BODIES = {"/v1/plans": "Edit", "/v1/operations": "OperationRequest", "/v1/hook": "HookShape"}
_EDITED = {"/v1/plans", "/v1/operations"}


def describe() -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vgpuctl",
            "version": vgpuctl.__version__,
            "summary": "NVIDIA virtual GPUs on a libvirt/KVM host",
            "description": "Served on the unix socket /run/vgpuctl/vgpuctl.sock. Callers are known by "
            "SO_PEERCRED: root and group vgpuctl operate, group vgpuctl-ro reads.",
        },
        "servers": [{"url": "http://localhost", "description": "over /run/vgpuctl/vgpuctl.sock"}],
        "paths": paths,
        "components": {"schemas": dict(_schemas())},
    }


def resource_schema(name: str) -> dict[str, Any]:
    """The schema of a resource of `surface`; every field is always there."""
    resource = RESOURCES[name]
    return {
        "type": "object",
        "description": resource.doc,
        "required": [field.name for field in resource.fields],
        "properties": {field.name: _field(field) for field in resource.fields},
    }


@functools.cache
def _schemas() -> dict[str, Any]:
    sent: list[type[Shape]] = [*DOCUMENTS.values(), *EDITS.values(), PlanReferenceShape, HookShape]
    _, generated = models_json_schema(
        [(model, "validation") for model in sent], ref_template=_PREFIX + "{model}"
    )
    schemas: dict[str, Any] = {_title(each): resource_schema(each.name) for each in RESOURCES.values()}
    schemas.update(generated["$defs"])
    schemas["Problem"] = _PROBLEM | {
        "properties": _PROBLEM["properties"]
        | {"code": {"type": "string", "description": f"One of {', '.join(_codes())}."}}
    }
    schemas["Document"] = {"oneOf": [{"$ref": _PREFIX + model.__name__} for model in DOCUMENTS.values()]}
    schemas["Edit"] = {"oneOf": [{"$ref": _PREFIX + model.__name__} for model in EDITS.values()]}
    schemas["OperationRequest"] = {
        "anyOf": [{"$ref": _PREFIX + "Edit"}, {"$ref": _PREFIX + PlanReferenceShape.__name__}]
    }
    schemas["DomainXml"] = {
        "type": "object",
        "required": ["xml"],
        "properties": {"xml": {"type": "string"}},
    }
    return schemas


def _codes() -> list[str]:
    codes: set[str] = set()
    pending: list[type[VgpuctlError]] = [VgpuctlError]
    while pending:
        kind = pending.pop()
        codes.add(kind.code)
        pending.extend(kind.__subclasses__())
    return sorted(codes)


def _title(resource: Resource) -> str:
    return resource.name.capitalize()


def _field(field: Field) -> dict[str, Any]:
    kind = field.kind
    if kind.startswith("["):
        schema: dict[str, Any] = {"type": "array", "items": _kind(kind[1:-1])}
    else:
        schema = dict(_kind(kind))
    if field.nullable:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return schema | {"description": field.doc}


def _kind(kind: str) -> dict[str, Any]:
    if kind in _KINDS:
        return _KINDS[kind]
    return {"$ref": _PREFIX + _title(RESOURCES[kind])}


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.doc,
        "x-role": "operate" if route.operate else "read",
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)],
        "responses": _responses(route),
    }
    if route.path in _BODIES and route.method == "POST":
        operation["requestBody"] = _content({"$ref": _PREFIX + _BODIES[route.path]}) | {"required": True}
    elif route.method == "POST":
        operation["requestBody"] = _content({"type": "object"})
    return operation


def _operation_id(route: Route) -> str:
    words = [word for word in re.split(r"[^A-Za-z0-9]+", route.path.removeprefix("/v1")) if word]
    return "_".join([route.method.lower(), *(words or ["info"])])


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": each.name, "in": "query", "description": each.doc, "schema": _parameter(each)}
        for each in PARAMETERS.get((route.method, route.path), ())
    ]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = dict(_PARAMETER_KINDS[parameter.kind])
    if parameter.maximum is not None:
        schema |= {"minimum": 1, "maximum": parameter.maximum}
    return schema


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    if route.method != "POST" or route.path not in _EDITED:
        return []
    headers = [("If-Match", 'Generations that were seen, as `"Vgpu/office-1=3"`; another one is a 412.')]
    if route.path == "/v1/operations":
        key = "A request sent twice with one key is one operation; another request with it is a 422."
        headers.append(("Idempotency-Key", key))
    return [
        {"name": name, "in": "header", "description": doc, "schema": {"type": "string"}}
        for name, doc in headers
    ]


def _responses(route: Route) -> dict[str, Any]:
    schema = _returned(route)
    responses: dict[str, Any] = {"200": {"description": "Done."} | _content(schema)}
    if route.path == "/v1/events":
        responses["200"]["content"]["application/x-ndjson"] = {"schema": {"$ref": _PREFIX + "Event"}}
    if route.returns == "operation" and route.operate:
        location = {"Location": {"description": "Where to ask for it.", "schema": {"type": "string"}}}
        responses["202"] = {"description": "It goes on.", "headers": location} | _content(schema)
    if route.path == "/v1/operations" and route.method == "POST":
        responses["200"] |= _content({"anyOf": [schema, {"$ref": _PREFIX + "Plan"}]})
    problem = {"schema": {"$ref": _PREFIX + "Problem"}}
    responses["default"] = {"description": "A problem.", "content": {"application/problem+json": problem}}
    return responses


def _returned(route: Route) -> dict[str, Any]:
    if route.path == "/v1/documents":
        one: dict[str, Any] = {"$ref": _PREFIX + "Document"}
    elif route.path == "/v1/domains/{domain}/xml":
        one = {"$ref": _PREFIX + "DomainXml"}
    else:
        one = _kind(route.returns)
    return {"type": "array", "items": one} if route.many else one


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}

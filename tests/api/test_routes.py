"""Every route of the surface, through the application, over a stub service."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.api.conftest import Caller
from tests.api.stub import OPERATION_ID, StubService
from vgpuctl.api import openapi
from vgpuctl.api.app import MAX_BODY_BYTES, create_app
from vgpuctl.api.handlers import HANDLERS, Backend
from vgpuctl.api.query import PARAMETERS
from vgpuctl.model.edit import ApplyDocuments, AttachVgpu, CreateVgpus
from vgpuctl.surface import ROUTES

CREATE = {"action": "create-vgpu", "type": "L40S-8Q"}
HOOK = {
    "operation": "prepare",
    "domain": "win1",
    "uuid": OPERATION_ID,
    "token": "t",
    "vgpus": [{"vgpu": OPERATION_ID, "mdev": OPERATION_ID, "vf": None}],
}
BODIES = {"/v1/plans": CREATE, "/v1/operations": CREATE, "/v1/hook": HOOK}
FILLED = {"{gpu}": "0000:41:00.0", "{id}": OPERATION_ID, "{action}": "reboot"}


class StubSimulator:
    def control(self, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"action": action, "arguments": arguments}


def filled(path: str) -> str:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    return path.replace("{", "").replace("}", "")


def test_table_and_application_agree() -> None:
    assert set(HANDLERS) == {(route.method, route.path) for route in ROUTES}
    assert set(PARAMETERS) <= set(HANDLERS)


@pytest.mark.parametrize("route", ROUTES, ids=lambda each: f"{each.method} {each.path}")
def test_every_route_answers_as_its_schema_says(route: Any, call: Caller, backend: Backend) -> None:
    call.app = create_app(Backend(backend.service, backend.waiting, StubSimulator()), access_of(call))
    body = BODIES.get(route.path) if route.method == "POST" else None
    assert call(route.method, filled(route.path), body).status_code == 200


def access_of(call: Caller) -> Any:
    """The access that the fixture's application was made with."""
    return call.app._middleware[0][0].__self__._access


@pytest.mark.parametrize("route", ROUTES, ids=lambda each: f"{each.method} {each.path}")
def test_readers_read_and_strangers_do_not(route: Any, call: Caller, service: StubService) -> None:
    call.uid = 1002
    assert call(route.method, filled(route.path), CREATE).json["code"] == "denied"
    call.uid = 1001
    answer = call(route.method, filled(route.path), CREATE if route.operate else None)
    assert (answer.status_code == 403) is route.operate
    assert not [each for each in service.calls if each[0] in ("submit", "plan", "pause", "resume", "cancel")]


def test_no_credentials_means_no(call: Caller) -> None:
    import falcon.testing

    answer = falcon.testing.simulate_get(call.app, "/v1")
    assert (answer.status_code, answer.json["code"]) == (403, "denied")
    spoofed = falcon.testing.simulate_get(call.app, "/v1", headers={"X-Remote-Uid": "0", "X-Remote-Pid": "1"})
    assert spoofed.status_code == 403


def test_info_tells_the_role(call: Caller) -> None:
    assert call("GET", "/v1").json["role"] == "operate"
    call.uid = 1001
    assert call("GET", "/v1").json["role"] == "read"


def test_head_has_the_headers_only(call: Caller) -> None:
    answer = call("HEAD", "/v1/gpus")
    assert (answer.status_code, answer.text) == (200, "")
    assert int(answer.headers["content-length"]) > 2
    assert call("HEAD", "/v1/events?follow=1").status_code == 200


def test_unknown_routes_and_methods_are_problems(call: Caller) -> None:
    assert call("GET", "/v1/gpu").json["code"] == "not-found"
    assert call("GET", "/v2").status_code == 404
    answer = call("DELETE", "/v1/gpus")
    assert (answer.status_code, answer.json["exit_status"]) == (405, 2)
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


def test_refusals_keep_code_and_hint(call: Caller) -> None:
    answer = call("GET", "/v1/gpus/7")
    assert (answer.status_code, answer.json["code"]) == (404, "gpu-not-found")
    assert answer.json["hint"] == "vgpuctl gpu list"


def test_an_unexpected_error_is_a_problem_with_an_id(
    call: Caller, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = call("GET", "/v1/gpus/explode")
    assert (answer.status_code, answer.json["code"]) == (500, "internal")
    assert "secret" not in answer.text
    logged = capsys.readouterr().out
    assert answer.json["facts"]["error_id"] in logged
    assert "ZeroDivisionError" in logged


def test_request_ids_are_echoed_when_they_are_sane(call: Caller) -> None:
    assert call("GET", "/v1", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = call("GET", "/v1", headers={"X-Request-Id": "a b\x7f"}).headers["x-request-id"]
    assert len(made) == 32
    assert "x-request-id" in call("GET", "/v1/nothing").headers


def test_an_edit_reaches_the_service_with_its_requester(call: Caller, service: StubService) -> None:
    answer = call(
        "POST",
        "/v1/operations",
        {"action": "attach", "domain": "win11", "profile": "designer", "affect": ["config"]},
        headers={"Idempotency-Key": "k1"},
    )
    name, edit, who, plan_id, key = service.calls[-1]
    assert answer.status_code == 200
    assert answer.headers["location"] == f"/v1/operations/{OPERATION_ID}"
    assert name == "submit"
    assert isinstance(edit, AttachVgpu)
    assert (edit.domain, edit.profile, sorted(edit.affect or ())) == ("win11", "designer", ["config"])
    assert (who.uid, who.pid, who.name) == (1000, 42, "operator")
    assert (plan_id, key) == (None, "k1")


def test_a_shown_plan_is_run_by_its_id(call: Caller, service: StubService) -> None:
    assert call("POST", "/v1/operations", {"plan": "p1"}).status_code == 200
    assert service.calls[-1][1] is None
    assert service.calls[-1][3] == "p1"
    assert call("POST", "/v1/operations", {"plan": "stale"}).json["code"] == "plan-stale"
    assert call("POST", "/v1/operations", {"plan": "p1", "acton": "x"}).status_code == 400
    assert call("POST", "/v1/operations?dry_run=1", {"plan": "p1"}).status_code == 400


def test_dry_run_plans_and_changes_nothing(call: Caller, service: StubService) -> None:
    answer = call("POST", "/v1/operations?dry_run=1", CREATE)
    assert answer.json["id"] == "p1"
    assert [each[0] for each in service.calls] == ["plan"]
    assert isinstance(service.calls[0][1], CreateVgpus)
    assert call("POST", "/v1/operations?dry_run=0", CREATE).json["id"] == OPERATION_ID


def test_a_plan_shows_documents_as_apply_reads_them(call: Caller) -> None:
    (change,) = call("POST", "/v1/plans", CREATE).json["changes"]
    assert change["before"] is None
    assert change["after"] == {"apiVersion": "vgpuctl/v1", "kind": "Vgpu", "name": "a", "type": "L40S-8Q"}


def test_an_operation_that_goes_on_is_202_and_can_be_waited_for(call: Caller, service: StubService) -> None:
    service.ended = False
    assert call("POST", "/v1/operations", CREATE).status_code == 202
    assert call("GET", f"/v1/operations/{OPERATION_ID}").json["ended_at"] is None
    import threading

    threading.Timer(0.05, service.end).start()
    assert call("GET", f"/v1/operations/{OPERATION_ID}?wait=30").json["state"] == "succeeded"
    assert call("POST", "/v1/operations?wait=30", CREATE).status_code == 200


def test_waiting_ends_when_the_server_does(call: Caller, service: StubService, backend: Backend) -> None:
    service.ended = False
    backend.waiting.end()
    assert call("POST", "/v1/operations?wait=60", CREATE).status_code == 202


def test_if_match_becomes_generations(call: Caller, service: StubService) -> None:
    body = {"action": "apply", "source": json.dumps(vgpu("a"))}
    call("POST", "/v1/plans", body, headers={"If-Match": '"3"'})
    edit = service.calls[-1][1]
    assert isinstance(edit, ApplyDocuments)
    assert [(str(key), generation) for key, generation in edit.generations] == [("Vgpu/a", 3)]
    two = {"action": "apply", "documents": [vgpu("a"), vgpu("b")]}
    call("POST", "/v1/plans", two, headers={"If-Match": '"Vgpu/a=3", "Vgpu/b=4"'})
    assert [generation for _, generation in service.calls[-1][1].generations] == [3, 4]
    assert call("POST", "/v1/plans", two, headers={"If-Match": '"3"'}).status_code == 400
    assert call("POST", "/v1/plans", two, headers={"If-Match": "3"}).status_code == 400
    assert call("POST", "/v1/plans", CREATE, headers={"If-Match": '"3"'}).status_code == 400


def vgpu(name: str) -> dict[str, Any]:
    return {"apiVersion": "vgpuctl/v1", "kind": "Vgpu", "name": name, "type": "L40S-8Q"}


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("gp=1", 'did you mean "gpu"'),
        ("gpu=0&gpu=1", "stands twice"),
        ("creatable=maybe", "1 or 0"),
        ("gpu=", "is empty"),
        ("catalog=1&gpu=0", "neither"),
    ],
)
def test_query_parameters_are_strict(query: str, what: str, call: Caller, service: StubService) -> None:
    assert what in call("GET", f"/v1/types?{query}").json["detail"]
    assert not service.calls


def test_query_parameters_arrive(call: Caller, service: StubService) -> None:
    call("GET", "/v1/types?gpu=0000:41:00.0&creatable=1")
    call("GET", "/v1/domains/w/xml?live=true")
    call("GET", "/v1/operations?limit=7")
    assert service.calls == [
        ("types", "0000:41:00.0", True, False),
        ("domain_xml", "w", True),
        ("operations", 7),
    ]
    assert call("GET", "/v1/operations?limit=0").status_code == 400
    assert call("GET", f"/v1/operations/{OPERATION_ID}?wait=-1").status_code == 400
    assert call("GET", f"/v1/operations/{OPERATION_ID}?wait=nan").status_code == 400


def test_bodies_are_limited_and_have_to_be_json(call: Caller) -> None:
    answer = call("POST", "/v1/plans", "x" * (MAX_BODY_BYTES + 1))
    assert (answer.status_code, answer.json["code"]) == (413, "invalid-input")
    assert call("POST", "/v1/plans", "x" * MAX_BODY_BYTES).status_code == 400
    twice = call("POST", "/v1/plans", '{"action": "adopt", "action": "attach"}')
    assert twice.json["facts"]["faults"] == [{"document": "", "path": "action", "message": "stands twice"}]
    assert call("POST", "/v1/plans", '{"action": NaN}').status_code == 400
    assert call("POST", "/v1/plans", "[" * 100_000).status_code == 400
    assert call("POST", "/v1/plans", b"\xff\xfe").status_code == 400
    assert call("POST", "/v1/plans").status_code == 400


def test_sim_routes_need_a_simulated_host(call: Caller, backend: Backend) -> None:
    answer = call("POST", "/v1/sim/reboot", {})
    assert (answer.status_code, answer.json["code"]) == (409, "unsupported-here")
    call.app = create_app(Backend(backend.service, backend.waiting, StubSimulator()), access_of(call))
    answer = call("POST", "/v1/sim/hold", {"vgpu": "a"})
    assert answer.json == {"action": "hold", "arguments": {"vgpu": "a"}}
    assert call("POST", "/v1/sim/hold", [1]).status_code == 400


def test_names_in_paths_are_decoded(call: Caller) -> None:
    assert call("GET", "/v1/domains/b%C3%BCro%201").json["name"] == "büro 1"


def test_the_openapi_document_is_whole(call: Caller) -> None:
    document = call("GET", "/v1/openapi.json").json
    assert document["openapi"].startswith("3.1")
    assert {(m.upper(), p) for p, ms in document["paths"].items() for m in ms} == set(HANDLERS)
    ids = [each["operationId"] for methods in document["paths"].values() for each in methods.values()]
    assert len(ids) == len(set(ids))
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(document)
    references = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert references <= set(schemas)
    edit = Draft202012Validator({"$ref": "#/components/schemas/Edit", "components": document["components"]})
    assert edit.is_valid(CREATE)
    assert edit.is_valid({"action": "apply", "documents": [vgpu("a")]})
    assert not edit.is_valid({"action": "create"})
    assert openapi.describe() == document

"""The API over the real service on simulated cards: every answer is what the schema says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.api.conftest import ACCOUNTS, Caller
from tests.support.world import World, world
from vgpuctl.api.access import Access
from vgpuctl.api.app import create_app
from vgpuctl.api.handlers import Backend
from vgpuctl.api.waiting import Waiting

READS = [
    "/v1/host",
    "/v1/gpus",
    "/v1/gpus/0",
    "/v1/types",
    "/v1/types?creatable=1&gpu=0",
    "/v1/types?catalog=1",
    "/v1/profiles",
    "/v1/profiles/designer",
    "/v1/vgpus",
    "/v1/domains",
    "/v1/domains/win1",
    "/v1/domains/win1/xml",
    "/v1/documents",
    "/v1/operations",
    "/v1/events",
    "/v1/host/capture",
]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def ask(host: World) -> Iterator[Caller]:
    waiting = Waiting()
    access = Access(own_uid=0, account=lambda uid, _gid: ACCOUNTS[uid])
    yield Caller(create_app(Backend(host.service, waiting, host.sim), access))
    waiting.end()


def done(answer: Any) -> dict[str, Any]:
    operation: dict[str, Any] = answer.json
    assert answer.status_code == 200, answer.text
    assert operation["state"] == "succeeded", operation["problem"]
    return operation


def test_the_life_of_a_vgpu(ask: Caller) -> None:
    shown = ask("POST", "/v1/plans", {"action": "create-vgpu", "type": "T4-4Q", "name": "api-1"}).json
    assert [change["after"]["name"] for change in shown["changes"]] == ["api-1"]
    done(ask("POST", "/v1/operations?wait=30", {"plan": shown["id"]}))
    vgpu = ask("GET", "/v1/vgpus/api-1").json
    assert (vgpu["type"], vgpu["state"], vgpu["owner"]) == ("T4-4Q", "present", "operator")
    attach = {"action": "attach", "domain": "win1", "vgpu": "api-1", "affect": ["config"]}
    done(ask("POST", "/v1/operations?wait=30", attach))
    assert vgpu["uuid"] in ask("GET", "/v1/domains/win1/xml").json["xml"]
    for path in [*READS, "/v1/vgpus/api-1"]:
        assert ask("GET", path).status_code == 200, path
    busy = ask("POST", "/v1/operations?wait=30", {"action": "delete-vgpu", "vgpu": "api-1"})
    assert busy.status_code == 409
    done(ask("POST", "/v1/operations?wait=30", {"action": "detach", "domain": "win1"}))
    done(ask("POST", "/v1/operations?wait=30", {"action": "delete-vgpu", "vgpu": "api-1"}))
    assert ask("GET", "/v1/vgpus/api-1").json["code"] == "vgpu-not-found"


def test_what_is_exported_applies_again_and_changes_nothing(ask: Caller) -> None:
    done(ask("POST", "/v1/operations?wait=30", {"action": "create-vgpu", "type": "T4-4Q", "count": 2}))
    done(ask("POST", "/v1/operations?wait=30", {"action": "attach", "domain": "win2", "type": "T4-4Q"}))
    documents = ask("GET", "/v1/documents").json
    assert {each["kind"] for each in documents} >= {"Vgpu", "Desktop"}
    plan = ask(
        "POST", "/v1/plans", {"action": "apply", "source": yaml.safe_dump_all(documents), "prune": True}
    )
    assert (plan.json["verdict"], plan.json["changes"]) == ("match", [])
    stale = {"action": "apply", "documents": documents, "generations": {f"Vgpu/{documents[-1]['name']}": 99}}
    assert ask("POST", "/v1/plans", stale).status_code == 412


def test_a_request_sent_twice_is_one_operation(ask: Caller) -> None:
    body = {"action": "create-vgpu", "type": "T4-4Q", "name": "once"}
    first = done(ask("POST", "/v1/operations?wait=30", body, headers={"Idempotency-Key": "k"}))
    again = done(ask("POST", "/v1/operations?wait=30", body, headers={"Idempotency-Key": "k"}))
    assert first["id"] == again["id"]
    taken = ask("POST", "/v1/operations", body, headers={"Idempotency-Key": "other"})
    assert (taken.status_code, taken.json["code"]) == (409, "name-taken")


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/v1/gpus/9", None, "gpu-not-found"),
        ("GET", "/v1/types?gpu=nope", None, "gpu-not-found"),
        ("GET", "/v1/profiles/nope", None, "profile-unknown"),
        ("GET", "/v1/vgpus/nope", None, "vgpu-not-found"),
        ("GET", "/v1/domains/nope", None, "domain-not-found"),
        ("GET", "/v1/domains/nope/xml", None, "domain-not-found"),
        ("GET", "/v1/operations/nope", None, "operation-not-found"),
        ("POST", "/v1/operations/nope/cancel", None, "operation-not-found"),
        ("POST", "/v1/operations", {"plan": "nope"}, "operation-not-found"),
        ("POST", "/v1/plans", {"action": "create-vgpu", "type": "T4-5Q"}, "type-unknown"),
        ("POST", "/v1/plans", {"action": "create-vgpu", "type": "T4-4Q", "count": 5}, "no-capacity"),
        ("POST", "/v1/plans", {"action": "attach", "domain": "x", "type": "T4-4Q"}, "domain-not-found"),
        ("POST", "/v1/sim/explode", {}, "invalid-input"),
        ("GET", "/v1/domains/%00/xml", None, "not-found"),
        ("GET", "/v1/events?" + "&".join(["a=1"] * 101), None, "invalid-input"),
        ("POST", "/v1/plans", {"action": "delete-vgpu", "vgpu": "\ud800"}, "invalid-input"),
        ("POST", "/v1/plans", {"action": "apply", "source": "a: \ud800"}, "invalid-input"),
        ("POST", "/v1/plans", {"action": "apply", "source": 'a: "\\ud800"'}, "invalid-input"),
        (
            "POST",
            "/v1/plans",
            {
                "action": "import-mig-parted",
                "source": "mig-configs: {a: [{devices: all, mig-enabled: true, device-filter: 5}]}",
            },
            "invalid-input",
        ),
    ],
)
def test_refusals_have_their_codes(method: str, path: str, body: Any, code: str, ask: Caller) -> None:
    answer = ask(method, path, body)
    if code == "no-capacity" and answer.status_code == 200:
        assert {each["code"] for each in answer.json["problems"]} == {code}
    else:
        assert answer.json["code"] == code


def test_pause_and_resume_show_in_the_host(ask: Caller) -> None:
    assert ask("POST", "/v1/pause").json["paused"] is True
    assert ask("POST", "/v1/resume", {}).json["paused"] is False
    held, went_on = [each for each in ask("GET", "/v1/events").json if each["kind"] == "pause-set"]
    assert held["summary"] == "background changes are paused, says operator"
    assert went_on["body"]["requester"]["uid"] == 1000


def test_events_tell_what_happened(ask: Caller) -> None:
    since = ask("GET", "/v1/host").json["revision"]
    operation = done(
        ask("POST", "/v1/operations?wait=30", {"action": "create-vgpu", "type": "T4-4Q", "name": "told"})
    )
    events = ask("GET", f"/v1/events?since={since}").json
    assert operation["id"] in {each["operation"] for each in events}
    assert ask("GET", f"/v1/events?since={events[-1]['revision']}&wait=0.1").json == []


def test_a_refusal_names_every_problem(ask: Caller) -> None:
    """More than one problem: the first is the answer, all of them are its facts."""
    documents = [
        {"apiVersion": "vgpuctl/v1", "kind": "Vgpu", "name": f"big-{number}", "type": "T4-16Q"}
        for number in range(4)
    ]
    answer = ask("POST", "/v1/operations", {"action": "apply", "documents": documents})
    assert (answer.status_code, answer.json["code"]) == (409, "no-capacity")
    assert [each["subject"] for each in answer.json["facts"]["problems"]] == ["big-1", "big-2", "big-3"]


def test_an_apply_of_one_document_is_counted_in_words(ask: Caller) -> None:
    documents = [{"apiVersion": "vgpuctl/v1", "kind": "Profile", "name": "p", "types": ["T4-4Q"]}]
    operation = done(ask("POST", "/v1/operations?wait=30", {"action": "apply", "documents": documents}))
    assert operation["subject"] == "1 document"


def test_a_profile_that_is_not_there_is_told_with_its_remedy(ask: Caller) -> None:
    documents = [{"apiVersion": "vgpuctl/v1", "kind": "Vgpu", "name": "a", "profile": "desinger"}]
    answer = ask("POST", "/v1/plans", {"action": "apply", "documents": documents})
    assert "no profile 'desinger'; did you mean" in answer.json["detail"]

"""The event log as an array, as a long poll, and as a stream."""

from __future__ import annotations

import json
import threading

from tests.api.conftest import Caller
from tests.api.stub import StubService
from vgpuctl.api.handlers import Backend
from vgpuctl.api.waiting import EventStream, Waiting


def revisions(text: str) -> list[int]:
    return [json.loads(line)["revision"] for line in text.splitlines() if line]


def test_entries_since_a_revision(call: Caller, service: StubService) -> None:
    for number in range(5):
        service.record(f"entry {number}")
    assert [each["revision"] for each in call("GET", "/v1/events?since=2").json] == [3, 4, 5]
    assert [each["revision"] for each in call("GET", "/v1/events?since=0&limit=2").json] == [1, 2]


def test_without_since_the_newest_come(call: Caller, service: StubService) -> None:
    for number in range(120):
        service.record(f"entry {number}")
    assert [each["revision"] for each in call("GET", "/v1/events?limit=3").json] == [118, 119, 120]
    assert len(call("GET", "/v1/events").json) == 100


def test_a_long_poll_waits_for_an_entry(call: Caller, service: StubService) -> None:
    threading.Timer(0.05, service.record, ["late"]).start()
    assert [each["summary"] for each in call("GET", "/v1/events?since=0&wait=30").json] == ["late"]


def test_a_pruned_revision_is_gone(call: Caller, service: StubService) -> None:
    service.pruned_below = 3
    for path in ("/v1/events?since=1", "/v1/events?since=1&follow=1"):
        answer = call("GET", path)
        assert (answer.status_code, answer.json["code"]) == (410, "revision-gone")


def test_a_stream_begins_where_it_is_told_and_goes_on(service: StubService) -> None:
    service.record("old")
    waiting = Waiting()
    stream = waiting.stream(service.events(0, 10), 0, service.wait_events)
    chunks = iter(stream)
    assert revisions(next(chunks).decode()) == [1]
    threading.Timer(0.05, service.record, ["new"]).start()
    assert revisions(next(chunks).decode()) == [2]
    waiting.end()
    assert list(chunks) == []


def test_an_idle_stream_shows_that_it_lives(service: StubService) -> None:
    waiting = Waiting(heartbeat_s=0.0)
    chunks = iter(waiting.stream([], 0, lambda _since, _seconds: []))
    assert [next(chunks), next(chunks), next(chunks)] == [b"\n", b"\n", b"\n"]


def test_following_starts_now_unless_told(call: Caller, service: StubService, backend: Backend) -> None:
    service.record("before")
    backend.waiting.end()
    assert revisions(call("GET", "/v1/events?follow=1").text) == []
    assert revisions(call("GET", "/v1/events?follow=1&since=0").text) == [1]


def test_streams_are_capped_and_give_their_place_back(call: Caller, service: StubService) -> None:
    waiting = Waiting(streams=2)
    backend = Backend(service, waiting)
    open_streams: list[EventStream] = [waiting.stream([], 0, service.wait_events) for _ in range(2)]
    from tests.api.test_routes import access_of
    from vgpuctl.api.app import create_app

    call.app = create_app(backend, access_of(call))
    answer = call("GET", "/v1/events?follow=1")
    assert (answer.status_code, answer.json["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    # Never iterated, as when the client has left before the first byte; closed twice, as servers do.
    open_streams[0].close()
    open_streams[0].close()
    waiting.end()
    assert call("GET", "/v1/events?follow=1").status_code == 200
    assert call("GET", "/v1/events?follow=1").status_code == 200


def test_head_takes_no_place_in_the_stream(call: Caller, backend: Backend) -> None:
    backend.waiting.end()
    for _ in range(20):
        assert call("HEAD", "/v1/events?follow=1").status_code == 200
    assert call("GET", "/v1/events?follow=1").status_code == 200


def test_nobody_waits_for_a_server_that_ends() -> None:
    waiting = Waiting()
    waiting.end()
    asked: list[float] = []
    waiting.until(30.0, lambda seconds: (asked.append(seconds), False))
    assert asked == [0.0]


def test_with_too_many_waiting_the_next_is_answered_at_once(service: StubService) -> None:
    waiting = Waiting(waits=1)
    inside = threading.Event()
    asked: list[float] = []

    def ask(seconds: float) -> tuple[None, bool]:
        inside.set()
        release.wait(10)
        return None, True

    release = threading.Event()
    first = threading.Thread(target=waiting.until, args=(30.0, ask))
    first.start()
    inside.wait(10)
    answer = waiting.until(30.0, lambda seconds: (asked.append(seconds), False))
    release.set()
    first.join(10)
    assert asked == [0.0]
    assert answer[1] is False

"""Events and watching: streams that are printed as they come."""

from __future__ import annotations

import json

from tests.cli import canned
from tests.cli.conftest import Run
from tests.cli.fakedaemon import FakeDaemon, Raw, Request
from vgpuctl.errors import Unavailable

LINES = b"\n".join([json.dumps(each).encode() for each in canned.EVENTS] + [b"", b""])


NEWER = [{**canned.EVENTS[1], "revision": 413}]


def streaming(request: Request) -> object:
    return Raw(LINES, media_type="application/x-ndjson") if request.query.get("follow") else canned.EVENTS


def test_follow_prints_one_line_for_each_event(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/v1/events"] = streaming
    result = vgpuctl("events", "--follow", "--since", "410", "-o", "json")
    assert [json.loads(each) for each in result.out.splitlines()] == canned.EVENTS
    assert daemon.requests[-1].query == {"since": "410", "follow": "1"}
    shown = vgpuctl("events", "--follow").out.splitlines()
    assert shown[0].split() == ["REV", "AT", "SUBJECT", "WHAT"]
    assert shown[2].endswith("somebody else made a vGPU")


def test_follow_begins_with_so_many_of_the_newest(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/v1/events"] = streaming
    shown = vgpuctl("events", "--follow", "--limit", "2", "-o", "name").out.split()
    assert [each.query for each in daemon.calls("GET", "/v1/events")] == [
        {"limit": "2"},
        {"since": "412", "follow": "1"},
    ]
    assert shown == ["411", "412", "411", "412"]


def test_since_reads_page_after_page(vgpuctl: Run, daemon: FakeDaemon) -> None:
    def page(request: Request) -> list[canned.Item]:
        since, limit = int(request.query["since"]), int(request.query["limit"])
        last = min(since + limit, 1500)
        return [{**canned.EVENTS[0], "revision": number} for number in range(since + 1, last + 1)]

    daemon.answers["GET", "/v1/events"] = page
    shown = vgpuctl("events", "--since", "0", "-o", "name").out.split()
    assert shown == [str(number) for number in range(1, 1501)]


def test_watch_prints_again_only_what_changed(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.in_turn["GET", "/v1/events"] = [[], NEWER, [], Unavailable("the daemon is stopping")]
    daemon.in_turn["GET", "/v1/vgpus"] = [canned.VGPUS, canned.VGPUS, canned.VGPUS[:1]]
    result = vgpuctl("vgpu", "list", "--watch", "--json")
    assert result.status == 7
    assert [json.loads(each) for each in result.out.splitlines()] == [canned.VGPUS, canned.VGPUS[:1]]
    since = [each.query["since"] for each in daemon.calls("GET", "/v1/events")]
    assert since == ["412", "412", "413", "413"]

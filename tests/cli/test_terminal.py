"""On a real terminal: tables that fit, the picture of a card, colour, questions, progress, Ctrl-C."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.cli import canned, terminal
from tests.cli.conftest import command, environment
from tests.cli.fakedaemon import FakeDaemon, Raw, Request
from tests.cli.terminal import Terminal
from vgpuctl.cli.table import display_width
from vgpuctl.errors import InvalidInput, LibvirtUnreachable

PLANS = ("POST", "/v1/plans")
OPERATIONS = ("POST", "/v1/operations")
OPERATION = ("GET", f"/v1/operations/{canned.OPERATION_ID}")

_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def plain(text: str) -> str:
    return _ESCAPE.sub("", text)


@pytest.mark.parametrize(
    "line",
    [
        "gpu list",
        "gpu show 0",
        "vgpu list",
        "domain show win11-042",
        "domain list",
        "profile list",
        "type list",
        "host show",
        "events",
        "operation list",
        "operation show " + canned.OPERATION_ID,
    ],
)
def test_80_columns_are_enough(line: str, daemon: FakeDaemon) -> None:
    status, text = terminal.run(*line.split(), host=daemon.host)
    assert status == 0
    assert max(display_width(each) for each in plain(text).splitlines()) <= 80


def test_gpu_list_draws_what_is_in_use(daemon: FakeDaemon) -> None:
    _, text = terminal.run("gpu", "list", host=daemon.host)
    assert "████░░░░ 24/48 GiB" in text
    _, text = terminal.run("gpu", "list", host=daemon.host, columns=40)
    assert "████░░░░ 24/48 GiB" in text
    _, text = terminal.run(
        "gpu", "list", host=daemon.host, PYTHONUTF8="0", LC_ALL="C", PYTHONIOENCODING="ascii"
    )
    assert "####.... 24/48 GiB" in text


def test_long_text_is_wrapped_and_nothing_is_lost(daemon: FakeDaemon) -> None:
    words = [f"word{number}" for number in range(40)]
    daemon.answers["GET", "/v1/profiles"] = [{**canned.PROFILES[0], "description": " ".join(words)}]
    _, text = terminal.run("profile", "list", host=daemon.host)
    lines = plain(text).splitlines()
    assert max(len(each) for each in lines) <= 80
    assert [each for each in plain(text).split() if each.startswith("word")] == words


def test_operations_have_room_for_when_and_who(daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/v1/operations"] = [canned.operation("needs-operator", subject="0000:41:00.0")]
    text = plain(terminal.run("operation", "list", host=daemon.host)[1])
    assert text.splitlines()[1] == (
        "00000000  create  0000:41:00.0  needs-operator  2026-11-09T10:11:12Z  root"
    )
    assert "DONE" in terminal.run("operation", "list", host=daemon.host, columns=100)[1]


def test_types_and_a_full_card_have_room(daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/v1/types"] = [{**canned.TYPES[0], "name": "DC-4-24GFX-LONG"}]
    share = {**canned.L40S["allocated"][0], "type": "L40S-1B", "fb_mib": 1024}
    for count, bars in ((24, 24), (48, 0)):
        allocated = [{**share, "name": f"win11-{number}"} for number in range(count)]
        daemon.answers["GET", "/v1/gpus/0"] = {**canned.L40S, "drift": [], "allocated": allocated}
        text = plain(terminal.run("gpu", "show", "0", host=daemon.host)[1])
        (bar,) = (each for each in text.splitlines() if each.startswith("["))
        assert (bar.count("|") >= bars - 1, len(bar) <= 80) == (True, True), bar
    text = plain(terminal.run("type", "list", host=daemon.host)[1])
    assert max(map(len, text.splitlines())) <= 80
    assert "1155" not in text
    assert "1155" in terminal.run("type", "list", host=daemon.host, columns=100)[1]


LOST = {
    **canned.VANISHED,
    "subject": "win11-004",
    "detail": "it stood on 0000:41:00.6, and somebody removed it while domain win11-004 was started with it",
    "steps": ["create vGPU win11-004 (L40S-8Q) on 0000:41:00.6", "attach it to domain win11-004 (config)"],
}
BLOCK = """\
  win11-004  vgpu-vanished  since 2026-11-01T12:00:00Z  repair: ask
    it stood on 0000:41:00.6, and somebody removed it while domain win11-004 was
    started with it
    hint: `vgpuctl repair cad-1` shows what mends it, and does it
    step 1: create vGPU win11-004 (L40S-8Q) on 0000:41:00.6
    step 2: attach it to domain win11-004 (config)
"""


@pytest.mark.parametrize("line", ["host show", "gpu show 0", "vgpu show cad-1"])
def test_what_differs_is_told_in_blocks_where_a_table_has_no_room(line: str, daemon: FakeDaemon) -> None:
    path = line.replace("host show", "host").replace("vgpu show ", "vgpus/").replace("gpu show ", "gpus/")
    route = ("GET", f"/v1/{path}")
    daemon.answers[route] = {**daemon.answers[route], "drift": [LOST, {**LOST, "code": "hostdev-stray"}]}
    text = plain(terminal.run(*line.split(), host=daemon.host)[1])
    assert f"drift:\n{BLOCK}{BLOCK.replace('vgpu-vanished', 'hostdev-stray')}" in text
    assert max(map(len, text.splitlines())) <= 80
    wide = plain(terminal.run(*line.split(), host=daemon.host, columns=240)[1])
    assert "  CODE           SUBJECT    REPAIR  SINCE " in wide


def test_a_reason_and_a_hint_are_folded_beside_their_name(daemon: FakeDaemon) -> None:
    problem = {**canned.ABSENT["problem"], "hint": "`vgpuctl type list --creatable` says what fits, " * 3}
    unknown = {"vf": "the directory of the GPU in sysfs does not answer " * 3}
    daemon.answers["GET", "/v1/vgpus/cad-1"] = {**canned.ABSENT, "problem": problem, "unknown": unknown}
    lines = plain(terminal.run("vgpu", "show", "cad-1", host=daemon.host)[1]).splitlines()
    assert max(map(len, lines)) <= 80
    at = next(number for number, each in enumerate(lines) if each.startswith("vf:"))
    assert lines[at] == "vf:         ?  (the directory of the GPU in sysfs does not answer the directory"
    assert lines[at + 1].startswith("            of the GPU in sysfs does not answer")
    assert any(each.startswith("              `vgpuctl type list --creatable`") for each in lines)


LONG = "nothing that is here could carry it: look at `vgpuctl type list --creatable`, " * 3


def test_what_is_said_is_folded_on_a_terminal_alone(daemon: FakeDaemon) -> None:
    faults = [{"path": "types", "message": LONG}, {"path": "vgpus", "message": LONG}]
    daemon.answers["GET", "/v1/gpus"] = InvalidInput(LONG, hint=LONG, faults=faults)
    lines = plain(terminal.run("gpu", "list", host=daemon.host)[1]).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("vgpuctl: nothing that is here could carry it: look at")
    assert lines[1].startswith("  `vgpuctl type list --creatable`, ")
    assert sum(each.startswith("    ") for each in lines) > 3
    done = subprocess.run(
        command("gpu", "list"),
        capture_output=True,
        text=True,
        check=False,
        env=environment(VGPUCTL_HOST=daemon.host),
    )
    assert f"vgpuctl: {LONG}\n" in done.stderr
    assert f"  hint: {LONG}\n" in done.stderr


def test_a_plan_is_as_wide_as_what_it_is_shown_on(daemon: FakeDaemon) -> None:
    many = [f"win11-{number:03}" for number in range(20)]
    key = {"key": "Desktop/a", "before": None, "after": {"vgpus": [{"name": each} for each in many]}}
    plan = {**canned.REFUSED, "notes": [LONG], "touches": many, "changes": [key]}
    daemon.answers[PLANS] = {**plan, "problems": []}
    text = plain(terminal.run("vgpu", "delete", "cad-1", "-n", host=daemon.host)[1])
    assert max(map(len, text.splitlines())) <= 80
    assert "\n    `vgpuctl type list" in text.partition("Worth knowing:\n  nothing that")[2]
    piped = Terminal("vgpu", "delete", "cad-1", "-n", host=daemon.host, stdout=subprocess.PIPE)
    assert piped.process.stdout is not None
    assert f"\n  {LONG}\n" in piped.process.stdout.read().decode()
    assert piped.end() == 0


@pytest.mark.parametrize(
    ("options", "environment", "painted"),
    [
        ([], {}, True),
        ([], {"NO_COLOR": "1"}, False),
        ([], {"NO_COLOR": ""}, True),
        ([], {"TERM": "dumb"}, False),
        ([], {"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, False),
        (["--color", "never"], {}, False),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
    ],
)
def test_colour(options: list[str], environment: dict[str, str], painted: bool, daemon: FakeDaemon) -> None:
    _, text = terminal.run("vgpu", "list", *options, host=daemon.host, **environment)
    assert ("\x1b[" in text) is painted


def test_apply_shows_asks_and_does_just_that(daemon: FakeDaemon, tmp_path) -> None:
    (tmp_path / "d.yaml").write_text("kind: Vgpu\n")
    shown = Terminal("apply", "-f", str(tmp_path / "d.yaml"), host=daemon.host)
    shown.expect(r"Apply this\? \[y/N\]")
    assert not daemon.calls(*OPERATIONS)
    shown.type("y\n")
    assert shown.end() == 0
    assert "applied 1 document\n" in plain(shown.text)
    assert daemon.calls(*OPERATIONS)[0].body == {"plan": "p-1"}


def test_no_is_no(daemon: FakeDaemon) -> None:
    daemon.answers[PLANS] = canned.TOUCHING
    shown = Terminal("detach", "win11-042", host=daemon.host)
    shown.expect(r"touches running domains \(win11-042\). Go on\?")
    shown.type("n\n")
    assert shown.end() == 1
    assert "nothing was changed" in shown.text
    assert not daemon.calls(*OPERATIONS)


def test_ctrl_c_at_the_question(daemon: FakeDaemon) -> None:
    daemon.answers[PLANS] = canned.TOUCHING
    shown = Terminal("detach", "win11-042", host=daemon.host)
    shown.expect(r"Go on\?")
    assert shown.end(interrupt=True) == 130
    assert shown.text.endswith("\nnothing was changed\n")
    assert not daemon.calls(*OPERATIONS)
    left = Terminal("detach", "win11-042", host=daemon.host)
    left.expect(r"Go on\?")
    left.type("\x04")
    assert left.end() == 1
    assert left.text.endswith("\nnothing was changed\n")


def test_no_to_the_second_of_several_does_not_claim_that_nothing_was_changed(daemon: FakeDaemon) -> None:
    daemon.in_turn[PLANS] = [canned.QUIET, canned.QUIET, canned.QUIET, canned.TOUCHING]
    shown = Terminal("vgpu", "delete", "a", "b", host=daemon.host)
    shown.expect(r"Go on\?")
    shown.type("n\n")
    assert shown.end() == 1
    assert "vGPU a is deleted" in shown.text
    assert shown.text.endswith("\nleft alone: b\n")


def test_a_second_vgpu_is_asked_about(daemon: FakeDaemon) -> None:
    words = ("attach", "win11-042", "-p", "designer")
    shown = Terminal(*words, host=daemon.host)
    shown.expect(r"win11-042 has vGPU win11-042 \(L40S-8Q\) already. Give it another one\? \[y/N\]")
    shown.type("n\n")
    assert shown.end() == 1
    assert "nothing was changed" in shown.text
    assert not daemon.calls(*PLANS)
    shown = Terminal(*words, host=daemon.host)
    shown.expect(r"another one\?")
    shown.type("y\n")
    assert shown.end() == 0
    assert len(daemon.calls(*OPERATIONS)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "attach win11-042 -p designer --yes",
        "attach win11-042 -p designer --dry-run",
        "attach win11-042 --vgpu win11-042 --live",
        "attach cad-ws-1 -p designer",
        "attach foreign -p designer",
        "attach unread -p designer",
    ],
)
def test_what_is_no_second_vgpu_is_not_asked_about(line: str, daemon: FakeDaemon) -> None:
    other = {**canned.DOMAINS[0]["vgpus"][0], "name": "0000:41:00.5", "type": None, "state": "foreign"}
    daemon.answers["GET", "/v1/domains/foreign"] = {**canned.DOMAINS[0], "vgpus": [other]}
    daemon.answers["GET", "/v1/domains/unread"] = LibvirtUnreachable("libvirt does not answer")
    status, text = terminal.run(*line.split(), host=daemon.host)
    assert (status, "another one" in text) == (0, False), text


def test_a_plan_that_was_shown_and_is_stale_is_not_replaced_silently(daemon: FakeDaemon) -> None:
    from vgpuctl.errors import PlanStale

    daemon.answers |= {PLANS: canned.TOUCHING, OPERATIONS: PlanStale("the host changed", hint="plan again")}
    shown = Terminal("detach", "win11-042", host=daemon.host)
    shown.expect(r"Go on\?")
    shown.type("y\n")
    assert shown.end() == 4
    assert len(daemon.calls(*PLANS)) == 1


def test_steps_are_told_as_they_happen(daemon: FakeDaemon) -> None:
    one, two = canned.STEPS

    def state(first: str, second: str, **given: object) -> canned.Item:
        return canned.operation(steps=[{**one, "state": first}, {**two, "state": second}], **given)

    daemon.answers[OPERATIONS] = state("planned", "planned") | {"state": "running"}
    daemon.in_turn[OPERATION] = [
        state("done", "running") | {"state": "running"},
        state("done", "failed") | {"state": "rolling-back"},
        state("done", "failed")
        | {"state": "failed", "problem": {"code": "rolled-back", "detail": "no free PCI slot; undone"}},
    ]
    status, text = terminal.run("vgpu", "create", "-t", "L40S-8Q", host=daemon.host)
    assert status == 8
    text = plain(text)
    assert text.count("✓ create vGPU cad-1") == 1
    assert text.count("✗ attach vGPU cad-1") == 1
    assert "... attach vGPU cad-1" in text
    assert "vgpuctl: no free PCI slot; undone" in text


def test_ctrl_c_leaves_the_operation_and_says_how_to_come_back(daemon: FakeDaemon) -> None:
    running = canned.operation("running")
    daemon.answers |= {OPERATIONS: running, OPERATION: running}
    shown = Terminal("vgpu", "create", "-t", "L40S-8Q", host=daemon.host)
    shown.expect(r"\.\.\. create vGPU")
    daemon.wait_for(*OPERATION)
    assert shown.end(interrupt=True) == 130
    assert f"vgpuctl operation wait {canned.OPERATION_ID}" in shown.text
    assert "Traceback" not in shown.text
    assert not daemon.calls("POST", f"/v1/operations/{canned.OPERATION_ID}/cancel")


def test_ctrl_c_while_watching(daemon: FakeDaemon) -> None:
    from threading import Event

    never = Event()

    def silent(_request: Request) -> object:
        never.wait(60)
        return []

    daemon.answers["GET", "/v1/events"] = silent
    shown = Terminal("vgpu", "list", "--watch", host=daemon.host)
    shown.expect("win11-042")
    daemon.wait_for("GET", "/v1/events")
    assert shown.end(interrupt=True) == 130
    assert "Traceback" not in shown.text
    never.set()


def test_a_long_event_is_folded_under_its_column(daemon: FakeDaemon) -> None:
    event = {**canned.EVENTS[0], "summary": "begins: attach vGPU win11-003 to domain win11-003 (config)"}
    daemon.answers["GET", "/v1/events"] = Raw(json.dumps(event).encode(), media_type="application/x-ndjson")
    shown = terminal.run("events", "--follow", host=daemon.host)[1].splitlines()
    column = shown[0].index("WHAT")
    assert shown[1][column:] == "begins: attach vGPU"
    assert shown[2] == " " * column + "win11-003 to domain"

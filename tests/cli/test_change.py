"""Changes: what is sent, when a person is asked, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli import canned
from tests.cli.conftest import Run
from tests.cli.fakedaemon import FakeDaemon
from vgpuctl.cli import change
from vgpuctl.errors import (
    LibvirtUnreachable,
    NoCapacity,
    OperationNotFound,
    PlanStale,
    VgpuBusy,
    VgpuctlError,
    VgpuNotFound,
)

PLANS = ("POST", "/v1/plans")
OPERATIONS = ("POST", "/v1/operations")

EDITS = {
    "vgpu create --profile designer": {"action": "create-vgpu", "profile": "designer", "count": 1},
    "vgpu create -t T4-4Q --gpu 1 --name k --count 3": {
        "action": "create-vgpu",
        "type": "T4-4Q",
        "gpu": "0000:61:00.0",
        "name": "k",
        "count": 3,
    },
    "vgpu delete cad-1 --yes": {"action": "delete-vgpu", "vgpu": "cad-1"},
    "attach win11-042 -p designer --yes": {"action": "attach", "domain": "win11-042", "profile": "designer"},
    "attach win11-042 --vgpu cad-1 --live --yes": {
        "action": "attach",
        "domain": "win11-042",
        "vgpu": "cad-1",
        "affect": ["live"],
    },
    "attach win11-042 --type L40S-8Q --gpu GPU-1 --live --config -y": {
        "action": "attach",
        "domain": "win11-042",
        "type": "L40S-8Q",
        "gpu": "GPU-1",
        "affect": ["live", "config"],
    },
    "detach win11-042 --yes": {"action": "detach", "domain": "win11-042"},
    "detach win11-042 --vgpu cad-1 --yes": {"action": "detach", "domain": "win11-042", "vgpu": "cad-1"},
    "adopt 0000:41:00.5 --yes": {"action": "adopt", "vgpu": "0000:41:00.5"},
    "adopt 0000:41:00.5 --name cad-7 --yes": {"action": "adopt", "vgpu": "0000:41:00.5", "name": "cad-7"},
    "adopt --all --yes": {"action": "adopt", "vgpu": None},
    "adopt cad-1 --disable-autostart --yes": {"action": "adopt", "vgpu": "cad-1", "sole_starter": True},
}
SHOWN_FIRST: dict[str, dict[str, Any]] = {
    "repair --yes": {"action": "repair", "subject": None},
    "repair win11-042 --yes": {"action": "repair", "subject": "win11-042"},
    "vgpu prune --yes": {"action": "prune"},
    "gpu replace GPU-old 0000:41:00.0 --yes": {
        "action": "replace-gpu",
        "old": "GPU-old",
        "new": "0000:41:00.0",
    },
}


@pytest.mark.parametrize("line", SHOWN_FIRST)
def test_what_mends_is_shown_before_it_is_done(line: str, vgpuctl: Run, daemon: FakeDaemon) -> None:
    result = vgpuctl(*line.split())
    assert result.status == 0
    (shown,) = daemon.calls(*PLANS)
    assert shown.body == SHOWN_FIRST[line]
    (sent,) = daemon.calls(*OPERATIONS)
    assert set(sent.body) == {"plan"}
    assert "Steps:" in result.err
    dry = vgpuctl(*line.replace("--yes", "--dry-run").split())
    assert "Steps:" in dry.out
    assert len(daemon.calls(*OPERATIONS)) == 1


@pytest.mark.parametrize(
    ("line", "drift", "said"),
    [
        ("repair --yes", [], "there is nothing to mend\n"),
        ("repair --yes", [canned.VANISHED], "nothing was mended: "),
        ("repair win11-042 --yes", [canned.VANISHED], "there is nothing to mend\n"),
    ],
)
def test_a_repair_that_had_nothing_to_do_says_so(
    line: str, drift: list[canned.Item], said: str, vgpuctl: Run, daemon: FakeDaemon
) -> None:
    daemon.answers[OPERATIONS] = canned.operation(steps_total=0, steps_done=0, steps=[])
    daemon.answers["GET", "/v1/host"] = {**canned.HOST, "drift": drift}
    result = vgpuctl(*line.split())
    assert (result.status, result.err.splitlines(keepends=True)[-1].startswith(said)) == (0, True), result.err


def test_a_timeout_is_of_waiting_for_the_turn_and_of_the_operation_together(
    vgpuctl: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = canned.operation("running")
    daemon.answers[OPERATIONS] = daemon.answers["GET", f"/v1/operations/{canned.OPERATION_ID}"] = running
    admitted_after_s = iter([0.0, 59.0])
    monkeypatch.setattr(change, "time", SimpleNamespace(monotonic=lambda: next(admitted_after_s)))
    result = vgpuctl("vgpu", "delete", "cad-1", "--yes", "--timeout", "59")
    assert (result.status, "has not ended in time; it goes on" in result.err) == (7, True)


@pytest.mark.parametrize("line", EDITS)
def test_edit_that_is_sent(line: str, vgpuctl: Run, daemon: FakeDaemon) -> None:
    assert vgpuctl(*line.split()).status == 0
    (sent,) = daemon.calls(*OPERATIONS)
    assert sent.body == EDITS[line]
    assert sent.headers["Idempotency-Key"]
    assert not daemon.calls(*PLANS)


@pytest.mark.parametrize(
    "line",
    [
        "vgpu create",
        "vgpu create -p a -t b",
        "vgpu create -p a --count 0",
        "attach d",
        "attach d -p a --vgpu b",
        "attach d --vgpu b --gpu 0",
        "adopt",
        "adopt x --all",
        "adopt --all --name x",
        "apply",
        "plan",
        "operation wait x --timeout 0",
        "gpu replace 0 0000:41:00.0",
        "gpu list -o xml",
        "gpu list --columns address -o json",
    ],
)
def test_what_makes_no_sense_is_a_usage_error_before_anything_is_asked(
    line: str, vgpuctl: Run, daemon: FakeDaemon
) -> None:
    result = vgpuctl(*line.split())
    assert (result.status, result.out) == (2, "")
    assert not [each for each in daemon.requests if each.method == "POST"]


def test_create_prints_the_vgpu(vgpuctl: Run) -> None:
    result = vgpuctl("vgpu", "create", "-p", "designer")
    assert "win11-042  L40S-8Q" in result.out
    assert vgpuctl("vgpu", "create", "-p", "designer", "-o", "name").out == "win11-042\n"
    assert json.loads(vgpuctl("vgpu", "create", "-p", "designer", "--json").out) == [canned.VGPU]


def test_an_index_is_echoed_as_an_address(vgpuctl: Run) -> None:
    """An index changes with the cards: who used one is told what it meant."""
    result = vgpuctl("vgpu", "create", "-t", "T4-4Q", "--gpu", "1", "-o", "name")
    assert result.out == "win11-042\n"
    assert "GPU 1 is 0000:61:00.0" in result.err


def test_attach_prints_what_came(vgpuctl: Run) -> None:
    result = vgpuctl("attach", "win11-042", "-p", "designer", "--yes")
    assert result.out == "win11-042: L40S-8Q on 0000:41:00.4 (vGPU win11-042)\n"


def test_talk_is_not_data(vgpuctl: Run) -> None:
    result = vgpuctl("vgpu", "delete", "cad-1", "--yes")
    assert (result.out, result.err) == ("", "vGPU cad-1 is deleted\n")
    assert vgpuctl("vgpu", "delete", "cad-1", "--yes", "-q").err == ""
    assert vgpuctl("-q", "vgpu", "delete", "cad-1", "--yes").err == ""
    assert json.loads(vgpuctl("vgpu", "delete", "cad-1", "--yes", "--json").out)["state"] == "succeeded"


def test_dry_run_shows_the_plan_and_submits_nothing(vgpuctl: Run, daemon: FakeDaemon) -> None:
    result = vgpuctl("vgpu", "create", "-t", "L40S-8Q", "--dry-run")
    assert result.status == 0
    assert "create vGPU cad-1 (L40S-8Q)" in result.out
    assert result.out.endswith("drift: 1 step, touches no running guest\n")
    assert not daemon.calls(*OPERATIONS)


def test_dry_run_of_what_cannot_be_done_fails_as_it_would(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers[PLANS] = canned.REFUSED
    result = vgpuctl("vgpu", "create", "-t", "T4-16Q", "-n")
    assert result.status == NoCapacity.exit_status
    assert "hint: T4-4Q would fit" in result.out
    result = vgpuctl("vgpu", "create", "-t", "T4-16Q", "-n", "--json")
    assert result.status == NoCapacity.exit_status
    assert json.loads(result.out) == canned.REFUSED
    assert json.loads(result.err)["code"] == "no-capacity"


def test_no_wait_prints_the_id(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers[OPERATIONS] = canned.operation("running")
    result = vgpuctl("vgpu", "create", "-t", "L40S-8Q", "--no-wait")
    assert result.out == f"{canned.OPERATION_ID}\n"
    assert not daemon.calls("GET", f"/v1/operations/{canned.OPERATION_ID}")


def test_timeout_leaves_the_operation_alone(vgpuctl: Run, daemon: FakeDaemon) -> None:
    running = canned.operation("running")
    daemon.answers |= {OPERATIONS: running, ("GET", f"/v1/operations/{canned.OPERATION_ID}"): running}
    result = vgpuctl("vgpu", "create", "-t", "L40S-8Q", "--timeout", "0.01")
    assert result.status == 7
    assert f"operation wait {canned.OPERATION_ID}" in result.err
    assert not daemon.calls("POST", f"/v1/operations/{canned.OPERATION_ID}/cancel")


def test_what_touches_nobody_is_done_as_planned_without_a_question(vgpuctl: Run, daemon: FakeDaemon) -> None:
    assert vgpuctl("vgpu", "delete", "cad-1").status == 0
    assert daemon.calls(*OPERATIONS)[0].body == {"plan": "p-1"}


def test_what_touches_a_running_domain_needs_a_terminal_or_yes(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers[PLANS] = canned.TOUCHING
    result = vgpuctl("detach", "win11-042")
    assert result.status == 2
    assert "--yes" in result.err
    assert "attach vGPU cad-1 to domain win11-042" in result.err
    assert not daemon.calls(*OPERATIONS)
    assert json.loads(vgpuctl("detach", "win11-042", "--json").err)["code"] == "invalid-input"


def test_a_definition_can_change_without_a_question(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers[PLANS] = canned.TOUCHING
    assert vgpuctl("attach", "win11-042", "-p", "designer", "--config").status == 0
    assert vgpuctl("attach", "win11-042", "-p", "designer", "--live").status == 2


def test_a_plan_that_is_not_complete_may_still_come_to_its_domain(vgpuctl: Run, daemon: FakeDaemon) -> None:
    """VFs that are turned on show their types only then: the attach is not in the first plan."""
    daemon.answers[PLANS] = {**canned.QUIET, "incomplete": True}
    assert vgpuctl("attach", "win11-042", "-p", "designer").status == 2
    assert not daemon.calls(*OPERATIONS)
    assert vgpuctl("attach", "win11-042", "-p", "designer", "--config").status == 0
    assert vgpuctl("attach", "cad-ws-1", "-p", "designer").status == 0


def test_what_touches_only_domains_that_are_off_needs_no_question(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers[PLANS] = {**canned.TOUCHING, "touches": ["cad-ws-1"]}
    assert vgpuctl("detach", "cad-ws-1").status == 0


def test_a_domain_whose_state_is_not_known_counts_as_running(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers[PLANS] = {**canned.TOUCHING, "touches": ["cad-ws-1"]}
    daemon.answers["GET", "/v1/domains"] = LibvirtUnreachable("libvirt does not answer")
    assert vgpuctl("detach", "cad-ws-1").status == 2
    daemon.answers["GET", "/v1/domains"] = []
    assert vgpuctl("detach", "cad-ws-1").status == 2
    assert not daemon.calls(*OPERATIONS)


@pytest.mark.parametrize("refusal", [PlanStale("the host changed"), OperationNotFound("no plan is kept")])
def test_a_stale_plan_that_nobody_has_seen_is_made_anew(
    vgpuctl: Run, daemon: FakeDaemon, refusal: VgpuctlError
) -> None:
    """So is that of a daemon that was killed: the next one does not keep it."""
    daemon.in_turn[OPERATIONS] = [refusal, canned.operation()]
    assert vgpuctl("vgpu", "delete", "cad-1").status == 0
    assert len(daemon.calls(*PLANS)) == 2


def test_a_plan_that_is_stale_again_and_again_is_given_up_in_the_end(
    vgpuctl: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "_AGAIN_S", 0.5)
    monkeypatch.setattr(change, "_PAUSE_S", 0.1)
    daemon.answers[OPERATIONS] = PlanStale("the host changed")
    assert vgpuctl("vgpu", "delete", "cad-1").status == 4
    assert len(daemon.calls(*OPERATIONS)) > 5


def test_apply_refuses_without_a_terminal_unless_yes(process: Run, daemon: FakeDaemon) -> None:
    refused = process("apply", "-f", "-", stdin="kind: Vgpu\n")
    assert refused.status == 2
    assert "+ Vgpu/cad-1" in refused.err
    assert not daemon.calls(*OPERATIONS)
    done = process("apply", "-f", "-", "--prune", "--yes", stdin="kind: Vgpu\n")
    assert (done.status, done.out) == (0, "")
    assert daemon.calls(*PLANS)[-1].body == {"action": "apply", "source": "kind: Vgpu\n", "prune": True}
    assert daemon.calls(*OPERATIONS)[-1].body == {"plan": "p-1"}


def test_apply_of_what_already_holds_needs_no_answer(process: Run, daemon: FakeDaemon) -> None:
    daemon.answers[PLANS] = canned.MATCH
    assert process("apply", "-f", "-", stdin="{}").status == 0


def test_several_files_become_one_stream_of_documents(vgpuctl: Run, daemon: FakeDaemon, tmp_path) -> None:
    for name, text in (("a", "kind: A\n"), ("b", "---\nkind: B\n"), ("c", '{"kind": "C"}')):
        (tmp_path / name).write_text(text)
    files = [part for name in "abc" for part in ("-f", str(tmp_path / name))]
    assert vgpuctl("plan", *files).status == 0
    source = daemon.requests[-1].body["source"]
    import yaml

    assert list(yaml.safe_load_all(source)) == [{"kind": "A"}, {"kind": "B"}, {"kind": "C"}]


@pytest.mark.parametrize(
    ("plan", "status"),
    [
        (canned.MATCH, 0),
        ({**canned.MATCH, "changes": canned.QUIET["changes"]}, 10),
        (canned.QUIET, 10),
        (canned.UNREADABLE, 7),
    ],
)
def test_three_answers(plan: canned.Item, status: int, process: Run, daemon: FakeDaemon) -> None:
    """MATCH, DRIFT and UNKNOWN are three exit statuses: what could not be read is never "matches"."""
    daemon.answers[PLANS] = plan
    assert process("assert", "-f", "-").status == status
    assert process("plan", "-f", "-", "--detailed-exitcode").status == status
    assert process("plan", "-f", "-").status == (7 if plan is canned.UNREADABLE else 0)
    assert not daemon.calls(*OPERATIONS)


def test_what_cannot_be_done_is_not_called_pending(vgpuctl: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.answers[PLANS] = canned.REFUSED
    (tmp_path / "a.yaml").touch()
    files = ("-f", str(tmp_path / "a.yaml"))
    for words in (["plan"], ["plan", "--detailed-exitcode"], ["assert"], ["apply", "-n"]):
        result = vgpuctl(*words, *files)
        assert (result.status, result.err) == (NoCapacity.exit_status, ""), words
        assert "Cannot be done:" in result.out
    result = vgpuctl("assert", *files, "-o", "json")
    assert (result.status, json.loads(result.out)) == (NoCapacity.exit_status, canned.REFUSED)
    assert json.loads(result.err)["code"] == "no-capacity"
    result = vgpuctl("assert", "-q", *files)
    assert (result.status, result.out) == (NoCapacity.exit_status, "")
    assert result.err == "vgpuctl: no T4-16Q fits: 0000:61:00.0 is full\n  hint: T4-4Q would fit\n"
    assert "no T4-16Q" in vgpuctl("plan", *files, "--columns", "id").err


@pytest.mark.parametrize("line", ["plan -f FILE", "assert -f FILE", "apply -f FILE -n", "detach a -n"])
def test_a_plan_is_no_csv(line: str, vgpuctl: Run, daemon: FakeDaemon) -> None:
    result = vgpuctl(*line.replace("FILE", "/dev/null").split(), "-o", "csv")
    assert (result.status, result.out) == (2, "")
    assert "-o json, yaml and table show it" in result.err
    assert daemon.requests == []


def test_chosen_fields_of_a_plan_are_csv(vgpuctl: Run) -> None:
    result = vgpuctl("detach", "win11-042", "-n", "-o", "csv", "--columns", "id,verdict")
    assert (result.status, result.out) == (0, "id,verdict\np-1,drift\n")


def test_a_file_that_is_not_there(vgpuctl: Run) -> None:
    result = vgpuctl("plan", "-f", "/nonexistent/x.yaml")
    assert result.status == 2
    assert "/nonexistent/x.yaml" in result.err


def test_pause_and_resume(vgpuctl: Run, daemon: FakeDaemon) -> None:
    assert vgpuctl("pause").status == 0
    assert json.loads(vgpuctl("pause", "--json").out)["paused"] is True
    assert vgpuctl("resume").status == 0
    assert [each.path for each in daemon.requests] == ["/v1/pause", "/v1/pause", "/v1/resume"]


def test_cancelling_is_a_success_when_it_was_cancelled(vgpuctl: Run, daemon: FakeDaemon) -> None:
    assert vgpuctl("operation", "cancel", canned.OPERATION_ID).status == 0
    undoing = canned.operation("rolling-back")
    daemon.answers["POST", f"/v1/operations/{canned.OPERATION_ID}/cancel"] = undoing
    daemon.answers["GET", f"/v1/operations/{canned.OPERATION_ID}"] = canned.operation("cancelled")
    result = vgpuctl("operation", "cancel", canned.OPERATION_ID, "--json")
    assert (result.status, json.loads(result.out)["state"]) == (0, "cancelled")
    daemon.answers["GET", f"/v1/operations/{canned.OPERATION_ID}"] = canned.operation("needs-operator")
    assert vgpuctl("operation", "cancel", canned.OPERATION_ID).status == 9


FULL = {
    **canned.QUIET,
    "problems": [
        {**NoCapacity(f"no room for {name}", hint="remove some").to_problem(), "subject": name}
        for name in ("win11-001", "win11-002", "win11-003")
    ],
}


def test_what_is_the_same_with_many_is_told_once(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers[PLANS] = FULL
    shown = vgpuctl("vgpu", "create", "-p", "designer", "--dry-run").out.partition("Cannot be done:")[2]
    assert shown.splitlines()[1:4] == [
        "  win11-001: no room for win11-001",
        "    hint: remove some",
        "    the same with win11-002, win11-003",
    ]
    assert "no room for win11-002" not in shown


def test_a_plan_that_would_be_refused_asks_nothing(vgpuctl: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.answers[PLANS] = FULL
    (tmp_path / "a.yaml").touch()
    result = vgpuctl("apply", "-f", str(tmp_path / "a.yaml"))
    assert result.status == 5
    assert not daemon.calls(*OPERATIONS)


@pytest.mark.parametrize(
    "line", ["mig disable GPU-1", "mig apply --gpu GPU-1 --layout 2g.20gb:1", "repair a", "vgpu prune"]
)
def test_a_refusal_is_told_once(line: str, vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers[PLANS] = canned.REFUSED
    result = vgpuctl(*line.split())
    assert (result.status, result.out) == (5, "")
    assert result.err.count("no T4-16Q fits") == result.err.count("T4-4Q would fit") == 1
    assert result.err.endswith("\nnothing was changed\n")
    quiet = vgpuctl(*line.split(), "--yes", "-q")
    assert (quiet.status, quiet.err.count("no T4-16Q fits")) == (5, 1)
    assert json.loads(vgpuctl(*line.split(), "--json").err)["code"] == "no-capacity"
    assert not daemon.calls(*OPERATIONS)


def test_a_refusal_says_how_many_more_there_are(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers[OPERATIONS] = NoCapacity("no room for a", problems=FULL["problems"])
    shown = vgpuctl("vgpu", "create", "-t", "T4-4Q", "--count", "3").err
    assert "and 2 more cannot be done" in shown


def test_nothing_to_adopt_is_said(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers[OPERATIONS] = canned.operation(result={"vgpus": []})
    result = vgpuctl("adopt", "--all", "--yes")
    assert (result.out, result.err) == ("", "there is no vGPU that is not ours\n")
    assert vgpuctl("adopt", "--all", "--yes", "--json").out == "[]\n"


def test_several_are_deleted_one_after_the_other(vgpuctl: Run, daemon: FakeDaemon) -> None:
    result = vgpuctl("vgpu", "delete", "a", "b", "a", "--yes")
    assert (result.status, result.err) == (0, "vGPU a is deleted\nvGPU b is deleted\n")
    sent = [each.body for each in daemon.calls(*OPERATIONS)]
    assert sent == [{"action": "delete-vgpu", "vgpu": each} for each in "ab"]
    assert vgpuctl("vgpu", "delete", "a", "b", "-n").out.count("Steps:") == 2
    assert vgpuctl("vgpu", "delete", "a", "b", "--json").status == 2
    assert len(daemon.calls(*OPERATIONS)) == 2


def test_nothing_is_deleted_where_one_cannot_be(vgpuctl: Run, daemon: FakeDaemon) -> None:
    for refusal, status in ((VgpuNotFound("no vGPU 'b'"), 3), (canned.REFUSED, 5)):
        daemon.in_turn[PLANS] = [canned.QUIET, refusal, canned.QUIET]
        result = vgpuctl("vgpu", "delete", "a", "b", "c", "--yes")
        assert (result.status, result.out) == (status, "")
    assert not daemon.calls(*OPERATIONS)


def test_what_comes_after_a_failure_is_left_alone(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.in_turn[OPERATIONS] = [canned.operation(), VgpuBusy("somebody holds b"), canned.operation()]
    result = vgpuctl("vgpu", "delete", "a", "b", "c", "d", "--yes")
    assert result.status == 4
    assert result.err == "vGPU a is deleted\nleft alone: c, d\nvgpuctl: somebody holds b\n"
    assert len(daemon.calls(*OPERATIONS)) == 2

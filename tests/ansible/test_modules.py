"""Modules, by a real ansible-playbook, against a real daemon on simulated cards."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.ansible.controller import Controller, Run
from tests.support.daemon import Daemon, running
from vgpuctl.client.client import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WISHES = """
- {name: profile, vgpuctl.vgpuctl.apply: {documents: [{kind: Profile, name: cad, types: [L40S-8Q, T4-8Q]}]}}
- {name: desktop, vgpuctl.vgpuctl.attachment: {domain: win1, type: L40S-8Q}}
- {name: vgpu, vgpuctl.vgpuctl.vgpu: {name: render, type: T4-4Q, gpu: "0", owner: ops}}
- name: mig
  vgpuctl.vgpuctl.gpu: {gpu: "2", repair: ask, mig: {profiles: {2g.20gb: "{{ '2' }}", 1g.10gb: 1}}}
- name: several
  vgpuctl.vgpuctl.apply:
    source: |
      apiVersion: vgpuctl/v1
      kind: Desktop
      name: win2
      vgpus: [{type: T4-4Q}]
"""
ABSENT = """
- {name: desktop, vgpuctl.vgpuctl.attachment: {domain: win1, state: absent}}
- {name: no-such-desktop, vgpuctl.vgpuctl.attachment: {domain: win9, state: absent}}
- {name: vgpu, vgpuctl.vgpuctl.vgpu: {name: render, state: absent}}
- {name: mig, vgpuctl.vgpuctl.gpu: {gpu: "2", mig: {enabled: false}}}
"""
PRUNED = """
- name: pruned
  vgpuctl.vgpuctl.apply: {prune: true, documents: [{kind: Desktop, name: win1, vgpus: [{type: T4-4Q}]}]}
"""
INFO = (
    "- {name: info, vgpuctl.vgpuctl.info: {gather: [host, gpus, types, profiles, vgpus, domains, documents]}}"
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One daemon for tests that leave nothing behind."""
    with running(tmp_path_factory.mktemp("shared"), cards="t4,l40s:sriov-mdev,a100-80") as daemon:
        yield daemon


def done_well(run: Run) -> Run:
    assert run.status == 0, run.output
    return run


def documents(daemon: Daemon) -> dict[str, Any]:
    listed = Client(daemon.env["VGPUCTL_HOST"]).get("/v1/documents")
    return {f"{each['kind']}/{each['name']}": each for each in listed}


def test_check_says_what_a_run_does_and_the_next_run_does_nothing(controller: Controller, daemon: Daemon):
    """Each task stands for itself: in check mode none sees what another one would have done."""
    ran = thrice(controller, daemon, WISHES, ["profile", "desktop", "vgpu", "mig", "several"])
    assert ran["desktop"]["vgpus"] == [daemon.json("vgpu", "show", "win1")]
    assert ran["vgpu"]["vgpu"]["owner"] == "ops"
    cut = [each["profile"] for each in ran["mig"]["gpu"]["gpu_instances"]]
    assert sorted(cut) == ["1g.10gb", "2g.20gb", "2g.20gb"]

    thrice(controller, daemon, ABSENT, ["desktop", "vgpu", "mig"])
    assert set(documents(daemon)) == {"Profile/cad", "Gpu/0000:81:00.0", "Desktop/win2"}
    assert documents(daemon)["Gpu/0000:81:00.0"]["repair"] == "ask", "what is left out stays"
    assert daemon.json("gpu", "show", "2")["mig"] is False

    thrice(controller, daemon, PRUNED, ["pruned"])
    assert set(documents(daemon)) == {"Profile/cad", "Gpu/0000:81:00.0", "Desktop/win1"}


def thrice(controller: Controller, daemon: Daemon, tasks: str, changing: list[str]) -> Run:
    """Check, run, and run again; the run."""
    before = documents(daemon), daemon.json("vgpu", "list")
    checked = done_well(controller.tasks(daemon.socket, tasks, "--check", "--diff"))
    assert (documents(daemon), daemon.json("vgpu", "list")) == before
    ran = done_well(controller.tasks(daemon.socket, tasks, "--diff"))
    assert checked.changed == ran.changed == changing
    told = dict(before[0])
    for task in changing:
        foreseen, done = checked[task], ran[task]
        assert foreseen["diff"] == done["diff"]
        assert (foreseen["operation"], done["operation"]["state"]) == (None, "succeeded")
        planned = [each["summary"] for each in foreseen["plan"]["steps"]]
        performed = [each["summary"] for each in done["operation"]["steps"]]
        assert performed[: len(planned)] == planned
        assert foreseen["plan"]["incomplete"] or performed == planned
        told |= {each["after_header"]: each["after"] for each in foreseen["diff"] if "after" in each}
        for chosen in foreseen["plan"]["vgpus"]:
            there = daemon.json("vgpu", "show", chosen["name"])
            assert (there["state"], there["type"], there["gpu"]) == ("present", chosen["type"], chosen["gpu"])
        assert any(
            each.get("prepared", "").splitlines()[: len(planned)] for each in foreseen["diff"]
        ) == bool(planned)
    assert documents(daemon) == {key: document for key, document in told.items() if document}
    again = done_well(controller.tasks(daemon.socket, tasks, "--diff"))
    assert again.changed == []
    assert {(each["operation"] is None, len(each["diff"])) for each in again.results} == {(True, 0)}
    return ran


def test_entries_of_a_desktop_are_told_apart(controller: Controller, daemon: Daemon):
    """A second vGPU, one that there is already, another type for the first; each leaves the others alone."""
    tasks = """
- {name: spare, vgpuctl.vgpuctl.vgpu: {name: spare, type: T4-4Q}}
- {name: first, vgpuctl.vgpuctl.attachment: {domain: win1, type: L40S-8Q}}
- {name: second, vgpuctl.vgpuctl.attachment: {domain: win1, name: extra, type: T4-4Q, affect: [config]}}
- {name: third, vgpuctl.vgpuctl.attachment: {domain: win1, vgpu: spare}}
"""
    assert done_well(controller.tasks(daemon.socket, tasks)).changed == ["spare", "first", "second", "third"]
    assert done_well(controller.tasks(daemon.socket, tasks)).changed == []
    other = """
- {name: type, vgpuctl.vgpuctl.attachment: {domain: win1, profile: designer}}
- {name: one, vgpuctl.vgpuctl.attachment: {domain: win1, name: extra, state: absent}}
"""
    assert done_well(controller.tasks(daemon.socket, other)).changed == ["type", "one"]
    assert documents(daemon)["Desktop/win1"]["vgpus"] == [
        {"name": "win1", "profile": "designer"},
        {"name": "spare", "vgpu": "spare"},
    ]
    assert done_well(controller.tasks(daemon.socket, other)).changed == []


def test_info_says_what_there_is_and_changes_nothing(controller: Controller, shared: Daemon):
    info = done_well(controller.tasks(shared.socket, INFO, "--check"))["info"]
    assert info["host"]["simulated"] is True
    assert [each["model"] for each in info["gpus"]] == ["Tesla T4", "NVIDIA L40S", "NVIDIA A100 80GB PCIe"]
    assert [each["name"] for each in info["domains"]][:2] == ["win1", "win2"]
    assert {each["name"]: each["creatable"] for each in info["profiles"]}["designer"] == "L40S-8Q"
    assert "T4-4Q" in {each["name"] for each in info["types"]}
    assert (info["vgpus"], info["documents"], info["changed"]) == ([], [], False)


REFUSED = {
    "{name: x, type: L40S-9Q}": ("invalid-input", "L40S-8Q", "Vgpu/x: type"),
    "{name: x, profile: desiner}": ("invalid-input", "designer", "Vgpu/x: profile"),
    "{name: 'a b', type: T4-4Q}": ("invalid-input", "letters", "document 1 (Vgpu/a b): name"),
    "{name: x, type: A40-8Q}": ("no-capacity", "A40", "x"),
    "{name: x, type: T4-4Q, gpu: '9'}": ("gpu-not-found", "0000:41:00.0", None),
    "{name: x, state: absent, socket: /nowhere}": ("daemon-unreachable", "systemctl status vgpuctl", None),
}


SHARED = """
- name: shared
  vgpuctl.vgpuctl.gpu:
    gpu: "2"
    mig:
      instances:
        - {profile: 2g.20gb, start: 0, compute_instances: {1c.2g.20gb: "{{ '1' }}"}}
        - {profile: 3g.40gb, start: 4}
"""


def test_compute_instances_where_a_task_asks_for_them(controller: Controller, daemon: Daemon):
    ran = thrice(controller, daemon, SHARED, ["shared"])
    shares = {each["start"]: each["compute_instances"] for each in ran["shared"]["gpu"]["gpu_instances"]}
    assert shares == {0: ["1c.2g.20gb"], 4: []}


@pytest.mark.parametrize("mode", [(), ("--check",)], ids=["run", "check"])
def test_a_failure_has_code_hint_and_place(controller: Controller, shared: Daemon, mode):
    """In check mode just as in a run."""
    tasks = "\n".join(
        f"- {{name: task {n}, ignore_errors: true, vgpuctl.vgpuctl.vgpu: {options}}}"
        for n, options in enumerate(REFUSED)
    )
    tasks += (
        "\n- {name: desktop, ignore_errors: true, vgpuctl.vgpuctl.attachment: {domain: wim1, type: T4-4Q}}"
    )
    run = done_well(controller.tasks(shared.socket, tasks, *mode))
    for n, (code, says, place) in enumerate(REFUSED.values()):
        result = run[f"task {n}"]
        assert (result["state"], result["code"]) == ("failed", code)
        assert says in result["msg"]
        assert result["hint"] is None or result["hint"] in result["msg"]
        assert result["where"] == ([] if place is None else [place])
    assert (run["desktop"]["code"], run["desktop"]["where"]) == ("domain-not-found", ["wim1"])
    assert documents(shared) == {}


def test_a_step_that_fails_is_undone_and_named(controller: Controller, daemon: Daemon):
    daemon.ok("sim", "fail", "create", "--count", "9")
    run = controller.tasks(
        daemon.socket, "- {name: two, vgpuctl.vgpuctl.attachment: {domain: win1, type: L40S-8Q}}"
    )
    result = run["two"]
    assert (result["state"], result["code"]) == ("failed", "rolled-back")
    assert "NVRM" in result["msg"]
    assert daemon.json("operation", "show", result["facts"]["operation"])["state"] == "failed"
    assert documents(daemon) == {}


def test_a_running_guest_is_touched_only_when_that_is_said(controller: Controller, daemon: Daemon):
    """The VFs are off, so that the plan cannot say yet whether it will come to the guest."""
    daemon.kill(signal.SIGTERM)
    path = daemon.directory / "libvirt.xml"
    path.write_text(path.read_text().replace("runstate>5<", "runstate>1<", 1))
    daemon.start()
    task = "- {name: live, vgpuctl.vgpuctl.attachment: {domain: win1, type: L40S-8Q%s}}"
    for mode in ((), ("--check",)):
        refused = controller.tasks(daemon.socket, task % "", *mode)["live"]
        assert (refused["code"], refused["where"]) == ("domain-state", ["win1"])
        assert "touch_running" in refused["hint"]
    assert daemon.json("operation", "list") == []
    definition = controller.tasks(daemon.socket, task % ", affect: [config]", "--check")
    assert done_well(definition).changed == ["live"]
    allowed = controller.tasks(daemon.socket, task % ", touch_running: true")
    assert done_well(allowed).changed == ["live"]

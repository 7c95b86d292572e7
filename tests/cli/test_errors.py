"""Errors: exit statuses of every class, their text, and problem documents."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli import canned
from tests.cli.conftest import Run
from tests.cli.fakedaemon import FakeDaemon
from vgpuctl.errors import InvalidInput, NoCapacity, VgpuctlError

CODES = sorted(VgpuctlError._by_code)


@pytest.mark.parametrize("code", CODES)
def test_exit_status_of_every_error(code: str, vgpuctl: Run, daemon: FakeDaemon) -> None:
    kind = VgpuctlError._by_code[code]
    daemon.answers["GET", "/v1/gpus"] = kind("it is so", hint="do this")
    result = vgpuctl("gpu", "list")
    assert (result.status, result.out) == (kind.exit_status, "")
    assert result.err == "vgpuctl: it is so\n  hint: do this\n"


def test_problem_document_under_json(vgpuctl: Run, daemon: FakeDaemon) -> None:
    error = NoCapacity("nothing fits", hint="wait", gpus=["0000:41:00.0"])
    daemon.answers["GET", "/v1/gpus"] = error
    result = vgpuctl("gpu", "list", "-o", "json")
    assert (result.status, result.out) == (5, "")
    assert json.loads(result.err) == error.to_problem()


def test_every_fault_has_its_line(vgpuctl: Run, daemon: FakeDaemon) -> None:
    faults = [
        {"document": "document 2 (Vgpu/foo)", "path": "type", "message": "give exactly one"},
        {"document": "document 3", "path": "", "message": "no kind"},
    ]
    daemon.answers["GET", "/v1/gpus"] = InvalidInput("2 faults", faults=faults)
    assert vgpuctl("gpu", "list").err.splitlines() == [
        "vgpuctl: 2 faults",
        "  - document 2 (Vgpu/foo): type: give exactly one",
        "  - document 3: no kind",
    ]


def test_the_only_fault_is_not_told_twice(vgpuctl: Run, daemon: FakeDaemon) -> None:
    fault = {"document": None, "path": "types", "message": "must not be empty"}
    daemon.answers["GET", "/v1/gpus"] = InvalidInput("request: types: must not be empty", faults=[fault])
    assert vgpuctl("gpu", "list").err == "vgpuctl: request: types: must not be empty\n"


def test_an_unknown_code_keeps_its_status(vgpuctl: Run, daemon: FakeDaemon) -> None:
    """A newer daemon may know errors that this client does not."""

    class Newer(VgpuctlError):
        code = "newer"
        exit_status = 5

    daemon.answers["GET", "/v1/gpus"] = Newer("later than you think")
    del VgpuctlError._by_code["newer"]
    result = vgpuctl("gpu", "list", "--json")
    assert (result.status, json.loads(result.err)["code"]) == (5, "newer")


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        (canned.operation("failed", problem={"code": "no-capacity", "detail": "full"}), 5),
        (canned.operation("failed", steps_done=1, problem={"code": "kernel-refused", "detail": "EIO"}), 1),
        (canned.operation("failed", steps_done=1, problem={"code": "rolled-back", "detail": "EIO"}), 8),
        (canned.operation("cancelled"), 8),
        (canned.operation("needs-operator", problem={"code": "kernel-refused", "detail": "EIO"}), 9),
    ],
)
def test_exit_status_of_an_operation(
    ended: canned.Item, status: int, vgpuctl: Run, daemon: FakeDaemon
) -> None:
    daemon.answers["POST", "/v1/operations"] = canned.operation("running")
    daemon.answers["GET", f"/v1/operations/{canned.OPERATION_ID}"] = ended
    result = vgpuctl("vgpu", "create", "-t", "T4-4Q", "--json")
    assert (result.status, result.out) == (status, "")
    assert json.loads(result.err)["exit_status"] == status
    assert vgpuctl("operation", "wait", canned.OPERATION_ID).status == status


def test_no_daemon(vgpuctl: Run, tmp_path: Path) -> None:
    result = vgpuctl("-H", f"unix://{tmp_path}/none", "gpu", "list")
    assert result.status == 7
    assert "vgpuctl daemon --simulate" in result.err
    assert result.err.startswith(f"vgpuctl: no daemon answers at {tmp_path}/none: no such file")


def test_a_name_cannot_act_on_the_terminal(vgpuctl: Run, daemon: FakeDaemon) -> None:
    """Domain names come from whoever may define domains; an escape sequence must not be obeyed."""
    daemon.answers["GET", "/v1/domains"] = [{**canned.DOMAINS[0], "name": "x\x1b[2Jy\n"}]
    assert "\x1b" not in vgpuctl("domain", "list").out
    daemon.answers["GET", "/v1/domains"] = NoCapacity("a\x1b[2Jb", hint="c\x07")
    result = vgpuctl("domain", "list")
    assert "\x1b" not in result.err
    assert "\x07" not in result.err


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("gpus list", "Did you mean gpu"),
        ("vgpu crate", "Did you mean create"),
        ("aply", "Did you mean apply"),
    ],
)
def test_unknown_commands_get_near_ones(line: str, suggestion: str, vgpuctl: Run) -> None:
    result = vgpuctl(*line.split())
    assert result.status == 2
    assert suggestion in result.err


def test_debug_says_the_calls(vgpuctl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    result = vgpuctl("gpu", "list", "-v")
    assert result.err.splitlines()[0] == "> GET /v1/gpus"
    assert result.err.splitlines()[1].startswith("< 200 application/json")
    monkeypatch.setenv("VGPUCTL_LOG", "debug")
    assert vgpuctl("gpu", "list").err.startswith("> GET /v1/gpus")


def test_query(vgpuctl: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    assert json.loads(vgpuctl("query", "get", "/v1/gpus/0").out) == canned.L40S
    (tmp_path / "body").write_text('{"action": "adopt"}')
    assert vgpuctl("query", "POST", "/v1/plans", "-d", f"@{tmp_path}/body").status == 0
    assert daemon.requests[-1].body == {"action": "adopt"}
    assert vgpuctl("query", "POST", "/v1/plans", "-d", "{").status == 2
    assert vgpuctl("query", "GET", "v1").status == 2
    assert vgpuctl("query", "GET", "/v1/nothing").status == 3


def test_capture_is_whole_and_private(vgpuctl: Run, tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    assert vgpuctl("host", "capture", "-f", str(file)).status == 0
    assert json.loads(file.read_text())["format"] == "vgpuctl-capture/1"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir() if each.name != "s"] == ["host.json"]
    assert vgpuctl("host", "capture", "-f", f"{tmp_path}/no/where").status == 1


def test_capture_replaces_no_device_and_no_link(vgpuctl: Run, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    assert vgpuctl("host", "capture", "-f", str(link)).status == 0
    assert link.is_symlink()
    assert json.loads(target.read_text())["format"] == "vgpuctl-capture/1"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert vgpuctl("host", "capture", "-f", str(pipe)).status == 0
        assert json.loads(os.read(reader, 1 << 16))["format"] == "vgpuctl-capture/1"
    finally:
        os.close(reader)
    assert pipe.is_fifo()

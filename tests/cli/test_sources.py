"""Files of documents: what is wrong with them is told by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.fakedaemon import FakeDaemon, Request
from vgpuctl.errors import InvalidInput

PLANS = ("POST", "/v1/plans")


@pytest.fixture
def marked(daemon: FakeDaemon) -> FakeDaemon:
    """A daemon that finds a fault in every line with the word WRONG."""

    def refuse(request: Request) -> InvalidInput:
        lines = enumerate(request.body["source"].split("\n"), 1)
        faults = [
            {"document": "Vgpu/a", "path": "type", "message": text, "line": number}
            for number, text in lines
            if "WRONG" in text
        ]
        return InvalidInput("request: no good", faults=faults)

    daemon.answers[PLANS] = refuse
    return daemon


@pytest.mark.parametrize("first", ["a\n", "a", "---\na\n", "a\nb\n\n"])
@pytest.mark.parametrize("mark", ["", "---\n"])
def test_lines_are_counted_in_each_file(
    first: str, mark: str, vgpuctl: Run, marked: FakeDaemon, tmp_path: Path
) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"WRONG 1\n{first}")
    two.write_text(f"{mark}x\nWRONG 2\nWRONG 3")
    second = 2 + mark.count("\n")
    result = vgpuctl("apply", "--yes", "-f", str(one), "-f", str(two))
    assert result.status == 2
    assert result.err.splitlines() == [
        f"vgpuctl: {one}, {two}: 3 faults",
        f"  - {one}:1: Vgpu/a: type: WRONG 1",
        f"  - {two}:{second}: Vgpu/a: type: WRONG 2",
        f"  - {two}:{second + 1}: Vgpu/a: type: WRONG 3",
    ]
    assert marked.calls(*PLANS)


def test_the_only_fault_is_the_message(vgpuctl: Run, marked: FakeDaemon, tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text("a\nWRONG\n")
    assert vgpuctl("plan", "-f", str(file)).err == f"vgpuctl: {file}:2: Vgpu/a: type: WRONG\n"
    problem = json.loads(vgpuctl("plan", "-f", str(file), "-o", "json").err)
    assert problem["facts"]["faults"][0]["file"] == str(file)
    assert marked.calls(*PLANS)


def test_a_fault_without_a_line_is_of_all_files(vgpuctl: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    faults = [{"document": "", "path": "", "message": "holds no document"}]
    daemon.answers[PLANS] = InvalidInput("request: holds no document", faults=faults)
    shown = vgpuctl("assert", "-f", str(tmp_path / "empty.yaml")).err
    assert shown == f"vgpuctl: {tmp_path}/empty.yaml: holds no document\n"


def test_a_file_that_cannot_be_read(vgpuctl: Run, tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xfcber\n")
    result = vgpuctl("plan", "-f", str(tmp_path / "latin.yaml"), "-o", "json")
    problem = json.loads(result.err)
    assert (result.status, problem["code"]) == (2, "invalid-input")
    assert "is not UTF-8 text" in problem["detail"]

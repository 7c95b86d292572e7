"""A fake daemon, and three ways to run the command line: in this process, as a process, on a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli import canned
from tests.cli.fakedaemon import FakeDaemon, serving
from vgpuctl.cli.main import run

CHECKOUT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VGPUCTL_HOST", "VGPUCTL_LOG", "NO_COLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with serving(tmp_path / "s") as fake:
        fake.answers = canned.changes()
        yield fake


@pytest.fixture
def vgpuctl(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process, without a terminal."""
    monkeypatch.setenv("VGPUCTL_HOST", daemon.host)

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        try:
            status = run(list(arguments))
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return call


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONUTF8": "1", **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vgpuctl", *arguments]


@pytest.fixture
def process(daemon: FakeDaemon) -> Run:
    """Run the command line as a process of its own, without a terminal."""

    def call(*arguments: str, stdin: str = "", **more: Any) -> Result:
        done = subprocess.run(
            command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment(VGPUCTL_HOST=daemon.host),
            **more,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return call


def check_golden(name: str, text: str) -> None:
    """Compare `text` with a golden file; VGPUCTL_TEST_REGENERATE=1 writes it instead."""
    file = GOLDEN / name
    if os.environ.get("VGPUCTL_TEST_REGENERATE"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")

"""The command as a process: what it loads, what it leaves to others, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import canned
from tests.cli.conftest import CHECKOUT, Run, command, environment
from tests.cli.fakedaemon import FakeDaemon

_HEAVY = {
    "pydantic",
    "falcon",
    "cheroot",
    "yaml",
    "lxml",
    "structlog",
    "libvirt",
    "pynvml",
    "rich",
    "sqlite3",
    "asyncio",
}
_LIST_MODULES = "import sys, json; {}; json.dump(sorted(sys.modules), sys.__stdout__)"


def _modules_after(code: str, host: str = "") -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _LIST_MODULES.format(code)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment(VGPUCTL_HOST=host),
        cwd=CHECKOUT,
    )
    return set(json.loads(done.stdout[done.stdout.rindex("[") :]))


def test_start_loads_click_and_little_else() -> None:
    base = _modules_after("import click")
    ours = _modules_after("import vgpuctl.cli.main") - base
    assert {each for each in ours if not each.startswith("vgpuctl")} <= {
        "dataclasses",
        "copy",
        "locale",
        "_locale",
    }
    assert {each for each in ours if each.startswith("vgpuctl")} == {
        "vgpuctl",
        "vgpuctl.cli",
        "vgpuctl.cli.command",
        "vgpuctl.cli.main",
        "vgpuctl.cli.session",
        "vgpuctl.cli.style",
        "vgpuctl.errors",
    }


def test_a_reading_command_loads_no_server_module(daemon: FakeDaemon) -> None:
    loaded = _modules_after(
        "import io; sys.stdout = io.StringIO(); from vgpuctl.cli.main import run; "
        "assert run(['gpu', 'show', '0', '-o', 'yaml']) == 0",
        daemon.host,
    )
    assert not {each.partition(".")[0] for each in loaded} & _HEAVY
    assert "vgpuctl.cli.vgpu" not in loaded


def test_help_loads_no_command() -> None:
    loaded = _modules_after(
        "import io; sys.stdout = io.StringIO(); from vgpuctl.cli.main import run; run(['--help'])"
    )
    assert "http.client" not in loaded
    assert "vgpuctl.cli.gpu" not in loaded


def test_version(process: Run) -> None:
    from vgpuctl import __version__

    result = process("--version")
    assert (result.status, result.out) == (0, f"vgpuctl, version {__version__}\n")


def test_nothing_is_painted_or_wrapped_off_a_terminal(process: Run, daemon: FakeDaemon) -> None:
    long = "words " * 60
    daemon.answers["GET", "/v1/profiles"] = [{**canned.PROFILES[0], "description": long.strip()}]
    result = process("profile", "list")
    assert "\x1b" not in result.out
    assert len(result.out.splitlines()) == 2
    assert "\x1b[" in process("profile", "list", "--color", "always").out


def test_a_reader_that_has_had_enough(daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/v1/vgpus"] = canned.VGPUS * 5000
    writer = subprocess.Popen(
        command("vgpu", "list"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(VGPUCTL_HOST=daemon.host),
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    assert writer.stdout.readline().startswith(b"NAME")
    writer.stdout.close()
    assert writer.stderr.read() == b""
    assert writer.wait(60) == 1


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no device that is full")
@pytest.mark.parametrize("line", ["vgpu list", "gpu list -o json", "export", "--help"])
def test_an_output_that_is_full(line: str, daemon: FakeDaemon) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command(*line.split()),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
            env=environment(VGPUCTL_HOST=daemon.host),
        )
    assert (done.returncode, done.stderr) == (1, "vgpuctl: the output: No space left on device\n")


def test_daemon_is_the_module_in_place_of_this_process(tmp_path) -> None:
    """Everything is passed on, and nothing is imported from the current directory: it may run as root."""
    (tmp_path / "json.py").write_text("raise SystemExit('hijacked')")
    package = tmp_path / "elsewhere" / "vgpuctl"
    package.mkdir(parents=True)
    seen = tmp_path / "seen"
    probe = (
        "import os, sys, json, vgpuctl.cli.daemon as d, vgpuctl.cli.main as m\n"
        f"os.execve = lambda *given: open({str(seen)!r}, 'w').write(json.dumps(given[1]))\n"
        "m.run(['daemon', '--simulate', 't4,l40s', '--state-dir', '/x', '--log-level', 'debug'])\n"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", probe], check=True, env=environment(), cwd=tmp_path, timeout=60
    )
    arguments = json.loads(seen.read_text())
    assert arguments == [
        sys.executable,
        "-P",
        "-m",
        "vgpuctl.daemon",
        "--simulate",
        "t4,l40s",
        "--state-dir",
        "/x",
        "--log-level",
        "debug",
    ]


def test_daemon_has_a_help_of_its_own(process: Run) -> None:
    result = process("daemon", "--help")
    assert result.status == 0
    assert "vgpuctl daemon --simulate l40s" in result.out

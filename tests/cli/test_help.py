"""Every command: its help, its examples, its completion."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.cli import canned
from tests.cli.conftest import Run, command, environment
from tests.cli.fakedaemon import FakeDaemon
from vgpuctl.cli.command import Command
from vgpuctl.cli.main import cli
from vgpuctl.cli.session import Session


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, *path, name)
        else:
            assert isinstance(found, Command)
            yield (*path, name), found


ALL = dict(commands(cli))


def _examples() -> list[str]:
    root = [line for line in cli.examples if line.startswith("vgpuctl")]  # type: ignore[attr-defined]
    return [*root, *(line for each in ALL.values() for line in each.examples)]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_has_examples_of_this_command(path: tuple[str, ...], vgpuctl: Run) -> None:
    result = vgpuctl(*path, "--help")
    assert result.status == 0
    assert f"vgpuctl {' '.join(path)}" in result.out.partition("Examples:")[2]


@pytest.mark.parametrize("line", _examples())
def test_examples_are_right(line: str) -> None:
    """Each example is parsed by the command that it is an example of."""
    words = shlex.split(line, comments=True)
    start = words.index("vgpuctl") if "vgpuctl" in words else None
    if start is None:
        assert words[:2] == ["source", "<(vgpuctl"]
        return
    words = words[start + 1 :]
    for end in ("|", "||", ">", "<"):
        if end in words:
            words = words[: words.index(end)]
    context = cli.make_context("vgpuctl", list(words), obj=Session(), resilient_parsing=False)
    command: click.Command = cli
    rest = [*context._protected_args, *context.args]
    while isinstance(command, click.Group):
        _, inner, rest = command.resolve_command(context, rest)
        assert inner is not None
        command = inner
        if isinstance(command, click.Group):
            context = command.make_context(command.name, rest, parent=context)
            rest = [*context._protected_args, *context.args]
    command.make_context(command.name, rest, parent=context)


def test_help_command(vgpuctl: Run) -> None:
    assert vgpuctl("help", "vgpu", "create").out == vgpuctl("vgpu", "create", "--help").out
    assert vgpuctl("help").out == vgpuctl("--help").out
    assert vgpuctl("help", "vgpu", "crate").status == 2


def test_root_help_names_every_command(vgpuctl: Run) -> None:
    shown = vgpuctl("--help").out
    assert all(f"\n  {name} " in shown for name in cli.list_commands(click.Context(cli)))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, process: Run) -> None:
    result = process("completion", shell)
    assert result.status == 0
    assert "_VGPUCTL_COMPLETE" in result.out


def complete(process: Run, monkeypatch: pytest.MonkeyPatch, words: str) -> list[str]:
    monkeypatch.setenv("_VGPUCTL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    result = process()
    assert result.err == ""
    return [line.partition(",")[2] for line in result.out.splitlines()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vgpuctl at", ["attach"]),
        ("vgpuctl attach w", ["win11-042"]),
        ("vgpuctl vgpu create --profile ", ["designer", "office"]),
        ("vgpuctl vgpu create --type l40s-4", ["L40S-48Q"]),
        ("vgpuctl gpu show 0000:6", ["0000:61:00.0"]),
        ("vgpuctl vgpu delete c", ["cad-1"]),
        ("vgpuctl operation show ", [canned.OPERATION_ID]),
    ],
)
def test_completion_asks_the_daemon(
    words: str, expected: list[str], process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert complete(process, monkeypatch, words) == expected


@pytest.mark.parametrize("verb", ["wait", "cancel"])
def test_only_what_goes_on_is_offered_to_be_waited_for(
    verb: str, process: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = ("running", "rolling-back", "succeeded", "needs-operator")
    daemon.answers["GET", "/v1/operations"] = [canned.operation(each, id=each) for each in states]
    assert complete(process, monkeypatch, f"vgpuctl operation {verb} ") == ["rolling-back", "running"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vgpuctl gpu show 0000:6", "61:00.0"),
        ("vgpuctl gpu show 0000:", "41:00.0 61:00.0 c1:00.0"),
        ("vgpuctl vgpu create --gpu=0000:4", "41:00.0"),
        ("vgpuctl gpu show ", "0000:41:00.0 0000:61:00.0 0000:c1:00.0"),
        ("vgpuctl at", "attach"),
    ],
)
def test_completion_in_bash_goes_on_after_a_colon(
    line: str, expected: str, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """bash breaks words at colons, and puts the answer in the place of the last piece only."""
    (tmp_path / "vgpuctl").write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    (tmp_path / "vgpuctl").chmod(0o755)
    script = (
        "source <(vgpuctl completion bash); COMP_LINE=$1 COMP_POINT=${#1}\n"
        "function_of() { echo ${*: -2:1}; }\n"
        '$(function_of $(complete -p vgpuctl)) vgpuctl; echo "${COMPREPLY[*]}"'
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script, "bash", line],
        capture_output=True,
        text=True,
        check=True,
        env=environment(VGPUCTL_HOST=daemon.host, PATH=path),
        timeout=60,
    )
    assert done.stdout.strip() == expected


def test_completion_is_silent_where_no_daemon_answers(
    process: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.answers.clear()
    assert complete(process, monkeypatch, "vgpuctl gpu show ") in ([], [""])


GROUPS = [name for name in cli.list_commands(click.Context(cli)) if (name, "list") in ALL or name == "sim"]


@pytest.mark.parametrize("name", ["host", *GROUPS])
def test_a_list_of_commands_cuts_no_sentence(name: str, vgpuctl: Run) -> None:
    listed = vgpuctl(name, "--help").out.partition("Commands:")[2]
    assert listed
    assert "..." not in listed

"""What is checked without running vgpuctl: style, types, layers, spelling, and that it imports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

IMPORT_ALONE = """
import importlib, os, sys, traceback
import cheroot.wsgi, click, falcon, libvirt, lxml.etree, pydantic, pyudev, structlog, tenacity, yaml
waiting, running, failed = sys.argv[1:], {}, []
while waiting or running:
    while waiting and len(running) < os.cpu_count():
        name = waiting.pop()
        child = os.fork()
        if child == 0:
            try:
                importlib.import_module(name)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        running[child] = name
    child, status = os.wait()
    name = running.pop(child)
    if status != 0:
        failed.append(name)
if failed:
    sys.exit("cannot be imported alone: " + ", ".join(failed))
"""


def run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{done.stdout}{done.stderr}", pytrace=False)


def python_directories() -> list[str]:
    names = ("vgpuctl", "tests", "tools", "benchmarks", "packaging", "ansible")
    return [each for each in names if (ROOT / each).is_dir()]


def our_files() -> list[Path]:
    """What git tracks or would track; in an unpacked archive there is nothing to ask."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for each in listed.stdout.split("\0") if each and (path := ROOT / each).is_file()]


def test_ruff_finds_nothing() -> None:
    run(sys.executable, "-m", "ruff", "check", *python_directories())


def test_the_code_is_formatted() -> None:
    run(sys.executable, "-m", "ruff", "format", "--check", *python_directories())


@pytest.mark.timeout(300)
def test_the_types_are_right() -> None:
    run(sys.executable, "-m", "mypy")


def test_each_room_imports_only_those_below() -> None:
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(verbose=False))"
    run(sys.executable, "-c", script)


def test_the_spelling_is_right() -> None:
    """Not in the tests, which mistype on purpose."""
    tests = ROOT / "tests"
    files = [
        each for each in our_files() if each.suffix not in (".db", ".lock") and tests not in each.parents
    ]
    run(sys.executable, "-m", "codespell_lib", "--", *files)


def test_shell_scripts_are_clean_and_executable() -> None:
    scripts = [each for each in our_files() if each.read_bytes().startswith((b"#!/bin/sh", b"#!/bin/bash"))]
    assert ROOT / "scripts" / "setup" in scripts
    assert [each for each in scripts if not os.access(each, os.X_OK)] == []
    if shutil.which("shellcheck") is None and not os.environ.get("CI"):
        pytest.skip("shellcheck is not installed")
    run("shellcheck", *scripts)


def test_every_module_imports_alone() -> None:
    """A cycle shows only from one of its sides.  What is not ours is loaded once, before the forks."""
    names = [
        ".".join(each.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for each in sorted((ROOT / "vgpuctl").rglob("*.py"))
        if each.name != "__main__.py"
    ]
    assert "vgpuctl.host.store.sqlite" in names
    run(sys.executable, "-c", IMPORT_ALONE, *names)


def test_no_two_test_files_share_a_name_without_a_package() -> None:
    """pytest imports a test file that is in no package by its bare name: a second one would hide it."""
    bare = [
        each
        for each in (ROOT / "tests").rglob("*.py")
        if not (each.parent / "__init__.py").exists() and each.name != "conftest.py"
    ]
    names = [each.name for each in bare]
    assert [str(each.relative_to(ROOT)) for each in bare if names.count(each.name) > 1] == []

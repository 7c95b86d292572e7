"""What README and docs/ tell people to type works; links lead somewhere.

A line of a code block that begins with `vgpuctl` (or `$ vgpuctl`) is run, in order, against a daemon on
simulated cards; `vgpuctl daemon --simulate CARDS &` starts one on those cards.  `<!-- not run -->` above a
block keeps it from being run, `<!-- file: NAME -->` makes it a file for the commands below; what stands under
`<!-- lab -->` tests/e2e/test_newcomer.py runs.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from tests.support.daemon import CARDS, Daemon
from vgpuctl.api.documents import parse_documents
from vgpuctl.cli.main import cli
from vgpuctl.cli.session import Session

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = re.compile(r"<!-- (not run|lab|file: (\S+)) -->")
START = re.compile(r"vgpuctl daemon --simulate (\S+) &")
DESKTOPS = ("win11-042", "win11-043")


@dataclass(frozen=True)
class Block:
    """A code block of a page, and the mark above it."""

    line: int
    mark: str
    file: str | None
    text: str

    @property
    def commands(self) -> list[str]:
        if self.mark:
            return []
        lines = [each.removeprefix("$ ") for each in self.text.splitlines()]
        return [each for each in lines if each.startswith("vgpuctl ")]


def blocks_of(page: Path) -> Iterator[Block]:
    """Indented and fenced code blocks."""
    mark, file, lines, start = "", None, [], 0
    fenced = False
    for number, line in enumerate([*page.read_text().splitlines(), "end"], start=1):
        if line.startswith("```"):
            fenced = not fenced
            continue
        if fenced or line.startswith("    ") or (lines and not line):
            start = start or number
            lines.append(line if fenced else line[4:])
            continue
        if lines:
            yield Block(start, mark, file, "\n".join(lines).rstrip() + "\n")
            mark, file, lines, start = "", None, [], 0
        if found := MARK.fullmatch(line):
            mark, file = found[1], found[2]
        elif line:
            mark, file = "", None


def with_commands() -> list[Path]:
    return [page for page in PAGES if any(each.commands for each in blocks_of(page))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Shell:
    """A directory with the page's files, and a daemon of ours behind `vgpuctl`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.daemon: Daemon | None = None
        program = directory / "bin" / "vgpuctl"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m vgpuctl "$@"\n')
        program.chmod(0o755)

    def start(self, cards: str) -> None:
        self.stop()
        place = self.directory / f"daemon-{cards.replace(':', '-')}"
        place.mkdir()
        self.daemon = Daemon(place, cards=cards)
        domains = place / "libvirt.xml"
        text = domains.read_text()
        for number, name in enumerate(DESKTOPS, start=1):
            text = text.replace(f"<name>win{number}</name>", f"<name>{name}</name>")
        domains.write_text(text)
        self.daemon.start()

    def stop(self) -> None:
        if self.daemon is not None:
            self.daemon.close()

    def run(self, command: str) -> None:
        if start := START.match(command):
            self.start(start[1])
            return
        if self.daemon is None:
            self.start(CARDS)
        assert self.daemon is not None
        path = f"{self.directory / 'bin'}:{self.daemon.env['PATH']}"
        done = subprocess.run(
            ["bash", "-c", command],
            env=self.daemon.env | {"PATH": path},
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", with_commands(), ids=name_of)
def test_what_is_said_to_type_works(page: Path) -> None:
    # Not pytest's directory: the path of a socket has at most 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="vgpuctl-docs-"))
    shell = Shell(directory)
    try:
        for block in blocks_of(page):
            if block.file:
                (directory / block.file).write_text(block.text)
            for command in block.commands:
                shell.run(command)
    finally:
        shell.stop()
        shutil.rmtree(directory, ignore_errors=True)


def test_pages_with_commands_are_found() -> None:
    assert {"README.md", "docs/profiles-and-documents.md", "docs/troubleshooting.md"} <= {
        name_of(page) for page in with_commands()
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_documents_that_are_shown_are_taken(page: Path) -> None:
    for block in blocks_of(page):
        if block.text.startswith("apiVersion:"):
            assert parse_documents(block.text, f"{name_of(page)}:{block.line}")


# Commands in the text -------------------------------------------------------------------------------


def parse(command: str) -> None:
    """Raise click's error for a command line that there is not; capitals stand for a value."""
    words = shlex.split(command, comments=True)[1:]
    for end in ("|", "||", "&", ">", "<"):
        if end in words:
            words = words[: words.index(end)]
    context = click.Context(cli, info_name="vgpuctl", obj=Session())
    found: click.Command = cli
    while isinstance(found, click.Group):
        if not words or words[0].startswith("-"):
            found.make_context(context.info_name, list(words), parent=context, resilient_parsing=True)
            return
        _, inner, words = found.resolve_command(context, words)
        assert inner is not None
        context = click.Context(inner, info_name=inner.name, parent=context)
        found = inner
    if words:
        found.make_context(found.name, words, parent=context.parent)


def inline(page: Path) -> list[str]:
    text = "\n".join(line for line in page.read_text().splitlines() if not line.startswith("    "))
    return re.findall(r"`(vgpuctl [^`]+)`", text)


@pytest.mark.parametrize("page", [page for page in PAGES if inline(page)], ids=name_of)
def test_commands_in_the_text_exist(page: Path) -> None:
    wrong = []
    for command in inline(page):
        command = re.sub(r"\.\.\.$", "", command).replace("|", " ").strip()  # noqa: PLW2901
        if "create delete" in command or command.startswith("vgpuctl -v"):
            continue
        try:
            parse(command)
        except click.ClickException as error:
            wrong.append(f"{command}: {error.format_message()}")
    assert wrong == []


def hints() -> Iterator[tuple[str, str]]:
    """Every hint of the program, with `X` for what is filled in."""
    for path in sorted((ROOT / "vgpuctl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                for inner in ast.walk(node.value):
                    if isinstance(inner, ast.JoinedStr):
                        parts = [
                            each.value if isinstance(each, ast.Constant) else "X" for each in inner.values
                        ]
                        yield path.name, "".join(str(each) for each in parts)
                    elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                        yield path.name, inner.value


def test_hints_name_commands_that_exist() -> None:
    """A hint that sends people to a command that there is not is worse than none."""
    root = click.Context(cli)
    checked, wrong = 0, []
    for name, text in hints():
        for command in re.findall(r"vgpuctl ([a-z]+\b[^`;,]*)", text):
            words = command.split()
            found = cli.get_command(root, words.pop(0))
            if found is None:
                continue  # vgpuctl is the subject of a sentence
            checked += 1
            if isinstance(found, click.Group):
                inner = found.get_command(root, words.pop(0)) if words else None
                if inner is None:
                    wrong.append(f"{name}: vgpuctl {command}")
                    continue
                found = inner
            options = {each for parameter in found.params for each in parameter.opts}
            wrong += [
                f"{name}: vgpuctl {command}" for each in words if each[:2] == "--" and each not in options
            ]
    assert checked > 8
    assert wrong == []


# Links ----------------------------------------------------------------------------------------------


def markdown() -> list[Path]:
    skipped = {".venv", ".venv-ansible", ".git", "build", "dist", "node_modules"}
    return sorted(each for each in ROOT.rglob("*.md") if not skipped & {*each.relative_to(ROOT).parts})


def anchors(page: Path) -> set[str]:
    """The anchors of headings, as forges make them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE):
        text = re.sub(r"[`*]", "", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


def links(page: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "", page.read_text())
    return [each for each in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in each]


@pytest.mark.parametrize("page", markdown(), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    pending = [ROOT / "README.md"]
    while pending:
        page = pending.pop()
        if page in reached:
            continue
        reached.add(page)
        for link in links(page):
            name = link.partition("#")[0]
            target = (page.parent / name).resolve() if name else page
            if target.is_dir():
                pending += target.glob("*.md")
            elif target.suffix == ".md" and target.exists():
                pending.append(target)
    assert [name_of(each) for each in (ROOT / "docs").rglob("*.md") if each not in reached] == []

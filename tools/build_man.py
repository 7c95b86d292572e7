#!/usr/bin/env python3
"""Build the manual pages from the commands: vgpuctl(1), and one for each of its commands.

    tools/build_man.py DIRECTORY

Loads what the command line loads, and nothing else.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vgpuctl import __version__
from vgpuctl.cli.command import common_options
from vgpuctl.cli.main import Root, cli

FILES = {
    "/run/vgpuctl/vgpuctl.sock": "where the daemon listens",
    "/etc/vgpuctl/vgpuctl.toml": "the daemon's configuration, with conf.d/*.toml beside it",
    "/etc/vgpuctl/profiles": "the administrator's profiles",
    "/var/lib/vgpuctl": "the daemon's state",
    "/usr/share/doc/vgpuctl/docs": "the documentation; index.md first",
}


def build() -> dict[str, str]:
    """Every page, by file name."""
    root = click.Context(cli, info_name="vgpuctl")
    pages = {"vgpuctl.1": _joined(_overview(root))}
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root)
        pages[f"vgpuctl-{name}.1"] = _joined(_page(command, context))
    return pages


def _overview(root: click.Context) -> Iterator[str]:
    yield from _head("vgpuctl", "NVIDIA vGPUs of libvirt's domains")
    yield from (".SH SYNOPSIS", r"\fBvgpuctl\fR [\fIOPTION\fR]... \fICOMMAND\fR [\fIARGUMENT\fR]...")
    yield from (".SH DESCRIPTION", *_text(cli))
    for heading, commands in Root.sections.items():
        yield f".SH {_escaped(heading.upper())}"
        for name, (_, said) in commands.items():
            yield from (".TP", f"\\fBvgpuctl\\-{_escaped(name)}\\fR(1)", _line(said))
    yield from (".SH OPTIONS", *_options(root, [*common_options(hidden=False), *_version()]))
    yield ".SH FILES"
    for path, said in FILES.items():
        yield from (".TP", f"\\fI{_escaped(path)}\\fR", _line(said))
    yield from (".SH EXAMPLES", *_examples(cli))


def _version() -> Iterator[click.Option]:
    return (each for each in cli.params if isinstance(each, click.Option) and each.name == "version")


def _page(command: click.Command, context: click.Context) -> Iterator[str]:
    name = context.command_path.replace(" ", "-")
    inner = dict(_inside(command, context))
    yield from _head(name, command.get_short_help_str(limit=400).rstrip("."))
    yield ".SH SYNOPSIS"
    for each, where in inner.items() or [(command, context)]:
        yield from (".PP", _usage(each, where))
    yield from (".SH DESCRIPTION", *_text(command))
    if inner:
        yield ".SH COMMANDS"
        for each, where in inner.items():
            yield from (f".SS {_escaped(where.command_path)}", *_text(each))
            yield from _options(where, each.params)
            yield from _examples(each)
    else:
        if options := list(_options(context, command.params)):
            yield from (".SH OPTIONS", *options)
        if examples := list(_examples(command)):
            yield from (".SH EXAMPLES", *examples)
    yield from (".SH SEE ALSO", r"\fBvgpuctl\fR(1), for options of every command and exit statuses")


def _inside(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """The commands of a group, and of the groups in it."""
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        each = command.get_command(context, name)
        assert each is not None
        where = click.Context(each, info_name=name, parent=context)
        if isinstance(each, click.Group):
            yield from _inside(each, where)
        else:
            yield each, where


# roff ------------------------------------------------------------------------------------------------


def _head(name: str, said: str) -> Iterator[str]:
    yield f'.TH "{_escaped(name.upper())}" "1" "" "vgpuctl {__version__}" "vgpuctl"'
    yield from (".nh", ".ad l", ".SH NAME", f"{_escaped(name)} \\- {_escaped(said)}")


def _usage(command: click.Command, context: click.Context) -> str:
    pieces = " ".join(command.collect_usage_pieces(context))
    return f"\\fB{_escaped(context.command_path)}\\fR {_escaped(pieces)}".rstrip()


def _text(command: click.Command) -> Iterator[str]:
    """The help of a command; click's mark keeps the lines of a paragraph."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield ".PP"
        if paragraph.startswith("\b\n"):
            yield from (".nf", *map(_line, paragraph.removeprefix("\b\n").splitlines()), ".fi")
        else:
            yield _line(" ".join(paragraph.split()))


def _options(context: click.Context, parameters: Iterable[click.Parameter]) -> Iterator[str]:
    for each in parameters:
        record = each.get_help_record(context) if isinstance(each, click.Option) else None
        if record is not None:
            yield from (".TP", f"\\fB{_escaped(record[0])}\\fR", _line(" ".join(record[1].split())))


def _examples(command: click.Command) -> Iterator[str]:
    examples: list[str] = getattr(command, "examples", [])
    if examples:
        yield from (".PP", ".nf", ".RS", *map(_line, examples), ".RE", ".fi")


def _line(text: str) -> str:
    """A line of text; one that begins with a dot or a quote would be a request."""
    escaped = _escaped(text)
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _escaped(text: str) -> str:
    for character, name in (("\\", r"\e"), ("-", r"\-"), ("~", r"\(ti"), ("^", r"\(ha"), ("`", r"\(ga")):
        text = text.replace(character, name)
    return text


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def main(directory: str) -> None:
    """Write every page."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, text in build().items():
        (Path(directory) / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

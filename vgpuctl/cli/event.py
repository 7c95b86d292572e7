"""`vgpuctl events`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain

import click

from vgpuctl.cli.cells import is_number, text_of
from vgpuctl.cli.command import Command
from vgpuctl.cli.options import output_options
from vgpuctl.cli.output import Item, print_items, write
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.cli.style import width_of
from vgpuctl.client.client import Client
from vgpuctl.surface import EVENT, Field

_PAGE = 1000
_NEWEST = 50
_WIDTHS = {"revision": 6, "at": 20, "kind": 18, "subject": 24}
"""A stream cannot know its widest cell beforehand."""
_NARROWEST = 20


@click.command(
    cls=Command,
    examples="""
        vgpuctl events
        vgpuctl events --follow
        vgpuctl events --since 1200 -o json
    """,
)
@click.option("--follow", is_flag=True, help="Go on with what happens from now on; end with Ctrl-C.")
@click.option(
    "--since", type=click.IntRange(min=0), metavar="REV", help="Only what came after that revision."
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Without --since: so many of the newest first.  [default: {_NEWEST}; 0 with --follow]",
)
@output_options
@pass_session
def events(session: Session, *, follow: bool, since: int | None, limit: int | None) -> None:
    """Print what happened, and with --follow what happens: one JSON line each under -o json --follow."""
    client = session.client()
    if follow:
        _follow(session, client, since, limit)
    elif since is None:
        print_items(session, EVENT, client.get("/v1/events", limit=limit or _NEWEST))
    else:
        print_items(session, EVENT, list(_all_since(client, since)))


def _all_since(client: Client, since: int) -> Iterator[Item]:
    while True:
        page = client.get("/v1/events", since=since, limit=_PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        since = page[-1]["revision"]


def _follow(session: Session, client: Client, since: int | None, limit: int | None) -> None:
    if session.columns or session.format in ("csv", "yaml"):
        raise click.UsageError("--follow goes with -o table, json and name")
    fields = EVENT.columns()
    if session.format == "table" and session.headers:
        write([_line(fields, [each.column or "" for each in fields])])
    newest: list[Item] = []
    if limit is not None and since is None:
        newest = client.get("/v1/events", limit=limit)
        since = newest[-1]["revision"] if newest else 0
    for event in chain(newest, client.stream("/v1/events", since=since, follow=1)):
        write([_one(session, fields, event)])
        sys.stdout.flush()


def _one(session: Session, fields: tuple[Field, ...], event: Item) -> str:
    match session.format:
        case "json":
            return json.dumps(event, ensure_ascii=False)
        case "name":
            return str(event["revision"])
        case _:
            return _line(fields, [text_of(each, event) for each in fields])


def _line(fields: tuple[Field, ...], texts: list[str]) -> str:
    cells = []
    for field, text in zip(fields, texts, strict=True):
        width = _WIDTHS.get(field.name, 0)
        cells.append(f"{text:>{width}}" if is_number(field) else f"{text:<{width}}")
    return _folded("  ".join(cells).rstrip(), len("  ".join([*cells[:-1], ""])))


def _folded(line: str, indent: int) -> str:
    """`line` as wide as the terminal; what it continues with stands under its last column."""
    width = width_of(sys.stdout)
    if width is None or len(line) <= width or width - indent < _NARROWEST:
        return line
    import textwrap  # noqa: PLC0415 - few lines are this long

    words = textwrap.wrap(line[indent:], width - indent, break_on_hyphens=False, break_long_words=False)
    return line[:indent] + f"\n{' ' * indent}".join(words)

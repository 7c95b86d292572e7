"""`vgpuctl operation`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import click

from vgpuctl.cli import names
from vgpuctl.cli.cells import NULL, plain, text_of
from vgpuctl.cli.change import follow_to_end
from vgpuctl.cli.command import Group
from vgpuctl.cli.options import output_options
from vgpuctl.cli.output import Item, print_item, table
from vgpuctl.cli.reading import print_list, watch_option
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.cli.style import ROOMY, width_of
from vgpuctl.cli.view import view
from vgpuctl.client.client import Client, at
from vgpuctl.client.operation import failure_of, has_ended
from vgpuctl.surface import OPERATION, STEP, Field

_SHORT = 8


@click.group(cls=Group)
def operation() -> None:
    """Changes that run or ran."""


@operation.command(
    "list",
    examples="""
        vgpuctl operation list
        vgpuctl operation list --limit 5
        vgpuctl operation list --watch
    """,
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many.  [default: 100]")
@watch_option
@output_options
@pass_session
def list_(session: Session, *, limit: int | None, watch: bool) -> None:
    """List the newest operations: what, when, and who asked.

    A table shows the first characters of each id, which other commands take for the whole.
    """
    short: dict[str, str] = {}

    def fetch(client: Client) -> list[Item]:
        found: list[Item] = client.get("/v1/operations", limit=limit)
        short.update(_short([each["id"] for each in found]))
        return found

    def cell(field: Field, item: Item) -> str:
        match field.name:
            case "id":
                return plain(short[item["id"]])
            case "requester":
                return _who(item)
            case _:
                return text_of(field, item)

    fields = _fields(roomy=session.format == "wide" or (width_of(sys.stdout) or ROOMY) >= ROOMY)
    print_list(session, OPERATION, fetch, watch=watch, fields=fields, cell=cell, also_wide=True)


@operation.command(examples="vgpuctl operation show 3f0c5f0e-5d3a-4a8e-9d55-0d6c3b6f7a11")
@click.argument("id_", metavar="ID", shell_complete=names.operations)
@output_options
@pass_session
def show(session: Session, id_: str) -> None:
    """Show one operation with its steps."""
    found = session.client().get(at("operations", id_))
    print_item(session, OPERATION, found, lambda: _view(session, found))


@operation.command(examples="vgpuctl operation wait 3f0c5f0e-5d3a-4a8e-9d55-0d6c3b6f7a11 --timeout 60")
@click.argument("id_", metavar="ID", shell_complete=names.going_on)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Wait no longer than this.",
)
@output_options
@pass_session
def wait(session: Session, id_: str, *, timeout: float | None) -> None:
    """Wait until an operation has ended; the exit status is the one that it would have had."""
    client = session.client()
    ended = follow_to_end(session, client, client.get(at("operations", id_)), timeout)
    print_item(session, OPERATION, ended, lambda: _view(session, ended))


@operation.command(examples="vgpuctl operation cancel 3f0c5f0e-5d3a-4a8e-9d55-0d6c3b6f7a11")
@click.argument("id_", metavar="ID", shell_complete=names.going_on)
@click.option("--wait/--no-wait", default=True, help="Wait until it is undone.  [default: --wait]")
@output_options
@pass_session
def cancel(session: Session, id_: str, *, wait: bool) -> None:
    """Stop an operation and undo what it has done."""
    client = session.client()
    found = client.post(at("operations", id_, "cancel"))
    if wait and not has_ended(found):
        found = _until_undone(session, client, found)
    if found.get("state") not in ("cancelled", "rolling-back", "running"):
        failure = failure_of(found)
        if failure is not None:
            raise failure
    print_item(session, OPERATION, found, lambda: _view(session, found))


def _until_undone(session: Session, client: Client, found: Item) -> Item:
    from vgpuctl.errors import OperationCancelled  # noqa: PLC0415

    try:
        return follow_to_end(session, client, found, None)
    except OperationCancelled:
        ended: Item = client.get(at("operations", found["id"]))
        return ended


def _view(session: Session, found: Item) -> Iterator[str]:
    paint = session.paint()
    yield from view(OPERATION, found, paint, skip=frozenset({"steps"}))
    steps = found.get("steps") or []
    if steps:
        several = any(each.get("round", 1) > 1 for each in steps)
        yield ""
        yield "steps:"
        yield from table(_STEP_FIELDS[0 if several else 1 :], steps, paint, indent=2)


def _fields(*, roomy: bool) -> tuple[Field, ...]:
    """What a table shows of operations; how many steps are done only where it has room."""
    names = ["id", "kind", "subject", "state", "started_at", "requester"]
    names += ["steps_done", "steps_total"] if roomy else []
    found = (each for name in names for each in OPERATION.fields if each.name == name)
    return tuple(replace(each, column="BY") if each.name == "requester" else each for each in found)


def _short(ids: list[str]) -> dict[str, str]:
    """Of each id the first eight characters; more of all where two begin alike."""
    length = _SHORT
    while len({each[:length] for each in ids}) < len(set(ids)):
        length += 1
    return {each: each[:length] for each in ids}


def _who(item: Item) -> str:
    """The requester's name; the user's number where it has none."""
    requester = item.get("requester") or {}
    if requester.get("name") is None and requester.get("uid") is not None:
        return f"uid {requester['uid']}"
    return plain(requester.get("name")) or NULL


_STEP_FIELDS = tuple(
    replace(each, column=each.column or each.name.upper())
    for name in ("round", "number", "state", "summary", "problem")
    for each in STEP.fields
    if each.name == name
)

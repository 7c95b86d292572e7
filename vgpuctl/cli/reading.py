"""Lists that can be watched: printed once, or again whenever something changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from vgpuctl.cli.cells import text_of
from vgpuctl.cli.output import Cell, Item, print_items, write
from vgpuctl.cli.session import Session
from vgpuctl.client.client import Client
from vgpuctl.surface import Field, Resource

_WATCH_S = 5


def watch_option(function: Any) -> Any:
    """-w, --watch."""
    return click.option("-w", "--watch", is_flag=True, help="Print again at every change; end with Ctrl-C.")(
        function
    )


def print_list(
    session: Session,
    resource: Resource,
    fetch: Callable[[Client], list[Item]],
    *,
    watch: bool = False,
    fields: tuple[Field, ...] | None = None,
    cell: Cell = text_of,
    also_wide: bool = False,
) -> None:
    """Print what `fetch` returns as print_items() does; with `watch`, again whenever it has changed.

    Under -o json a watched list is one line for each state of it.
    """
    client = session.client()
    if not watch:
        print_items(session, resource, fetch(client), fields=fields, cell=cell, also_wide=also_wide)
        return
    revision = client.get("/v1/host")["revision"]
    shown: list[Item] | None = None
    for items in _states(client, fetch, revision):
        if items == shown:
            continue
        if session.format == "json":
            write([json.dumps(items, ensure_ascii=False)])
        else:
            if sys.stdout.isatty():
                click.clear()
            elif shown is not None:
                write([""])
            print_items(session, resource, items, fields=fields, cell=cell, also_wide=also_wide)
        sys.stdout.flush()
        shown = items


def _states(client: Client, fetch: Callable[[Client], list[Item]], revision: int) -> Iterator[list[Item]]:
    """The list at every event, and now and then: not all that changes on a host is in the log."""
    while True:
        yield fetch(client)
        for event in client.get("/v1/events", since=revision, wait=_WATCH_S):
            revision = event["revision"]

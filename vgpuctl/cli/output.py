"""Printing resources: a list or one, in whichever format was asked for."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

import click

from vgpuctl.cli.cells import csv_of, is_number, text_of
from vgpuctl.cli.session import Session
from vgpuctl.cli.style import Paint, width_of
from vgpuctl.cli.table import Column, fitting, render
from vgpuctl.surface import Field, Resource

_NAMED_BY = {
    "host": "hostname",
    "gpu": "address",
    "operation": "id",
    "plan": "id",
    "event": "revision",
    "step": "number",
    "info": "version",
}

BAR = "bar"
"""Kind of a field that only a terminal shows: a drawing."""

Item = dict[str, Any]
Cell = Callable[[Field, Item], str]


def write(lines: Iterable[str]) -> None:
    """Lines to stdout."""
    sys.stdout.writelines(f"{line}\n" for line in lines)


def print_items(
    session: Session,
    resource: Resource,
    items: list[Item],
    *,
    fields: tuple[Field, ...] | None = None,
    cell: Cell = text_of,
    also_wide: bool = False,
) -> None:
    """Print a list.  `fields` and `cell` change how a table shows it, `also_wide` one of -o wide as well."""
    if print_for_programs(session, items):
        return
    match session.format:
        case "csv":
            _print_csv(session, resource, items)
        case "name":
            write(name_of(resource, each) for each in items)
        case _:
            chosen = _chosen(session, resource)
            if session.columns or fields is None or (session.format == "wide" and not also_wide):
                fields, cell = chosen, text_of
            write(
                table(
                    fields,
                    items,
                    session.paint(),
                    headers=session.headers,
                    cell=cell,
                    wrap=session.format != "wide",
                    may_leave_out=not session.columns,
                )
            )


def print_item(session: Session, resource: Resource, item: Item, view: Callable[[], Iterable[str]]) -> None:
    """Print one: `view` makes the lines that people see."""
    if print_for_programs(session, item):
        return
    match session.format:
        case "csv":
            _print_csv(session, resource, [item])
        case "name":
            write([name_of(resource, item)])
        case _ if session.columns:
            write(table(_chosen(session, resource), [item], session.paint(), headers=session.headers))
        case _:
            write(view())


def print_for_programs(session: Session, value: Any) -> bool:
    """Print JSON or YAML where that was asked for, and say whether it was."""
    if session.columns and session.format not in ("table", "wide", "csv"):
        raise click.UsageError("--columns goes with -o table, wide and csv")
    match session.format:
        case "json":
            write([json.dumps(value, indent=2, ensure_ascii=False)])
        case "yaml":
            from vgpuctl.cli.yamltext import dump  # noqa: PLC0415

            sys.stdout.write(dump(value))
        case _:
            return False
    return True


def check_format(session: Session, resource: Resource) -> None:
    """Raise a usage error for CSV of what has no columns, unless the user names some."""
    if session.format == "csv" and not session.columns and not resource.columns():
        raise click.UsageError(
            f"-o csv: a {resource.name} is no row of a table; -o json, yaml and table show it"
        )


def name_of(resource: Resource, item: Item) -> str:
    """What other commands know it by."""
    return str(item.get(_NAMED_BY.get(resource.name, "name")))


def table(
    fields: Iterable[Field],
    items: list[Item],
    paint: Paint,
    *,
    headers: bool = True,
    cell: Cell = text_of,
    indent: int = 0,
    wrap: bool = True,
    may_leave_out: bool = False,
    stream: TextIO | None = None,
) -> Iterable[str]:
    """The lines of a table of `items`; with `wrap` no wider than `stream` (stdout), where that can be.

    With `may_leave_out` columns make room for others, and a last line says which.
    """
    columns = [
        Column(
            each.column or each.name.upper(),
            [cell(each, item) for item in items],
            right=is_number(each),
            rigid=each.kind == BAR,
            spare=each.spare,
            paint=paint.word if each.name in ("state", "verdict") else str,
        )
        for each in fields
    ]
    width = width_of(stream or sys.stdout) if wrap else None
    left_out: list[Column] = []
    if width is not None:
        width -= indent
        if may_leave_out:
            columns, left_out = fitting(columns, width, headers=headers)
    yield from (
        " " * indent + line
        for line in render(columns, headers=headers, width=width, heading_paint=paint.bold)
    )
    if left_out:
        yield f"(no room here for {', '.join(each.heading for each in left_out)}; -o json has all)"


def _chosen(session: Session, resource: Resource) -> tuple[Field, ...]:
    if not session.columns:
        return resource.columns(wide=session.format in ("wide", "csv"))
    by_name = {each.name: each for each in resource.fields}
    by_heading = {each.column.lower(): each for each in resource.fields if each.column}
    chosen = []
    for name in session.columns:
        found = by_name.get(name.lower()) or by_heading.get(name.lower())
        if found is None:
            raise click.UsageError(f"no column {name!r}; there are: {', '.join(by_name)}")
        chosen.append(found)
    return tuple(chosen)


def _print_csv(session: Session, resource: Resource, items: list[Item]) -> None:
    fields = _chosen(session, resource)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if session.headers:
        writer.writerow([each.name for each in fields])
    writer.writerows([csv_of(each, item) for each in fields] for item in items)

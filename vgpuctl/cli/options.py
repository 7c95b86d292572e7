"""Options that many commands share: how to print, how to change, and which vGPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click

from vgpuctl.cli.command import remember
from vgpuctl.cli.session import FORMATS, Session

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """How a change is made: only shown, waited for, for how long, and without a question."""

    dry_run: bool
    wait: bool
    timeout_s: float | None
    yes: bool


def _as_json(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
    if value:
        context.ensure_object(Session).format = "json"


def _no_headers(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
    if value:
        context.ensure_object(Session).headers = False


def _columns(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        names = tuple(each.strip() for each in value.split(",") if each.strip())
        context.ensure_object(Session).columns = names


def output_options(function: Function) -> Function:
    """-o, --json, --no-headers and --columns; they are kept in the session."""
    for option in reversed(
        (
            click.option(
                "-o",
                "--output",
                type=click.Choice(FORMATS),
                callback=remember("format"),
                expose_value=False,
                is_eager=True,
                help="How to print; table and wide are for people, and may change.  [default: table]",
            ),
            click.option(
                "--json",
                is_flag=True,
                callback=_as_json,
                expose_value=False,
                is_eager=True,
                help="The same as -o json.",
            ),
            click.option(
                "--no-headers",
                is_flag=True,
                callback=_no_headers,
                expose_value=False,
                help="Tables and CSV without headings.",
            ),
            click.option(
                "--columns",
                metavar="A,B",
                callback=_columns,
                expose_value=False,
                help="Fields to show in tables and CSV, in this order.",
            ),
        )
    ):
        function = option(function)
    return function


def change_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--dry-run, --wait, --timeout and --yes, as one `options` argument; and the output options."""

    @wraps(function)
    def collect(*args: Any, dry_run: bool, wait: bool, timeout: float | None, yes: bool, **rest: Any) -> Any:
        return function(*args, options=ChangeOptions(dry_run, wait, timeout, yes), **rest)

    wrapped: Callable[..., Any] = collect
    for option in reversed(
        (
            click.option("-n", "--dry-run", is_flag=True, help="Show what would be done, and do nothing."),
            click.option(
                "--wait/--no-wait",
                default=True,
                help="Wait until it is done, or print the operation's id.  [default: --wait]",
            ),
            click.option(
                "--timeout",
                type=click.FloatRange(min=0, min_open=True),
                metavar="SECONDS",
                help="Wait no longer than this; the operation goes on.",
            ),
            click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        )
    ):
        wrapped = option(wrapped)
    return output_options(wrapped)

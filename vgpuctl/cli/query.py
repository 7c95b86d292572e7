"""`vgpuctl query`: a raw request."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from vgpuctl.cli.command import Command
from vgpuctl.cli.output import write
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.errors import InvalidInput


@click.command(
    cls=Command,
    examples="""
        vgpuctl query GET /v1/gpus/0
        vgpuctl query GET '/v1/types?creatable=1'
        vgpuctl query POST /v1/plans -d '{"action": "create-vgpu", "type": "T4-4Q"}'
    """,
)
@click.argument("method", type=click.Choice(["GET", "POST", "PUT", "PATCH", "DELETE"], case_sensitive=False))
@click.argument("path")
@click.option("-d", "--data", metavar="JSON", help="The body; @FILE reads it from there, @- from stdin.")
@pass_session
def query(session: Session, method: str, path: str, data: str | None) -> None:
    """Send one request to the API and print the answer as it is."""
    if not path.startswith("/"):
        raise click.UsageError(f"{path!r} is not a path: it begins with /v1")
    value = session.client().request(method.upper(), path, _body(data)).value()
    if isinstance(value, str):
        write([value.rstrip("\n")])
    elif value is not None:
        write([json.dumps(value, indent=2, ensure_ascii=False)])


def _body(data: str | None) -> Any:
    if data is None:
        return None
    try:
        text = data if not data.startswith("@") else _read(data[1:])
        return json.loads(text)
    except OSError as error:
        raise InvalidInput(f"{data[1:]} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise click.UsageError(f"--data is not JSON: {error}") from error


def _read(name: str) -> str:
    return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")

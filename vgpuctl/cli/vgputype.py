"""`vgpuctl type`."""

from __future__ import annotations

import sys

import click

from vgpuctl.cli import names
from vgpuctl.cli.command import Group
from vgpuctl.cli.options import output_options
from vgpuctl.cli.output import Item
from vgpuctl.cli.reading import print_list, watch_option
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.cli.style import ROOMY, width_of
from vgpuctl.client.client import Client
from vgpuctl.surface import TYPE, Field


@click.group("type", cls=Group)
def vgputype() -> None:
    """Types of vGPU, per GPU or from the catalogue."""


@vgputype.command(
    "list",
    examples="""
        vgpuctl type list --creatable
        vgpuctl type list --gpu 0 -o wide
        vgpuctl type list --catalog -o csv
    """,
)
@names.gpu_option
@click.option("--creatable", is_flag=True, help="Only types of which one more fits now.")
@click.option("--catalog", is_flag=True, help="Every type that is known, whatever cards are here.")
@watch_option
@output_options
@pass_session
def list_(session: Session, *, gpu: str | None, creatable: bool, catalog: bool, watch: bool) -> None:
    """List vGPU types: what each GPU offers, how many more fit, and with -o wide why none does."""
    if catalog and (gpu is not None or creatable):
        raise click.UsageError("--catalog goes with neither --gpu nor --creatable")

    def fetch(client: Client) -> list[Item]:
        found: list[Item] = client.get("/v1/types", gpu=gpu, creatable=creatable, catalog=catalog)
        return found

    print_list(session, TYPE, fetch, watch=watch, fields=_fields())


def _fields() -> tuple[Field, ...]:
    """What a table shows; the driver's number of a type only where it has room."""
    roomy = (width_of(sys.stdout) or ROOMY) >= ROOMY
    return tuple(each for each in TYPE.columns() if roomy or each.name != "type_id")

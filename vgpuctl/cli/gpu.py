"""`vgpuctl gpu`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from vgpuctl.cli import names
from vgpuctl.cli.cells import text_of
from vgpuctl.cli.change import make, say_done
from vgpuctl.cli.command import Group
from vgpuctl.cli.options import ChangeOptions, change_options, output_options
from vgpuctl.cli.output import BAR, Item, print_item
from vgpuctl.cli.picture import ASCII, UNICODE, Blocks, card, mini_bar
from vgpuctl.cli.reading import print_list, watch_option
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.cli.style import ROOMY, has_unicode, width_of
from vgpuctl.cli.view import view
from vgpuctl.client.client import Client, at
from vgpuctl.surface import GPU, Field

_USAGE = Field("usage", BAR, "Frame buffer in use.", column="USAGE")
_PICTURED = frozenset({"allocated"})
_OF_MIG = frozenset({"mig_pending", "mig_slices", "gpu_instances"})
"""What `mig show` draws."""


@click.group(cls=Group)
def gpu() -> None:
    """Physical GPUs: how full they are; replace one."""


@gpu.command("list", examples="vgpuctl gpu list\nvgpuctl gpu list -o csv --columns address,model,fb_used_mib")
@watch_option
@output_options
@pass_session
def list_(session: Session, *, watch: bool) -> None:
    """List every GPU.

    On a terminal the use of the frame buffer is drawn; -o wide shows every column.
    """

    def fetch(client: Client) -> list[Item]:
        found: list[Item] = client.get("/v1/gpus")
        return found

    drawn = _terminal_fields() if sys.stdout.isatty() else None
    print_list(session, GPU, fetch, watch=watch, fields=drawn, cell=_cell)


@gpu.command(examples="vgpuctl gpu show 0\nvgpuctl gpu show 0000:41:00.0 -o yaml")
@click.argument("gpu", shell_complete=names.gpus)
@output_options
@pass_session
def show(session: Session, gpu: str) -> None:
    """Show one GPU, by address, UUID or index, with a picture of its frame buffer."""
    found = session.client().get(at("gpus", gpu))
    print_item(session, GPU, found, lambda: _view(session, found))


@gpu.command(
    examples="""
        vgpuctl gpu replace 0000:41:00.0 0000:41:00.0 --dry-run
        vgpuctl gpu replace GPU-e7f152e7-0000-0000-0000-000000000000 1
    """
)
@click.argument("old")
@click.argument("new", shell_complete=names.gpus)
@change_options
@pass_session
def replace(session: Session, *, old: str, new: str, options: ChangeOptions) -> None:
    """Give the vGPUs of the card OLD, which is gone, to NEW, which stands in for it.

    OLD is the address or the UUID that it had; where the new card stands at the same address, give that
    twice.  What does not fit on NEW is named, and then nothing is changed.
    """
    if old.isdecimal():
        raise click.UsageError(f"OLD is gone and has no index {old} any more: give its address or its UUID")
    client = session.client()
    edit = {"action": "replace-gpu", "old": old, "new": address_of(session, client, new)}
    operation = make(session, client, edit, options, always_show=True)
    if operation is not None:
        say_done(session, f"{new} stands in for {old}", operation)


def address_of(session: Session, client: Client, gpu: str | None) -> str | None:
    """`gpu` as an address, where it is an index: an index changes with the cards, so it is echoed."""
    if gpu is None or not gpu.isdecimal():
        return gpu
    address = str(client.get(at("gpus", gpu))["address"])
    session.say(f"GPU {gpu} is {address}")
    return address


def _view(session: Session, found: Item) -> Iterator[str]:
    paint = session.paint()
    picture = list(card(found, _blocks(), paint, width=width_of(sys.stdout)))
    yield from view(GPU, found, paint, skip=_OF_MIG | (_PICTURED if picture else frozenset()))
    if picture:
        yield ""
        yield from picture


def _terminal_fields() -> tuple[Field, ...]:
    left_out = {"fb_used_mib"}
    if (width_of(sys.stdout) or ROOMY) < ROOMY:
        left_out.add("framework")
    fields = [each for each in GPU.columns() if each.name not in left_out]
    return tuple(_USAGE if each.name == "fb_mib" else each for each in fields)


def _cell(field: Field, item: Item) -> str:
    if field is not _USAGE:
        return text_of(field, item)
    return mini_bar(item, _blocks())


def _blocks() -> Blocks:
    return UNICODE if has_unicode(sys.stdout) else ASCII

"""`vgpuctl mig`: MIG mode and GPU instances."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from vgpuctl.cli import names
from vgpuctl.cli.change import make, say_done, show_dry_run
from vgpuctl.cli.command import Group
from vgpuctl.cli.gpu import address_of
from vgpuctl.cli.migpicture import card
from vgpuctl.cli.options import ChangeOptions, change_options, output_options
from vgpuctl.cli.output import Item, print_items, write
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.cli.style import has_unicode
from vgpuctl.client.client import at
from vgpuctl.errors import UnsupportedHere
from vgpuctl.surface import GPU

_SHARE = re.compile(r"([1-9][0-9]?)c", re.IGNORECASE)
_PROFILE = re.compile(r"[0-9]+g\.[0-9]+gb\S*", re.IGNORECASE)


@click.group(
    cls=Group,
    examples="""
        vgpuctl mig show 0
        vgpuctl mig plan --gpu 0 --layout '2g.20gb:2,1g.10gb:3'
        vgpuctl mig apply --gpu 0 --layout 'A100D-2-20C:2,A100D-1-10C:3'
    """,
)
def mig() -> None:
    """MIG mode of GPUs, and the GPU instances that they are cut into."""


@mig.command(examples="vgpuctl mig show\nvgpuctl mig show 0000:41:00.0 -o json")
@click.argument("gpu", required=False, shell_complete=names.gpus)
@output_options
@pass_session
def show(session: Session, gpu: str | None) -> None:
    """Show how GPUs are cut: a picture of the memory slices, and what stands on each instance.

    Without a GPU, every one that has MIG.
    """
    client = session.client()
    found: list[Item] = client.get("/v1/gpus") if gpu is None else [client.get(at("gpus", gpu))]
    if gpu is None:
        found = [each for each in found if each.get("mig_slices")]
    if session.format != "table" or session.columns:
        print_items(session, GPU, found)
    elif gpu is not None and not found[0].get("mig_slices"):
        raise UnsupportedHere(f"GPU {found[0]['address']} ({found[0]['model']}) has no MIG")
    elif found:
        write(_pictures(session, found))
    else:
        session.say("no GPU of this host has MIG")


def _pictures(session: Session, found: list[Item]) -> Iterator[str]:
    for number, each in enumerate(found):
        if number:
            yield ""
        yield from card(each, session.paint(), unicode=has_unicode(sys.stdout))


def _layout_options(function: Any) -> Any:
    with_layout = click.option(
        "--layout",
        required=True,
        metavar="LAYOUT",
        help="2g.20gb:2,1g.10gb:3 (so many of each), 2g.20gb@0,1g.10gb@6 (at these slices), "
        "3g.40gb@0/1c/2c (with compute instances), or A100D-2-20C:2 (for these vGPUs).",
    )(function)
    return click.option(
        "--gpu", required=True, metavar="GPU", shell_complete=names.gpus, help="Address, UUID or index."
    )(with_layout)


@mig.command(
    examples="""
        vgpuctl mig plan --gpu 0 --layout '2g.20gb:2,1g.10gb:3'
        vgpuctl mig plan --gpu 0 --layout '3g.40gb@0,3g.40gb@4' -o json
    """
)
@_layout_options
@output_options
@pass_session
def plan(session: Session, *, gpu: str, layout: str) -> None:
    """Show what a layout would change: instances kept, destroyed and created, and whom it touches."""
    wish = mig_of(layout)
    client = session.client()
    show_dry_run(session, client, _edit(address_of(session, client, gpu), wish))


@mig.command(
    examples="""
        vgpuctl mig apply --gpu 0 --layout '2g.20gb:2,1g.10gb:3'
        vgpuctl mig apply --gpu 0 --layout 'DC-1-3Q:12' --yes
    """
)
@_layout_options
@change_options
@pass_session
def apply(session: Session, *, gpu: str, layout: str, options: ChangeOptions) -> None:
    """Cut a GPU as a layout says, with the least change; MIG mode is turned on where it is off.

    The layout goes into the document of the GPU, so that it is there again after a reboot.
    """
    _change(session, gpu, mig_of(layout), options, "is cut as wished")


@mig.command(examples="vgpuctl mig enable 0")
@click.argument("gpu", shell_complete=names.gpus)
@change_options
@pass_session
def enable(session: Session, gpu: str, options: ChangeOptions) -> None:
    """Turn MIG mode of a GPU on.  Refused while it carries vGPUs."""
    _change(session, gpu, {"enabled": True}, options, "is in MIG mode")


@mig.command(examples="vgpuctl mig disable 0 --yes")
@click.argument("gpu", shell_complete=names.gpus)
@change_options
@pass_session
def disable(session: Session, gpu: str, options: ChangeOptions) -> None:
    """Turn MIG mode of a GPU off.  Refused while it carries vGPUs."""
    _change(session, gpu, {"enabled": False}, options, "is not in MIG mode")


def mig_of(layout: str) -> Item:
    """The `mig` of a Gpu document that a layout means; raises a usage error."""
    parts = [each.strip() for each in layout.split(",") if each.strip()]
    if parts and all("@" in each for each in parts):
        return {"instances": [_place(each) for each in parts]}
    if any("@" in each for each in parts):
        raise click.UsageError("--layout: give a slice (PROFILE@SLICE) for every instance, or for none")
    counts: dict[str, int] = {}
    for each in parts:
        name, colon, count = each.rpartition(":")
        if not colon or not count.isdecimal():
            raise click.UsageError(
                f"--layout: {each!r} is neither NAME:COUNT such as 2g.20gb:2, nor PROFILE@SLICE"
            )
        counts[name] = counts.get(name, 0) + int(count)
    if not counts:
        raise click.UsageError("--layout says nothing")
    are_profiles = [_PROFILE.fullmatch(name) is not None for name in counts]
    if any(are_profiles) and not all(are_profiles):
        raise click.UsageError("--layout: give either GPU-instance profiles or vGPU types")
    return {"profiles" if all(are_profiles) else "vgpus": counts}


def _place(text: str) -> Item:
    where, *shares = text.split("/")
    profile, _, start = where.partition("@")
    slices = [_SHARE.fullmatch(each) for each in shares]
    if not start.isdecimal() or not all(slices):
        raise click.UsageError(f"--layout: {text!r} is no PROFILE@SLICE such as 2g.20gb@0 or 3g.40gb@0/1c/2c")
    place: Item = {"profile": profile, "start": int(start)}
    if shares:
        names = [_compute(profile, match[1]) for match in slices if match is not None]
        place["compute_instances"] = dict(Counter(names))
    return place


def _compute(profile: str, slices: str) -> str:
    """`1c.3g.40gb`; the profile itself where it is all of its slices."""
    return profile if profile.lower().startswith(f"{slices}g.") else f"{slices}c.{profile}"


def _edit(gpu: str | None, wish: Item) -> Item:
    return {"action": "set-mig", "gpu": gpu, "mig": wish}


def _change(session: Session, gpu: str, wish: Item, options: ChangeOptions, done: str) -> None:
    client = session.client()
    address = address_of(session, client, gpu)
    operation = make(session, client, _edit(address, wish), options, always_show=True)
    if operation is not None:
        say_done(session, f"GPU {address} {done}", operation)

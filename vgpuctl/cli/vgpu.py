"""`vgpuctl vgpu`."""

from __future__ import annotations

from dataclasses import replace

import click

from vgpuctl.cli import names
from vgpuctl.cli.change import make, say_done, vgpus_of
from vgpuctl.cli.command import Group
from vgpuctl.cli.gpu import address_of
from vgpuctl.cli.options import ChangeOptions, change_options, output_options
from vgpuctl.cli.output import Item, print_item, print_items
from vgpuctl.cli.reading import print_list, watch_option
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.cli.view import view
from vgpuctl.client.client import Client, at
from vgpuctl.surface import VGPU

_FOREIGN = tuple(
    replace(each, column=each.column or each.name.upper())
    for name in ("name", "type", "gpu", "vf", "seen_since", "last_user", "autostart")
    for each in VGPU.fields
    if each.name == name
)


@click.group(cls=Group)
def vgpu() -> None:
    """vGPUs: create, list, show, delete, prune."""


@vgpu.command(
    examples="""
        vgpuctl vgpu create --profile designer
        vgpuctl vgpu create --type L40S-8Q --gpu 0000:41:00.0 --name cad-1
        vgpuctl vgpu create --type T4-4Q --count 4 -o name
    """
)
@names.profile_option
@names.type_option
@names.gpu_option
@click.option("--name", metavar="NAME", help="Its name; NAME-1, NAME-2 ... for several.")
@click.option("--count", type=click.IntRange(min=1), default=1, metavar="N", help="So many.  [default: 1]")
@change_options
@pass_session
def create(
    session: Session,
    *,
    profile: str | None,
    type_: str | None,
    gpu: str | None,
    name: str | None,
    count: int,
    options: ChangeOptions,
) -> None:
    """Create vGPUs that stand for themselves, and print them (-o json: always a list)."""
    names.exactly_one(profile=profile, type=type_)
    client = session.client()
    edit = {
        "action": "create-vgpu",
        "profile": profile,
        "type": type_,
        "gpu": address_of(session, client, gpu),
        "name": name,
        "count": count,
    }
    operation = make(session, client, _given(edit), options, may_touch=False)
    if operation is not None:
        print_items(session, VGPU, vgpus_of(client, operation))


@vgpu.command("list", examples="vgpuctl vgpu list\nvgpuctl vgpu list --watch\nvgpuctl vgpu list --foreign")
@click.option(
    "--foreign", is_flag=True, help="Only those that nobody here made: since when, and who uses them."
)
@watch_option
@output_options
@pass_session
def list_(session: Session, *, foreign: bool, watch: bool) -> None:
    """List every vGPU: wanted, there, or made by somebody else."""

    def fetch(client: Client) -> list[Item]:
        found: list[Item] = client.get("/v1/vgpus?foreign=1" if foreign else "/v1/vgpus")
        return found

    print_list(session, VGPU, fetch, watch=watch, fields=_FOREIGN if foreign else None)


@vgpu.command(examples="vgpuctl vgpu show cad-1\nvgpuctl vgpu show 0000:41:00.4 -o json")
@click.argument("vgpu", shell_complete=names.vgpus)
@output_options
@pass_session
def show(session: Session, vgpu: str) -> None:
    """Show one vGPU, by name, id, mdev UUID or VF."""
    found = session.client().get(at("vgpus", vgpu))
    print_item(session, VGPU, found, lambda: view(VGPU, found, session.paint()))


@vgpu.command(examples="vgpuctl vgpu delete cad-1\nvgpuctl vgpu delete cad-1 --dry-run")
@click.argument("vgpu", shell_complete=names.vgpus)
@change_options
@pass_session
def delete(session: Session, *, vgpu: str, options: ChangeOptions) -> None:
    """Delete a vGPU that nobody uses."""
    client = session.client()
    operation = make(session, client, {"action": "delete-vgpu", "vgpu": vgpu}, options)
    if operation is not None:
        say_done(session, f"vGPU {vgpu} is deleted", operation)


@vgpu.command(examples="vgpuctl vgpu prune --dry-run\nvgpuctl vgpu prune --yes")
@change_options
@pass_session
def prune(session: Session, *, options: ChangeOptions) -> None:
    """Remove vGPUs of ours that no document wishes and nobody holds.

    The plan is shown first.  What somebody else made is never removed.
    """
    client = session.client()
    operation = make(session, client, {"action": "prune"}, options, always_show=True)
    if operation is not None:
        say_done(session, "pruned", operation)


def _given(edit: Item) -> Item:
    return {name: value for name, value in edit.items() if value is not None}

"""`vgpuctl vgpu`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import click

from vgpuctl.cli import names
from vgpuctl.cli.change import INTERRUPTED, fail_as, make, say_done, vgpus_of
from vgpuctl.cli.command import Group
from vgpuctl.cli.gpu import address_of
from vgpuctl.cli.options import ChangeOptions, change_options, output_options
from vgpuctl.cli.output import Item, print_item, print_items
from vgpuctl.cli.reading import print_list, watch_option
from vgpuctl.cli.session import NotAgreed, Session, pass_session, talk
from vgpuctl.cli.view import view
from vgpuctl.client.client import Client, at
from vgpuctl.client.operation import patiently
from vgpuctl.errors import VgpuctlError
from vgpuctl.surface import VGPU

_STATES = ("present", "absent", "pending", "conflict", "foreign", "unknown")
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


@vgpu.command(
    "list",
    examples="""
        vgpuctl vgpu list --watch
        vgpuctl vgpu list --gpu 0 --state absent
        vgpuctl vgpu list --domain win11-042 -o name
        vgpuctl vgpu list --foreign
    """,
)
@names.gpu_option
@click.option("--domain", metavar="DOMAIN", shell_complete=names.domains, help="Of this domain.")
@click.option("--state", type=click.Choice(_STATES), help="In this state.")
@click.option(
    "--foreign", is_flag=True, help="Only those that nobody here made: since when, and who uses them."
)
@watch_option
@output_options
@pass_session
def list_(
    session: Session, *, gpu: str | None, domain: str | None, state: str | None, foreign: bool, watch: bool
) -> None:
    """List every vGPU: wanted, there, or made by somebody else.  Options that choose hold all at once."""

    def fetch(client: Client) -> list[Item]:
        wanted = _given({"gpu": gpu, "domain": domain, "state": state})
        if gpu is not None:
            wanted["gpu"] = client.get(at("gpus", gpu))["address"]
        found: list[Item] = client.get("/v1/vgpus", foreign=foreign)
        return [each for each in found if wanted.items() <= {name: each[name] for name in wanted}.items()]

    print_list(session, VGPU, fetch, watch=watch, fields=_FOREIGN if foreign else None)


@vgpu.command(examples="vgpuctl vgpu show cad-1\nvgpuctl vgpu show 0000:41:00.4 -o json")
@click.argument("vgpu", shell_complete=names.vgpus)
@output_options
@pass_session
def show(session: Session, vgpu: str) -> None:
    """Show one vGPU, by name, id, mdev UUID or VF."""
    found = session.client().get(at("vgpus", vgpu))
    print_item(session, VGPU, found, lambda: view(VGPU, found, session.paint()))


@vgpu.command(
    examples="""
        vgpuctl vgpu delete cad-1
        vgpuctl vgpu delete cad-1 cad-2 cad-3
        vgpuctl vgpu delete cad-1 --dry-run
    """
)
@click.argument("vgpus", metavar="VGPU...", nargs=-1, required=True, shell_complete=names.vgpus)
@change_options
@pass_session
def delete(session: Session, *, vgpus: tuple[str, ...], options: ChangeOptions) -> None:
    """Delete vGPUs that nobody uses.

    Each is deleted by an operation of its own, one after the other.  Nothing is deleted where one of them is
    not there or cannot be deleted; where one fails later, those after it are left alone.
    """
    each_once = list(dict.fromkeys(vgpus))
    if len(each_once) > 1 and session.is_for_programs:
        raise click.UsageError("-o json and -o yaml take one vGPU: each is an operation of its own")
    client = session.client()
    if len(each_once) > 1 and not options.dry_run:
        for each in each_once:
            fail_as(patiently(partial(client.post, "/v1/plans", _deletion(each))), told=False)
    for number, each in enumerate(each_once):
        try:
            operation = make(session, client, _deletion(each), options)
        except NotAgreed as refusal:
            if number == 0:
                raise
            talk(f"left alone: {', '.join(each_once[number:])}")
            raise SystemExit(INTERRUPTED if refusal.interrupted else 1) from None
        except (VgpuctlError, SystemExit):
            if each_once[number + 1 :] and not options.dry_run:
                talk(f"left alone: {', '.join(each_once[number + 1 :])}")
            raise
        if operation is not None:
            say_done(session, f"vGPU {each} is deleted", operation)


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


def _deletion(vgpu: str) -> Item:
    return {"action": "delete-vgpu", "vgpu": vgpu}


def _given(edit: Item) -> Item:
    return {name: value for name, value in edit.items() if value is not None}

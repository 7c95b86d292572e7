"""`vgpuctl attach` and `vgpuctl detach`: a desktop's vGPUs."""

from __future__ import annotations

from collections.abc import Iterator

import click

from vgpuctl.cli import names
from vgpuctl.cli.cells import NULL, plain
from vgpuctl.cli.change import make, say_done, vgpus_of
from vgpuctl.cli.command import Command
from vgpuctl.cli.gpu import address_of
from vgpuctl.cli.options import ChangeOptions, change_options
from vgpuctl.cli.output import Item, print_items, write
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.client.client import Client, at
from vgpuctl.errors import VgpuctlError
from vgpuctl.surface import VGPU


@click.command(
    cls=Command,
    examples="""
        vgpuctl attach win11-042 --profile designer
        vgpuctl attach win11-042 --type L40S-8Q --gpu 0 --config
        vgpuctl attach win11-042 --vgpu cad-1 --live --yes
    """,
)
@click.argument("domain", shell_complete=names.domains)
@names.profile_option
@names.type_option
@click.option("--vgpu", metavar="VGPU", shell_complete=names.vgpus, help="One that there is already.")
@names.gpu_option
@click.option("--live", is_flag=True, help="Into the running guest.")
@click.option("--config", is_flag=True, help="Into the definition, for the next start.")
@change_options
@pass_session
def attach(
    session: Session,
    *,
    domain: str,
    profile: str | None,
    type_: str | None,
    vgpu: str | None,
    gpu: str | None,
    live: bool,
    config: bool,
    options: ChangeOptions,
) -> None:
    """Give a domain a vGPU: a new one, or one that there is already.

    Each call adds one: to a domain that has some, another one, after a question on a terminal.

    Without --live and --config it goes into the definition, and into the guest too where it runs.
    A running guest is touched only after a question, or with --yes.
    """
    names.exactly_one(profile=profile, type=type_, vgpu=vgpu)
    if vgpu is not None and gpu is not None:
        raise click.UsageError("--gpu chooses where a new vGPU goes; --vgpu is on a GPU already")
    client = session.client()
    if session.can_ask() and not (options.yes or options.dry_run):
        _ask_about_another(session, client, domain, vgpu)
    edit: Item = {"action": "attach", "domain": domain}
    chosen = {"profile": profile, "type": type_, "vgpu": vgpu, "gpu": address_of(session, client, gpu)}
    edit |= {name: value for name, value in chosen.items() if value is not None}
    affect = [name for name, wanted in (("live", live), ("config", config)) if wanted]
    if affect:
        edit["affect"] = affect
    operation = make(session, client, edit, options)
    if operation is None:
        return
    came = vgpus_of(client, operation)
    if session.format == "table" and not session.columns:
        write(_lines(domain, came))
    else:
        print_items(session, VGPU, came)


@click.command(
    cls=Command, examples="vgpuctl detach win11-042\nvgpuctl detach win11-042 --vgpu win11-042-2 --yes"
)
@click.argument("domain", shell_complete=names.domains)
@click.option("--vgpu", metavar="VGPU", shell_complete=names.vgpus, help="Only this one.  [default: all]")
@change_options
@pass_session
def detach(session: Session, *, domain: str, vgpu: str | None, options: ChangeOptions) -> None:
    """Take vGPUs away from a domain; those that were made for it are deleted."""
    client = session.client()
    edit: Item = {"action": "detach", "domain": domain}
    if vgpu is not None:
        edit["vgpu"] = vgpu
    operation = make(session, client, edit, options)
    if operation is not None:
        gone = ", ".join((operation.get("result") or {}).get("vgpus") or [])
        say_done(session, f"{domain}: {gone} is detached" if gone else f"{domain} had no vGPU", operation)


def _ask_about_another(session: Session, client: Client, domain: str, vgpu: str | None) -> None:
    """Ask where the domain has a vGPU that it was given here, and this is none of them."""
    try:
        has = [each for each in client.get(at("domains", domain))["vgpus"] if each["state"] != "foreign"]
    except VgpuctlError:
        return  # what is wrong is told by the change itself
    if has and vgpu not in [each["name"] for each in has]:
        session.confirm(
            f"{plain(domain)} has vGPU {', '.join(map(plain, has))} already. Give it another one?"
        )


def _lines(domain: str, came: list[Item]) -> Iterator[str]:
    for each in came:
        where = plain(each.get("vf") or each.get("gpu")) or NULL
        yield f"{plain(domain)}: {plain(each.get('type')) or '?'} on {where} (vGPU {plain(each.get('name'))})"

"""`vgpuctl adopt`, `pause` and `resume`: what the daemon takes care of by itself."""

from __future__ import annotations

from typing import Any

import click

from vgpuctl.cli import names
from vgpuctl.cli.change import make, say_done, vgpus_of
from vgpuctl.cli.command import Command
from vgpuctl.cli.options import ChangeOptions, change_options, output_options
from vgpuctl.cli.output import Item, print_for_programs, print_items
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.client.client import Client
from vgpuctl.surface import VGPU


@click.command(
    cls=Command,
    examples="""
        vgpuctl adopt 0000:41:00.4 --name cad-7
        vgpuctl adopt --all --dry-run
    """,
)
@click.argument("vgpu", required=False, shell_complete=names.vgpus)
@click.option("--all", "all_", is_flag=True, help="Every vGPU that is not ours.")
@click.option("--name", metavar="NAME", help="What it is called then; by default adopted-ID.")
@click.option(
    "--disable-autostart",
    is_flag=True,
    help="Switch off mdevctl's (and libvirt's nodedev's) autostart of it; also of one that is ours.",
)
@change_options
@pass_session
def adopt(
    session: Session,
    *,
    vgpu: str | None,
    all_: bool,
    name: str | None,
    disable_autostart: bool,
    options: ChangeOptions,
) -> None:
    """Take over vGPUs that somebody else made: they get a document, and are kept as they are.

    Where a domain's XML names one by our alias, it gets the id that it had.
    """
    if (vgpu is None) is not all_:
        raise click.UsageError("give a vGPU, or --all")
    if name is not None and vgpu is None:
        raise click.UsageError("--name is of one vGPU, --all takes over all")
    client = session.client()
    edit: dict[str, Any] = {"action": "adopt", "vgpu": vgpu}
    if name is not None:
        edit["name"] = name
    if disable_autostart:
        edit["sole_starter"] = True
    operation = make(session, client, edit, options)
    if operation is not None:
        found = vgpus_of(client, operation)
        if not found:
            session.say("there is no vGPU that is not ours")
        if found or session.format != "table":
            print_items(session, VGPU, found)
        for each in found:
            if each.get("autostart") and not disable_autostart:
                session.say(
                    f"{each['autostart']} starts {each['name']} too; to switch that off: "
                    f"vgpuctl adopt {each['name']} --disable-autostart"
                )


@click.command(
    cls=Command,
    examples="""
        vgpuctl repair --dry-run
        vgpuctl repair win11-042
        vgpuctl repair 0000:41:00.0
    """,
)
@click.argument("name", required=False, shell_complete=names.vgpus)
@change_options
@pass_session
def repair(session: Session, *, name: str | None, options: ChangeOptions) -> None:
    """Mend what is not as it should be: a vGPU, all that is on a GPU, or whatever can be mended.

    The plan is shown first.  `vgpuctl host show` lists what there is to mend.
    """
    client = session.client()
    edit = {"action": "repair", "subject": name}
    operation = make(session, client, edit, options, always_show=True)
    if operation is not None:
        say_done(session, _mended(client, operation, name), operation)


def _mended(client: Client, operation: Item, name: str | None) -> str:
    if operation["steps_total"]:
        return "mended"
    if name is None and client.get("/v1/host")["drift"]:
        return "nothing was mended: what differs is left alone until its name is given, or cannot be mended"
    return "there is nothing to mend"


@click.command(cls=Command, examples="vgpuctl pause")
@output_options
@pass_session
def pause(session: Session) -> None:
    """Stop background changes until `resume`, across restarts; what is asked for is still done."""
    _set(session, "pause", "background changes are paused; `vgpuctl resume` lets them go on")


@click.command(cls=Command, examples="vgpuctl resume")
@output_options
@pass_session
def resume(session: Session) -> None:
    """Let background changes go on."""
    _set(session, "resume", "background changes go on")


def _set(session: Session, action: str, done: str) -> None:
    host = session.client().post(f"/v1/{action}")
    if not print_for_programs(session, host):
        session.say(done)

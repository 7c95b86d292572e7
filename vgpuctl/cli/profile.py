"""`vgpuctl profile`."""

from __future__ import annotations

import click

from vgpuctl.cli import names
from vgpuctl.cli.command import Group
from vgpuctl.cli.options import output_options
from vgpuctl.cli.output import print_item, print_items
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.cli.view import view
from vgpuctl.client.client import at
from vgpuctl.surface import PROFILE


@click.group(cls=Group)
def profile() -> None:
    """Named type profiles: what administrators ask for."""


@profile.command("list", examples="vgpuctl profile list\nvgpuctl profile list -o name")
@output_options
@pass_session
def list_(session: Session) -> None:
    """List every profile, and the type that it would give now."""
    print_items(session, PROFILE, session.client().get("/v1/profiles"))


@profile.command(examples="vgpuctl profile show designer")
@click.argument("name", shell_complete=names.profiles)
@output_options
@pass_session
def show(session: Session, name: str) -> None:
    """Show one profile."""
    found = session.client().get(at("profiles", name))
    print_item(session, PROFILE, found, lambda: view(PROFILE, found, session.paint()))

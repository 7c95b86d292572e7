"""`vgpuctl domain`."""

from __future__ import annotations

import click

from vgpuctl.cli import names
from vgpuctl.cli.command import Group
from vgpuctl.cli.options import output_options
from vgpuctl.cli.output import Item, print_for_programs, print_item, write
from vgpuctl.cli.reading import print_list, watch_option
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.cli.view import view
from vgpuctl.client.client import Client, at
from vgpuctl.surface import DOMAIN


@click.group(cls=Group)
def domain() -> None:
    """Domains of libvirt, and their vGPUs."""


@domain.command("list", examples="vgpuctl domain list\nvgpuctl domain list -o name")
@watch_option
@output_options
@pass_session
def list_(session: Session, *, watch: bool) -> None:
    """List every domain with its vGPUs."""

    def fetch(client: Client) -> list[Item]:
        found: list[Item] = client.get("/v1/domains")
        return found

    print_list(session, DOMAIN, fetch, watch=watch)


@domain.command(examples="vgpuctl domain show win11-042\nvgpuctl domain show win11-042 -o json | jq .vgpus")
@click.argument("domain", shell_complete=names.domains)
@output_options
@pass_session
def show(session: Session, domain: str) -> None:
    """Show one domain, by name or UUID: its vGPUs and its hostdevs."""
    found = session.client().get(at("domains", domain))
    print_item(session, DOMAIN, found, lambda: view(DOMAIN, found, session.paint()))


@domain.command(examples="vgpuctl domain xml win11-042\nvgpuctl domain xml win11-042 --live")
@click.argument("domain", shell_complete=names.domains)
@click.option("--live", is_flag=True, help="That of the running guest.  [default: the definition]")
@output_options
@pass_session
def xml(session: Session, domain: str, *, live: bool) -> None:
    """Print a domain's XML as libvirt has it."""
    found = session.client().get(at("domains", domain, "xml"), live=live)
    if not print_for_programs(session, found):
        text = found["xml"] if isinstance(found, dict) else str(found)
        write([text.rstrip("\n")])

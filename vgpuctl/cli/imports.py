"""`vgpuctl import`: what other tools wrote, as our documents."""

from __future__ import annotations

import click

from vgpuctl.cli.change import make, say_done
from vgpuctl.cli.command import Group
from vgpuctl.cli.options import ChangeOptions, change_options
from vgpuctl.cli.output import Item
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.cli.sources import Sources


@click.group("import", cls=Group, examples="vgpuctl import mig-parted config.yaml --config all-balanced")
def import_() -> None:
    """Take over what other tools were told."""


@import_.command(
    "mig-parted",
    examples="""
        vgpuctl import mig-parted config.yaml --config all-1g.10gb --dry-run
        vgpuctl import mig-parted config.yaml --config custom --yes
    """,
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--config", metavar="NAME", help="Which of its mig-configs.  [default: the only one]")
@change_options
@pass_session
def mig_parted(session: Session, *, file: str, config: str | None, options: ChangeOptions) -> None:
    """Put a configuration of a mig-parted file into the documents of the GPUs that it means.

    Its device filters and indices are resolved to addresses now; indices are those of the NVIDIA GPUs
    by address.  Shows the plan and asks.
    """
    sources = Sources((file,))
    edit: Item = {"action": "import-mig-parted", "source": sources.joined()}
    if config is not None:
        edit["config"] = config
    with sources.told():
        operation = make(session, session.client(), edit, options, always_show=True)
    if operation is not None:
        count = len((operation.get("result") or {}).get("documents") or [])
        say_done(session, f"imported: {count} document{'' if count == 1 else 's'}", operation)

"""`vgpuctl help`."""

from __future__ import annotations

import click

from vgpuctl.cli.command import Command


@click.command("help", cls=Command, examples="vgpuctl help\nvgpuctl help vgpu create")
@click.argument("command", nargs=-1)
@click.pass_context
def help_(context: click.Context, command: tuple[str, ...]) -> None:
    """Help for a command."""
    found = context.find_root()
    for name in command:
        group = found.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"{found.command_path} has no commands", found)
        _, inner, _ = group.resolve_command(found, [name])
        if inner is not None:
            found = click.Context(inner, info_name=name, parent=found)
    click.echo(found.get_help())

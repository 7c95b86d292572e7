"""`vgpuctl completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from vgpuctl.cli.command import Command


@click.command(
    cls=Command,
    examples="""
        source <(vgpuctl completion bash)
        vgpuctl completion zsh > ~/.zfunc/_vgpuctl
        vgpuctl completion fish > ~/.config/fish/completions/vgpuctl.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script: commands, options, and the names that the daemon knows."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(context.find_root().command, {}, "vgpuctl", "_VGPUCTL_COMPLETE").source())

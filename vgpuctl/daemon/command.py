"""The command line of the daemon."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from vgpuctl.daemon.config import Options
from vgpuctl.daemon.logs import LEVELS
from vgpuctl.daemon.main import run
from vgpuctl.errors import VgpuctlError


class _Path(click.Path):
    """A path; one that a script left empty is none, and not the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            self.fail("it is empty; name a path, or leave the option out", param, ctx)
        return super().convert(value, param, ctx)


_PATH = _Path(path_type=Path)
_LEVEL = click.Choice(list(LEVELS))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--simulate", metavar="CARDS|FILE", help="Run on simulated GPUs: t4,l40s,a100-80, or a file.")
@click.option("--libvirt", metavar="URI", help="Which libvirt; qemu:///system by default.")
@click.option("--state-dir", type=_PATH, metavar="DIR", help="Where wishes and the log are kept.")
@click.option("--socket", type=_PATH, metavar="PATH", help="Where the API is served.")
@click.option("--config", type=_PATH, metavar="FILE", help="Instead of /etc/vgpuctl/vgpuctl.toml.")
@click.option("--root", type=_PATH, metavar="DIR", help="Where /sys, /proc and /dev begin.")
@click.option("--log-level", type=_LEVEL, help="How much to log.")
def daemon(**given: Any) -> None:
    """Manage the vGPUs of this host, in the foreground."""
    try:
        run(Options(**given))
    except VgpuctlError as error:
        click.echo(f"vgpuctl: {error.message}", err=True)
        faults = error.facts.get("faults", [])
        for fault in faults if len(faults) > 1 else []:
            where = ": ".join(part for part in (fault["document"], fault["path"]) if part)
            click.echo(f"  {where}: {fault['message']}", err=True)
        if error.hint:
            click.echo(f"  hint: {error.hint}", err=True)
        sys.exit(error.exit_status)

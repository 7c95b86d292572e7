"""`vgpuctl daemon`: the daemon in place of this process."""

from __future__ import annotations

import os
import sys

import click

import vgpuctl
from vgpuctl.cli.command import Command

_INSTALLED = ("site-packages", "dist-packages")


@click.command(
    cls=Command,
    examples="""
        vgpuctl daemon --simulate l40s
        vgpuctl daemon --simulate t4,l40s,a100-80 --state-dir /tmp/vgpuctl
        vgpuctl daemon --libvirt qemu:///system
    """,
)
@click.option(
    "--simulate", metavar="CARDS|FILE", help="Simulated GPUs: t4,l40s,..., a YAML file, or a capture."
)
@click.option("--libvirt", metavar="URI", help="Where libvirt is.  [default: qemu:///system]")
@click.option("--state-dir", metavar="DIR", help="Where the state is kept.  [default: /var/lib/vgpuctl]")
@click.option("--socket", metavar="PATH", help="Where it listens.  [default: /run/vgpuctl/vgpuctl.sock]")
@click.option("--config", metavar="FILE", help="Its configuration.  [default: /etc/vgpuctl/vgpuctl.toml]")
@click.option("--root", metavar="DIR", help="Where /sys, /proc and /dev begin.  [default: /]")
@click.option(
    "--log-level",
    type=click.Choice(("debug", "info", "warning", "error")),
    help="From which level on it logs.  [default: info]",
)
def daemon(**given: str | None) -> None:
    """Run the daemon in the foreground; an ordinary user's keeps its state and socket below $XDG_*.

    With --simulate no GPU is needed: cards are kept by a process of their own, as a kernel would,
    and `vgpuctl sim` does to them what life does.
    """
    arguments = [
        part
        for name, value in given.items()
        if value is not None
        for part in (f"--{name.replace('_', '-')}", value)
    ]
    # -P: the daemon runs as root, and must not import what lies in the current directory.
    command = [sys.executable, "-P", "-m", "vgpuctl.daemon", *arguments]
    os.execve(sys.executable, command, _environment())  # noqa: S606 - there is no shell


def _environment() -> dict[str, str]:
    """The environment in which a fresh interpreter finds this very package, also in a checkout."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(vgpuctl.__file__)))  # noqa: PTH100, PTH120
    if os.path.basename(home) in _INSTALLED:  # noqa: PTH119
        return dict(os.environ)
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}

"""`vgpuctl host`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import click

from vgpuctl.cli.command import Group
from vgpuctl.cli.options import output_options
from vgpuctl.cli.output import print_item, write
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.cli.view import view
from vgpuctl.surface import HOST


@click.group(cls=Group)
def host() -> None:
    """The host, and what is wrong with it."""


@host.command(examples="vgpuctl host show\nvgpuctl host show -o json | jq .problems")
@output_options
@pass_session
def show(session: Session) -> None:
    """Show the host: kernel, driver, libvirt, and every problem with a hint."""
    found = session.client().get("/v1/host")
    print_item(session, HOST, found, lambda: view(HOST, found, session.paint()))


@host.command(examples="vgpuctl host capture -f host.json\nvgpuctl daemon --simulate host.json")
@click.option("-f", "--file", default="-", metavar="FILE", help="Where to write it.  [default: stdout]")
@pass_session
def capture(session: Session, file: str) -> None:
    """Write what sysfs, NVML and libvirt say, redacted, as a file that --simulate replays."""
    text = json.dumps(session.client().get("/v1/host/capture"), indent=1, ensure_ascii=False)
    if file == "-":
        write([text])
        return
    _write_whole(Path(file), text + "\n")
    session.say(f"wrote {file}")


def _write_whole(path: Path, text: str) -> None:
    """Write `path` so that it is there whole or not at all, and for its owner only.

    What is no ordinary file (a device, a pipe, a link) is written to, never replaced.
    """
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_text(text, encoding="utf-8")
            return
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        raise click.FileError(str(path), error.strerror or str(error)) from error

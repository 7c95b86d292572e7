"""`vgpuctl plan`, `apply`, `assert` and `export`: documents in files."""

from __future__ import annotations

import sys
from typing import Any

import click

from vgpuctl.cli.change import fail_as, make, say_done, show_plan
from vgpuctl.cli.command import Command
from vgpuctl.cli.options import ChangeOptions, change_options, output_options
from vgpuctl.cli.output import Item, check_format, write
from vgpuctl.cli.session import Session, pass_session
from vgpuctl.cli.sources import Sources
from vgpuctl.surface import PLAN

CHANGES_PENDING = 10
_UNKNOWN = 7
_STATUS = {"match": 0, "drift": CHANGES_PENDING, "unknown": _UNKNOWN}


def _file_options(function: Any) -> Any:
    with_prune = click.option(
        "--prune", is_flag=True, help="Documents of the same kinds that no file lists go; only ours."
    )(function)
    return click.option(
        "-f",
        "--file",
        "files",
        multiple=True,
        required=True,
        metavar="FILE",
        type=click.Path(dir_okay=False, allow_dash=True),
        help="YAML or JSON documents; - is stdin; may be given several times.",
    )(with_prune)


def _edit(sources: Sources, *, prune: bool) -> Item:
    return {"action": "apply", "source": sources.joined(), "prune": prune}


def _plan(session: Session, files: tuple[str, ...], *, prune: bool) -> Item:
    check_format(session, PLAN)
    sources = Sources(files)
    with sources.told():
        found: Item = session.client().post("/v1/plans", _edit(sources, prune=prune))
    return found


@click.command(
    cls=Command,
    examples="""
        vgpuctl plan -f desktops.yaml
        vgpuctl plan -f desktops.yaml --prune --detailed-exitcode
        generate-desktops | vgpuctl plan -f - -o json
    """,
)
@_file_options
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 10 where changes are pending.")
@output_options
@pass_session
def plan(session: Session, *, files: tuple[str, ...], prune: bool, detailed_exitcode: bool) -> None:
    """Show what applying files would do: documents, steps, whom they touch, what cannot be done.

    Exits with 0, and where something cannot be done with the status that apply would have; with
    --detailed-exitcode: 0 nothing to do, 10 changes pending, 7 something that this depends on could
    not be read.
    """
    found = _plan(session, files, prune=prune)
    show_plan(session, found)
    if detailed_exitcode:
        raise SystemExit(_status(found))


@click.command(
    cls=Command,
    examples="""
        vgpuctl apply -f desktops.yaml
        vgpuctl apply -f desktops.yaml --prune --dry-run
        vgpuctl apply -f - --yes < desktops.yaml
    """,
)
@_file_options
@change_options
@pass_session
def apply(session: Session, *, files: tuple[str, ...], prune: bool, options: ChangeOptions) -> None:
    """Put the documents of files in force: show the plan, ask, and do just that.

    What is not listed is left alone, unless --prune says otherwise.  Without a terminal it takes
    --yes.  Applying what already holds changes nothing.
    """
    sources = Sources(files)
    with sources.told():
        operation = make(session, session.client(), _edit(sources, prune=prune), options, always_show=True)
    if operation is not None:
        count = len((operation.get("result") or {}).get("documents") or [])
        say_done(session, f"applied {count} document{'' if count == 1 else 's'}", operation)


@click.command(
    "assert",
    cls=Command,
    examples="""
        vgpuctl assert -f desktops.yaml
        vgpuctl assert -f desktops.yaml -q || vgpuctl apply -f desktops.yaml --yes
    """,
)
@_file_options
@output_options
@pass_session
def assert_(session: Session, *, files: tuple[str, ...], prune: bool) -> None:
    """Check that documents and host are as files say; changes nothing.

    Exits with 0 where they match, 10 where they differ, 7 where something could not be read; where
    they differ and apply would be refused, with the status that it would have.
    """
    found = _plan(session, files, prune=prune)
    if session.quiet:
        fail_as(found, told=False)
    else:
        show_plan(session, found)
    raise SystemExit(_status(found))


@click.command(
    cls=Command,
    examples="""
        vgpuctl export > desktops.yaml
        vgpuctl export -o json | jq '.[].name'
        vgpuctl export --format mig-parted > mig.yaml
    """,
)
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="[default: yaml]")
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["vgpuctl", "mig-parted"]),
    default="vgpuctl",
    help="Our documents, or the GPU instances that are cut now as mig-parted's.  [default: vgpuctl]",
)
@pass_session
def export(session: Session, *, output: str, as_json: bool, form: str) -> None:
    """Print every document in force, in the format that apply reads; or how the GPUs are cut."""
    if form == "mig-parted":
        from vgpuctl.cli.migparted import configuration  # noqa: PLC0415

        found = [configuration(session.client().get("/v1/gpus"))]
    else:
        found = session.client().get("/v1/documents")
    if output == "json" or as_json:
        session.format = "json"
        import json  # noqa: PLC0415

        whole = found[0] if form == "mig-parted" else found
        write([json.dumps(whole, indent=2, ensure_ascii=False)])
    else:
        from vgpuctl.cli.yamltext import dump_all  # noqa: PLC0415

        sys.stdout.write(dump_all(found))


def _status(found: Item) -> int:
    """The exit status of a plan; a document that changes is a difference even where the host agrees."""
    status = _STATUS.get(found.get("verdict", ""), _UNKNOWN)
    if status == 0 and found.get("changes"):
        return CHANGES_PENDING
    return status

"""`vgpuctl`: the root command, and the edge where errors become exit statuses."""

from __future__ import annotations

import os
import sys
from typing import ClassVar

import click

from vgpuctl import __version__
from vgpuctl.cli.command import Group, common_options
from vgpuctl.cli.session import NOT_CHANGED, NotAgreed, Session, talk
from vgpuctl.errors import VgpuctlError

_INTERRUPTED = 130
_PROGRAM = "vgpuctl"


class Root(Group):
    """The root command; its help shows the commands by what they are for."""

    sections: ClassVar[dict[str, dict[str, tuple[str, str]]]] = {
        "Desktops and vGPUs": {
            "attach": ("desktop:attach", "Give a domain a vGPU."),
            "detach": ("desktop:detach", "Take a domain's vGPUs away."),
            "domain": ("domain:domain", "Domains of libvirt, and their vGPUs."),
            "vgpu": ("vgpu:vgpu", "vGPUs: create, list, show, delete, prune."),
            "adopt": ("background:adopt", "Take over vGPUs that somebody else made."),
            "repair": ("background:repair", "Mend what is not as it should be."),
        },
        "What there is": {
            "host": ("host:host", "The host, and what is wrong with it."),
            "gpu": ("gpu:gpu", "Physical GPUs: how full they are; replace one."),
            "mig": ("mig:mig", "MIG mode, and the GPU instances that GPUs are cut into."),
            "type": ("vgputype:vgputype", "vGPU types."),
            "profile": ("profile:profile", "Named type profiles."),
        },
        "Documents": {
            "plan": ("document:plan", "Show what a file would change."),
            "apply": ("document:apply", "Put the documents of a file in force."),
            "assert": ("document:assert_", "Check that the host is as a file says."),
            "export": ("document:export", "Print the documents in force."),
            "import": ("imports:import_", "Take over what other tools were told."),
        },
        "The daemon": {
            "daemon": ("daemon:daemon", "Run the daemon, with real or simulated GPUs."),
            "operation": ("operation:operation", "Changes that run or ran."),
            "events": ("event:events", "What happened."),
            "pause": ("background:pause", "Stop background changes."),
            "resume": ("background:resume", "Let background changes go on."),
            "query": ("query:query", "A raw request to the API."),
            "sim": ("sim:sim", "What life does to a simulated host."),
        },
        "This program": {
            "completion": ("completion:completion", "A completion script for your shell."),
            "help": ("help:help_", "Help for a command."),
        },
    }

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section for each purpose."""
        for heading, commands in self.sections.items():
            self.write_commands(heading, list(commands), ctx, formatter)


@click.group(
    cls=Root,
    lazy={name: entry for section in Root.sections.values() for name, entry in section.items()},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples="""
        vgpuctl gpu list
        vgpuctl attach win11-042 --profile designer
        vgpuctl plan -f desktops.yaml
        vgpuctl daemon --simulate t4,l40s
    """,
)
@click.version_option(__version__, "--version", prog_name=_PROGRAM)
def cli() -> None:
    """Manage NVIDIA virtual GPUs on this libvirt/KVM host.

    \b
    Exit status: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict, 5 no capacity,
    6 denied, 7 daemon or libvirt unreachable, or timeout, 8 failed and rolled back,
    9 failed and needs an operator, 10 the host differs, 130 interrupted.
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped


cli.params.extend(common_options(hidden=False))


def main(args: list[str] | None = None) -> None:
    """Run the command line and end the process."""
    sys.exit(run(args))


def run(args: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    session = Session()
    try:
        status = cli.main(
            args, prog_name=_PROGRAM, complete_var="_VGPUCTL_COMPLETE", standalone_mode=False, obj=session
        )
        sys.stdout.flush()
    except VgpuctlError as error:
        from vgpuctl.cli.fault import tell  # noqa: PLC0415 - json is not needed where nothing fails

        return tell(session, error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except NotAgreed as refusal:
        talk(NOT_CHANGED)
        return _INTERRUPTED if refusal.interrupted else 1
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except OSError as error:
        # Whoever reads a pipe has had enough, or a disk is full; a flush at exit would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            talk(f"{_PROGRAM}: {error.filename or 'the output'}: {error.strerror or error}")
        return 1
    return status if isinstance(status, int) else 0

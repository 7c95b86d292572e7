"""Names that the shell completes: asked from the daemon, quickly, and silently where it does not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from vgpuctl.cli.session import Session
from vgpuctl.errors import VgpuctlError

_LIMIT_S = 1.0

Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _completer(path: str, field: str, *, states: frozenset[str] | None = None) -> Completer:
    """Completes `field` of what stands at `path`; with `states`, only of what is in one of them."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        try:
            client = context.ensure_object(Session).client(limit_s=_LIMIT_S)
            found = {
                str(each[field]) for each in client.get(path) if states is None or each["state"] in states
            }
        except (VgpuctlError, ValueError, LookupError, TypeError):
            return []
        return sorted(each for each in found if each.lower().startswith(incomplete.lower()))

    return complete


domains = _completer("/v1/domains", "name")
gpus = _completer("/v1/gpus", "address")
vgpus = _completer("/v1/vgpus", "name")
profiles = _completer("/v1/profiles", "name")
types = _completer("/v1/types", "name")
operations = _completer("/v1/operations", "id")
going_on = _completer("/v1/operations", "id", states=frozenset({"running", "rolling-back"}))


def gpu_option(function: Any) -> Any:
    """--gpu."""
    return click.option(
        "--gpu", metavar="GPU", shell_complete=gpus, help="On this GPU: address, UUID or index."
    )(function)


def profile_option(function: Any) -> Any:
    """--profile."""
    return click.option(
        "--profile", "-p", metavar="PROFILE", shell_complete=profiles, help="What it gets, by profile."
    )(function)


def type_option(function: Any) -> Any:
    """--type."""
    return click.option(
        "--type", "-t", "type_", metavar="TYPE", shell_complete=types, help="What it gets, by vGPU type."
    )(function)


def exactly_one(**given: Any) -> None:
    """Raise a usage error unless just one of these options was given."""
    if sum(each is not None for each in given.values()) != 1:
        names = [f"--{name}" for name in given]
        raise click.UsageError(f"give exactly one of {', '.join(names[:-1])} and {names[-1]}")

"""`Session`: what this run was told about the daemon, about printing and about talking."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from vgpuctl.cli.style import Paint, wants_colour
from vgpuctl.errors import InvalidInput

if TYPE_CHECKING:  # http.client alone costs as much as the rest of a start
    from vgpuctl.client.client import Client

NOT_CHANGED = "nothing was changed"
FORMATS = ("table", "wide", "json", "yaml", "csv", "name")


class NotAgreed(click.Abort):
    """Whoever was asked did not say yes, or pressed Ctrl-C."""

    def __init__(self, *, interrupted: bool) -> None:
        super().__init__()
        self.interrupted = interrupted


def talk(text: str) -> None:
    """A line to stderr, whether or not somebody wants to hear it."""
    sys.stderr.write(f"{text}\n")


def _debug_wanted() -> bool:
    return os.environ.get("VGPUCTL_LOG", "").lower() == "debug"


@dataclass(slots=True)
class Session:
    """Options that hold for the whole run.  Data goes to stdout; what `say` says goes to stderr."""

    host: str | None = None
    color: str = "auto"
    quiet: bool = False
    debug: bool = field(default_factory=_debug_wanted)
    format: str = "table"
    headers: bool = True
    columns: tuple[str, ...] = ()

    def client(self, *, limit_s: float | None = None) -> Client:
        """The daemon.  `limit_s` bounds connecting and each reply, where an answer is only nice to have."""
        from vgpuctl.client.client import CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S, Client  # noqa: PLC0415

        return Client(
            self.host or os.environ.get("VGPUCTL_HOST"),
            connect_timeout_s=limit_s or CONNECT_TIMEOUT_S,
            reply_timeout_s=limit_s or REPLY_TIMEOUT_S,
            trace=talk if self.debug else None,
            slow=talk if sys.stderr.isatty() and not self.quiet else None,
        )

    def paint(self) -> Paint:
        """Colours of stdout."""
        return Paint(enabled=wants_colour(sys.stdout, self.color))

    def paint_talk(self) -> Paint:
        """Colours of stderr."""
        return Paint(enabled=wants_colour(sys.stderr, self.color))

    def say(self, text: str) -> None:
        """Talk: what a person wants to know, and no program reads."""
        if not self.quiet:
            talk(text)

    @property
    def is_for_programs(self) -> bool:
        """Whether stdout is JSON or YAML."""
        return self.format in ("json", "yaml")

    @staticmethod
    def can_ask() -> bool:
        """Whether a person is there to answer."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str) -> None:
        """Ask; raise NotAgreed for no, and InvalidInput where nobody can be asked."""
        if not self.can_ask():
            raise InvalidInput(
                "this needs a confirmation, and there is no terminal to ask on",
                hint="look at it with --dry-run, then give --yes",
            )
        try:
            click.confirm(question, abort=True, err=True)
        except click.Abort as error:
            if error.__context__ is not None:  # no answer: the cursor is still behind the question
                talk("")
            raise NotAgreed(interrupted=isinstance(error.__context__, KeyboardInterrupt)) from None


pass_session = click.make_pass_decorator(Session, ensure=True)

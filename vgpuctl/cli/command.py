"""Commands with examples and common options, and groups that load a command when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from vgpuctl.cli.session import Session

_WHOLE_SENTENCE = 400
"""The list of commands wraps what it says of each; click would cut it at 45 characters."""


def remember(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """An option's callback that keeps its value in the session, whichever command it was given to."""

    def callback(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value is not None and value is not False:
            setattr(context.ensure_object(Session), name, value)

    return callback


def _common(*names: str, attribute: str, **settings: Any) -> click.Option:
    return click.Option(
        [*names, f"_{attribute}"],
        callback=remember(attribute),
        expose_value=False,
        is_eager=True,
        **settings,
    )


def common_options(*, hidden: bool) -> list[click.Option]:
    """Options that every command takes, and that the help shows once."""
    return [
        _common(
            "-H",
            "--host",
            attribute="host",
            metavar="ADDRESS",
            hidden=hidden,
            help="The daemon: unix://PATH.  [env: VGPUCTL_HOST]",
        ),
        _common(
            "--color",
            attribute="color",
            type=click.Choice(["auto", "always", "never"]),
            hidden=hidden,
            help="Colours; auto is on a terminal, and heeds NO_COLOR.",
        ),
        _common("-q", "--quiet", attribute="quiet", is_flag=True, hidden=hidden, help="Say only errors."),
        _common(
            "-v",
            "--debug",
            attribute="debug",
            is_flag=True,
            hidden=hidden,
            help="Say every call to the daemon.  [env: VGPUCTL_LOG=debug]",
        ),
    ]


class Command(click.Command):
    """A command whose help begins with `examples`, one a line."""

    def __init__(self, *args: Any, examples: str = "", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = [line.strip() for line in examples.strip().splitlines()]
        self.params.extend(common_options(hidden=True))

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The description, and the examples right after it."""
        super().format_help_text(ctx, formatter)
        write_examples(self.examples, formatter)


def write_examples(examples: list[str], formatter: click.HelpFormatter) -> None:
    """The Examples section of a help text."""
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Group(click.Group):
    """A group whose commands may be named as `module:attribute` with a line of help, loaded on demand."""

    command_class = Command

    def __init__(
        self, *args: Any, lazy: dict[str, tuple[str, str]] | None = None, examples: str = "", **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.lazy = lazy or {}
        self.examples = [line.strip() for line in examples.strip().splitlines()]

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every command, in the order in which they were given."""
        return [*self.lazy, *(name for name in self.commands if name not in self.lazy)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, loaded."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"vgpuctl.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with; an unknown one gets near ones suggested."""
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            import difflib  # noqa: PLC0415

            names = self.list_commands(ctx)
            near = difflib.get_close_matches(name, names, 3, 0.5)
            text = f"No such command '{name}'."
            if near:
                text += f" Did you mean {' or '.join(near)}?"
            raise click.UsageError(text, ctx)
        return super().resolve_command(ctx, args)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The description, and the examples right after it."""
        super().format_help_text(ctx, formatter)
        write_examples(self.examples, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands; lazy ones are not loaded for it."""
        self.write_commands("Commands", self.list_commands(ctx), ctx, formatter)

    def write_commands(
        self, heading: str, names: list[str], ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """One section of commands."""
        rows = [(name, self.help_line(ctx, name)) for name in names]
        with formatter.section(heading):
            formatter.write_dl(rows)

    def help_line(self, ctx: click.Context, name: str) -> str:
        """What the list of commands says of it."""
        if name in self.lazy:
            return self.lazy[name][1]
        command = self.get_command(ctx, name)
        return command.get_short_help_str(limit=_WHOLE_SENTENCE) if command else ""

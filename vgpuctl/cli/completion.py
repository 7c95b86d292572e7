"""`vgpuctl completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from vgpuctl.cli.command import Command

_COLONS = """
# bash takes the colons of a PCI address for the ends of words: what it has of the word is cut off again.
_vgpuctl_completion_with_colons() {
    local words word before
    COMPREPLY=()
    words=${COMP_LINE:0:COMP_POINT}
    word=${words##*[[:space:]]}
    local IFS=$' \\t\\n'
    local COMP_WORDS=($words)
    [[ -z $word ]] && COMP_WORDS+=("")
    local COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _vgpuctl_completion "$@"
    [[ $word == --*=* ]] && word=${word#*=}
    before=${word%"${word##*:}"}
    [[ $COMP_WORDBREAKS == *:* && -n $before ]] && COMPREPLY=("${COMPREPLY[@]#"$before"}")
    return 0
}

complete -o nosort -F _vgpuctl_completion_with_colons vgpuctl
"""

_FIRST_TIME = "$zsh_eval_context[-1] == loadautofunc"
_EACH_TIME = "$zsh_eval_context[-1] == (loadautofunc|shfunc)"
"""click's script completes when zsh loads it from fpath, and would only register itself the next time."""


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
    script = kind(context.find_root().command, {}, "vgpuctl", "_VGPUCTL_COMPLETE").source()
    match shell:
        case "bash":
            script += _COLONS
        case "zsh":
            script = script.replace(_FIRST_TIME, _EACH_TIME)
    click.echo(script)

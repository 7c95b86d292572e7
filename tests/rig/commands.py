"""Programs that the build of the rig runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from tests.rig.cache import RigError

LIBRARIES: Final = Path("usr/lib/x86_64-linux-gnu")
"""Where they are in a tree of Debian's."""


def run(*command: str | Path, at: Path | None = None, **environ: str) -> str:
    """A command's output; RigError with the end of what it said when it fails."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": path, **environ}
    done = subprocess.run(
        [os.fspath(each) for each in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=at,
        env=environment,
    )
    if done.returncode:
        raise RigError(f"{' '.join(map(str, command))[:200]} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def shell(command: str) -> None:
    """Run a line of bash, in which every part of a pipe has to succeed."""
    run("bash", "-euo", "pipefail", "-c", command)


def of_tree(tree: Path, program: str) -> tuple[str, ...]:
    """A program of another Debian's tree, with that tree's libraries, run here."""
    loader = (tree / "lib64/ld-linux-x86-64.so.2", "--library-path", tree / LIBRARIES)
    return tuple(os.fspath(each) for each in (*loader, tree / program))


def in_chroot(tree: Path, command: str) -> None:
    """Run a line of sh in another root."""
    run("chroot", tree, "/bin/sh", "-ec", command)

"""Planted bugs: patches that the simulation has to find, each within a stated number of seeds or kills.

A patch in tests/mutants begins with what it breaks, and with how it is found:

    found by: seeds 40            one of the seeds below 40 is wrong
    found by: kills mdev create   some point of that scenario is

Those of the simulated driver, in tests/mutants/rig, are looked for in the rig (tests/rig/mutants.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATCHES = ROOT / "tests" / "mutants"
COPIED = ("vgpuctl", "tests/simulation", "tests/support", "tests/__init__.py", "mdev-profiles", "templates")
_FOUND_BY = "found by: "


@dataclass(frozen=True)
class Mutant:
    """A planted bug."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def found_by(self) -> tuple[str, str]:
        """`seeds` and how many, or `kills` and the scenario; `tests` and which, in the rig."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        told = next(each.removeprefix(_FOUND_BY) for each in lines if each.startswith(_FOUND_BY))
        how, _, much = told.partition(" ")
        return how, much

    def command(self) -> list[str]:
        """What finds it."""
        how, much = self.found_by
        if how == "seeds":
            return ["soak", "--seeds", much]
        return ["crash-matrix", "--only", much]


def mutants(wanted: str = "", directory: Path = PATCHES) -> list[Mutant]:
    """Every planted bug of a directory, by number."""
    return [Mutant(each) for each in sorted(directory.glob("*.patch")) if wanted in each.stem]


def copy_to(directory: Path) -> None:
    """What the simulation needs."""
    for each in COPIED:
        source, target = ROOT / each, directory / each
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def apply(mutant: Mutant, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Apply a patch to a copy."""
    # Inside of a repository, git would apply it to nothing.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(directory.parent)}
    return subprocess.run(
        ["git", "apply", *options, str(mutant.path)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run(wanted: str, directory: Path) -> int:
    """Plant each bug in a copy, and look for it; the exit status."""
    missed = 0
    found = mutants(wanted)
    for mutant in found:
        place = directory / mutant.name
        copy_to(place)
        planted = apply(mutant, place)
        if planted.returncode:
            print(f"{mutant.name}: does not apply: {planted.stderr.strip()}")
            missed += 1
            continue
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", *mutant.command()],
            cwd=place,
            env=os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        is_found, how = verdict(done)
        missed += not is_found
        print(f"{mutant.name:<36} {how}"[:120], flush=True)
        shutil.rmtree(place)
    print(f"\n{len(found) - missed} of {len(found)} found")
    return 1 if missed or not found else 0


def verdict(done: subprocess.CompletedProcess[str]) -> tuple[bool, str]:
    """Whether a run has found something, and what first."""
    lines = done.stdout.splitlines()
    for number, line in enumerate(lines):
        if line.startswith(("wrong in seed", "  killed at")):
            return True, f"{line.strip()} {lines[number + 1].strip()}"
    if done.returncode:
        return False, f"the run broke: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
    return False, "NOT FOUND"

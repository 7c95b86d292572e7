"""Long runs: `make soak`, `make crash-matrix`, `make mutants` (docs/testing.md)."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.simulation import mutants
from tests.simulation.crashpoints import CrashMatrix, kill_everywhere, prepared
from tests.simulation.scenarios import CASES
from tests.simulation.settings import setting_of
from tests.simulation.theatre import Result, Theatre
from tests.simulation.troubles import NAMES, why_not

_PROGRESS_S = 5.0
_IN_MEMORY = "/dev/shm"


def soak(first: int, count: int, directory: Path) -> int:
    """Play seeds until one is wrong; the exit status."""
    theatre = Theatre(directory)
    began = told = time.monotonic()
    done = 0
    try:
        for seed in range(first, first + count):
            result = theatre.play(seed)
            done += 1
            if result.found:
                tell(result)
                return 1
            now = time.monotonic()
            if now - told >= _PROGRESS_S:
                told = now
                print(f"{done} of {count} seeds, {done / (now - began):.1f} a second", flush=True)
    finally:
        theatre.close()
    print("\n".join(theatre.coverage.table(NAMES, why_not)))
    print(f"\n{done} seeds from {first}, {done / (time.monotonic() - began):.1f} a second: nothing is wrong")
    return 0


def tell(result: Result) -> None:
    """A violation: the trace, what is wrong, and how to see it again."""
    print(f"seed {result.seed} on {setting_of(result.seed).name}, one line an event:")
    print("\n".join(result.trace))
    print(f"\nwrong in seed {result.seed}:")
    for each in result.found:
        print(f"  {each}")
    print(f"\nagain: make soak SEEDS=1 FROM={result.seed}")


def crash_matrix(wanted: str, directory: Path) -> int:
    """Kill every use case at every point; the exit status."""
    matrix = CrashMatrix()
    status = 0
    for number, (host, name) in enumerate(CASES):
        label = f"{host} {name}"
        if wanted not in label:
            continue
        place = directory / str(number)
        place.mkdir()
        try:
            with prepared(place, host, name) as play:
                wrong = kill_everywhere(play, label, matrix, all_points=True)
        except AssertionError as error:
            wrong = {"nowhere": [str(error) or "it does not work at all"]}
        print(f"{label:<40}{matrix.by_scenario[label]:>6} points{'  WRONG' if wrong else ''}", flush=True)
        for point, found in wrong.items():
            status = 1
            print("\n".join([f"  killed at {point}:", *(f"    {each}" for each in found)]))
    print("\n" + "\n".join(matrix.table()))
    return status


def main() -> int:
    """The exit status of what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("soak", help="play seeds, and show which step met which trouble when")
    command.add_argument("--seeds", type=int, default=1000)
    command.add_argument("--from", type=int, default=0, dest="first")
    command = commands.add_parser("crash-matrix", help="kill every use case at every point")
    command.add_argument("--only", default="", help="scenarios with this in their name")
    command = commands.add_parser("mutants", help="find every planted bug")
    command.add_argument("--only", default="", help="patches with this in their name")
    arguments = parser.parse_args()
    # A disk that has to sync takes half of the time, and keeps nothing that is looked at.
    memory = _IN_MEMORY if Path(_IN_MEMORY).is_dir() else None
    with tempfile.TemporaryDirectory(prefix="vgpuctl-simulation-", dir=memory) as name:
        directory = Path(name)
        match arguments.command:
            case "soak":
                return soak(arguments.first, arguments.seeds, directory)
            case "crash-matrix":
                return crash_matrix(arguments.only, directory)
            case _:
                return mutants.run(arguments.only, directory)


if __name__ == "__main__":
    sys.exit(main())

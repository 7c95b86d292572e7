"""Measure in the rig: `python -m benchmarks.rig [--rounds N] [NAME ...]`; JSON, and tables to stderr."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.rig.inside import BENCHMARKS
from benchmarks.rig.table import tables
from tests.rig.guests import TRIXIE
from tests.rig.plugin import unavailable
from tests.rig.run import one_machine

LONGEST_S = 4 * 3600.0


def main() -> int:
    """Start a guest, run the benchmarks in it, and show what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)} (all)")
    given = parser.parse_args()
    if unknown := set(given.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if why := unavailable():
        print(why, file=sys.stderr)
        return 1
    results: dict[str, Any] = {}
    failed = 0
    with tempfile.TemporaryDirectory() as work, one_machine(TRIXIE, Path(work)) as machine:
        for number, name in enumerate(names := given.names or list(BENCHMARKS), start=1):
            began = time.monotonic()
            status, output = machine.sh(
                f"cd /srv/tree && python3 -m benchmarks.rig.inside {given.rounds} {name}", timeout_s=LONGEST_S
            )
            if status:
                failed = status
                print(output, file=sys.stderr)
            else:
                results[name] = json.loads(output.splitlines()[-1])
                print(tables({name: results[name]}), file=sys.stderr)
            took_s = time.monotonic() - began
            print(f"{number} of {len(names)}: {name} took {took_s:.0f} s\n", file=sys.stderr, flush=True)
    json.dump({"at": datetime.now(UTC).isoformat(timespec="seconds"), **results}, sys.stdout, indent=2)
    print()
    return failed


if __name__ == "__main__":
    sys.exit(main())

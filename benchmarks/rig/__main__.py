"""Measure in the rig: `python -m benchmarks.rig [--rounds N] [NAME ...]`; JSON, and tables to stderr."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.rig.table import tables
from tests.rig.guests import TRIXIE
from tests.rig.plugin import unavailable
from tests.rig.run import one_machine

LONGEST_S = 4 * 3600.0


def main() -> int:
    """Start a guest, run the benchmarks in it, and show what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    if why := unavailable():
        print(why, file=sys.stderr)
        return 1
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work, one_machine(TRIXIE, Path(work)) as machine:
        status, output = machine.sh(
            f"cd /srv/tree && python3 -m benchmarks.rig.inside {given.rounds} {' '.join(given.names)}",
            timeout_s=LONGEST_S,
        )
    for line in output.splitlines():
        if line.startswith('{"name"'):
            found = json.loads(line)
            results[found["name"]] = found["found"]
    print(tables(results), file=sys.stderr)
    if status:
        print(output, file=sys.stderr)
    json.dump({"at": datetime.now(UTC).isoformat(timespec="seconds"), **results}, sys.stdout, indent=2)
    print()
    return status


if __name__ == "__main__":
    sys.exit(main())

"""The rig by hand: `python -m tests.rig build|shell [GUEST]`, `python -m tests.rig mutants [NAME]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.rig import mutants
from tests.rig.guests import GUESTS, TRIXIE
from tests.rig.run import layers_of, one_machine


def main(arguments: list[str]) -> int:
    """Build a guest's layers; run commands from stdin in one, one a line; look for planted bugs."""
    if arguments[:1] == ["mutants"]:
        return mutants.run(*arguments[1:2])
    verb, guest = (*arguments, TRIXIE)[:2] if arguments else ("", "")
    if verb not in ("build", "shell") or guest not in GUESTS:
        print(__doc__, file=sys.stderr)
        return 2
    if verb == "build":
        print(layers_of(guest))
        return 0
    with tempfile.TemporaryDirectory() as work, one_machine(guest, Path(work)) as machine:
        while True:
            print(f"{guest}# ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                return 0
            status, output = machine.sh(line, timeout_s=600)
            print(output, end="", flush=True)
            if status:
                print(f"exit status {status}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

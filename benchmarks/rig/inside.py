"""What runs in the guest: `python3 -m benchmarks.rig.inside ROUNDS NAME` prints JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, Final

from benchmarks.rig import attach, observe, restore
from benchmarks.rig.cards import Cards

FOUR: Final = ("21", "41", "61", "81")
T4: Final = Cards("t4", "mdev", FOUR, 16, "T4-1Q")
L40S: Final = Cards("l40s", "vendor-vfio", FOUR, 16, "L40S-3Q")
EIGHT: Final = Cards("l40s", "vendor-vfio", tuple(f"{number:x}1" for number in range(2, 10)), 8, "L40S-1B")

BENCHMARKS: Final[dict[str, Callable[[int], dict[str, Any]]]] = {
    "observe": lambda rounds: observe.measure(EIGHT, rounds),
    "attach-mdev": lambda rounds: attach.measure(T4, rounds),
    "attach-vendor-vfio": lambda rounds: attach.measure(L40S, rounds),
    "restore-mdev": lambda rounds: restore.measure(T4, rounds),
    "restore-vendor-vfio": lambda rounds: restore.measure(L40S, rounds),
}


def main(rounds: int, name: str) -> None:
    """Run one of them."""
    print(json.dumps(BENCHMARKS[name](rounds)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

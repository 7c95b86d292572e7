"""Times of fresh processes, interleaved so that all see the same machine."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent


def times_ms(commands: dict[str, list[str]], rounds: int = 15) -> dict[str, float]:
    """The median wall time of each command, in milliseconds."""
    seen: dict[str, list[float]] = {name: [] for name in commands}
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    for _ in range(rounds):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], env=env, capture_output=True, check=False)
            seen[name].append((time.perf_counter() - began) * 1000)
    return {name: round(statistics.median(values), 1) for name, values in seen.items()}

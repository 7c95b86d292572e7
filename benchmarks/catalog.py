"""The catalogue: one GPU model with its types, found in a fresh process."""

from __future__ import annotations

from typing import Any

from benchmarks.fresh import times_ms

_TIME = (
    "import time; from vgpuctl.model.catalog import Catalog; began = time.perf_counter(); "
    "Catalog().keyed({key!r}); print((time.perf_counter() - began) * 1000)"
)


def run() -> dict[str, Any]:
    """Milliseconds of the look-up alone, first use in a process, by model."""
    import os
    import statistics
    import subprocess
    import sys

    from benchmarks.fresh import TOP

    found: dict[str, Any] = {}
    for key in ("t4", "l40s", "a100-80", "rtx-pro-6000"):
        command = [sys.executable, "-c", _TIME.format(key=key)]
        env = {**os.environ, "PYTHONPATH": str(TOP)}
        values = [
            float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
            for _ in range(9)
        ]
        found[key] = {"median_ms": round(statistics.median(values), 2), "aim_ms": 20}
    whole = times_ms({"import": ["-c", "import vgpuctl.model.catalog"], "python": ["-c", "pass"]}, 9)
    return {"first_lookup": found, "import_ms": round(whole["import"] - whole["python"], 1)}

"""Cold start of the CLI beside the interpreter's own."""

from __future__ import annotations

from typing import Any

from benchmarks.fresh import times_ms


def run() -> dict[str, Any]:
    """Median milliseconds of fresh processes, and their ratio to `python3 -c pass`."""
    unreachable = ["-m", "vgpuctl", "-H", "unix:///nonexistent", "vgpu", "list"]
    times = times_ms(
        {
            "python3 -c pass": ["-c", "pass"],
            "import click": ["-c", "import click"],
            "vgpuctl --version": ["-m", "vgpuctl", "--version"],
            "vgpuctl vgpu list (no daemon)": unreachable,
        }
    )
    base = times["python3 -c pass"]
    return {name: {"ms": value, "ratio": round(value / base, 2)} for name, value in times.items()}

#!/usr/bin/env python3
"""Run benchmarks and print their results as JSON: `run.py [NAME ...]`."""

from __future__ import annotations

import json
import logging
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import structlog

from benchmarks import apply, catalog, cli, memory, mig, observe

BENCHMARKS: dict[str, Callable[[], Any]] = {
    "catalog": catalog.run,
    "cli": cli.run,
    "observe": observe.run,
    "apply": apply.run,
    "memory": memory.run,
    "mig": mig.run,
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        print(
            f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}", file=sys.stderr
        )
        return 2
    results: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
    }
    for name in names or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = BENCHMARKS[name]()
    json.dump(results, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

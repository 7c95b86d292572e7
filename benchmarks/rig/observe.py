"""A cold observe() of many VFs beside a raw read of the same files, each in a fresh process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.rig.cards import Cards, free_vf, run, write
from tests.rig.simulated import Nvsim

_RECORD: Final = Path("/run/vgpuctl-bench-reads.json")


def measure(cards: Cards, rounds: int) -> dict[str, Any]:
    """Milliseconds of each round, both ways; `cards.each` VFs of every card carry a vGPU."""
    cards.plug()
    for gpu in cards.gpus:
        for _ in range(cards.each):
            file = free_vf(gpu)
            types = file.with_name("creatable_vgpu_types").read_text().splitlines()
            line = next(each for each in types if each.split()[-1] == cards.vgpu_type)
            write(str(file), line.split(":")[0].strip())
    seen = _cold("record")
    found: dict[str, list[float]] = {"observe": [], "raw": []}
    for _ in range(rounds):
        for verb, times in found.items():
            times.append(round(_cold(verb)["ms"], 1))
    Nvsim().unload()
    calls = len(json.loads(_RECORD.read_text()))
    return {**{name: seen[name] for name in ("gpus", "vfs", "vgpus")}, "calls": calls, "ms": found}


def _cold(verb: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run(sys.executable, "-m", "benchmarks.rig.cold", verb, str(_RECORD)))
    return answer

"""Some hundred seeds on every change; `make soak` plays any number of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.settings import SETTINGS
from tests.simulation.theatre import Theatre
from tests.support.marks import thorough

pytestmark = pytest.mark.slow

SEEDS = 300
BLOCKS = 10
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("block", [each if each % 2 else thorough(each) for each in range(BLOCKS)])
def test_any_history_comes_to_rest(block: int, tmp_path: Path):
    size = SEEDS // BLOCKS
    theatre = Theatre(tmp_path)
    try:
        wrong = {
            seed: result.found
            for seed in range(block * size, (block + 1) * size)
            if (result := theatre.play(seed)).found
        }
    finally:
        theatre.close()
    assert not wrong


DIGESTS = """
import sys
from pathlib import Path
from tests.simulation.theatre import Theatre
theatre = Theatre(Path(sys.argv[1]))
for seed in sys.argv[2].split(","):
    print(theatre.play(int(seed)).digest)
theatre.close()
"""


def digests(directory: Path, seeds: list[int], hash_seed: str) -> list[str]:
    directory.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS, str(directory), ",".join(map(str, seeds))],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_a_seed_is_the_same_in_every_process(tmp_path: Path):
    """Whatever the order of sets is there, and whatever was played before it."""
    seeds = list(range(2 * len(SETTINGS)))
    once = digests(tmp_path / "once", seeds, "1")
    assert len(set(once)) == len(seeds)
    assert digests(tmp_path / "again", seeds[::-1], "2") == once[::-1]

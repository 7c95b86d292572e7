"""The planted bugs still are what they say; `make mutants` looks for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.simulation.mutants import Mutant, apply, copy_to, mutants, verdict
from tests.simulation.scenarios import CASES


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("copy")
    copy_to(made)
    return made


@pytest.mark.parametrize("mutant", mutants(), ids=lambda each: each.name)
def test_a_planted_bug_still_applies(mutant: Mutant, copy: Path):
    done = apply(mutant, copy, "--check", "--verbose")
    assert done.returncode == 0, done.stderr
    assert "Checking patch" in done.stderr
    how, much = mutant.found_by
    assert (how == "seeds" and int(much) > 0) or any(much in f"{host} {name}" for host, name in CASES)


def test_a_run_that_finds_nothing_or_breaks_is_no_find():
    def ran(text: str, status: int) -> tuple[bool, str]:
        return verdict(subprocess.CompletedProcess([], status, text, ""))

    assert ran("wrong in seed 3:\n  it is lost\n", 1) == (True, "wrong in seed 3: it is lost")
    assert ran("40 seeds: nothing is wrong", 0) == (False, "NOT FOUND")
    assert not ran("ImportError: no", 1)[0]

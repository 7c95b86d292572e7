"""The planted bugs of the simulated driver still are what they say; `make rig-mutants` looks for them."""

from __future__ import annotations

import pytest

from tests.rig.layers import REPOSITORY
from tests.rig.mutants import PATCHES
from tests.simulation.mutants import Mutant, apply, mutants


@pytest.mark.parametrize("mutant", mutants("", PATCHES), ids=lambda each: each.name)
def test_a_planted_bug_still_applies(mutant: Mutant):
    done = apply(mutant, REPOSITORY, "--check", "--verbose")
    assert done.returncode == 0, done.stderr
    assert "Checking patch" in done.stderr
    how, tests = mutant.found_by
    assert how == "tests"
    assert all((REPOSITORY / each).is_file() for each in tests.split())

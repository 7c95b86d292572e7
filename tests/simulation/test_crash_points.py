"""Every use case, killed wherever something outside of the daemon has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.crashpoints import CrashMatrix, kill_everywhere, prepared
from tests.simulation.scenarios import CASES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("host", "name"), CASES, ids=[f"{host} {name}" for host, name in CASES])
def test_killed_at_any_point(host: str, name: str, tmp_path: Path):
    with prepared(tmp_path, host, name) as play:
        wrong = kill_everywhere(play, f"{host} {name}", CrashMatrix(), all_points=False)
    assert not wrong

"""For every test."""

from __future__ import annotations

import gc
import signal
from pathlib import Path

import pytest

from tests.support.marks import takes_all

pytest_plugins = ["tests.rig.plugin", "pytester"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="also what is marked so, as with CI=true")


def pytest_configure() -> None:
    # Thousands of collected tests stay; looking for garbage among them took an eighth of the time.
    gc.set_threshold(50_000)
    # A shell without job control starts what runs in the background with SIGINT ignored, children too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `thorough`, except in CI, with --thorough, and where its file is named."""
    if takes_all(config):
        return
    named = {Path(config.invocation_params.dir, each.partition("::")[0]).resolve() for each in config.args}
    left_out = [each for each in items if each.get_closest_marker("thorough") and each.path not in named]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [each for each in items if each not in left_out]

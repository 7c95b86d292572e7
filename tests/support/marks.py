"""What tests are marked with, where a mark belongs to some of their parameters only."""

from __future__ import annotations

import os
from typing import Any

import pytest


def takes_all(config: pytest.Config) -> bool:
    """Whether also what is marked `thorough` runs."""
    return os.environ.get("CI") == "true" or config.getoption("thorough", default=True)


def thorough(value: Any) -> Any:
    """A parameter whose test is a long way to what another's shows too, mostly (docs/testing.md)."""
    return pytest.param(value, marks=pytest.mark.thorough)

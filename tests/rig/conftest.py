"""Fixtures of clients of NVML in the rig."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pynvml
import pytest

from tests.rig.nvml_client import CONFIG, code_of
from vgpuctl.host.nvml.adapter import HelperNvml


@pytest.fixture
def nvml(nvsim) -> Iterator[Any]:
    """The binding; a test calls nvmlInit when its cards are there."""
    yield pynvml
    while code_of(pynvml.nvmlShutdown) == pynvml.NVML_SUCCESS:
        pass


@pytest.fixture
def nvml_helper(nvsim) -> Iterator[HelperNvml]:
    found = HelperNvml()
    yield found
    found.release()


@pytest.fixture
def nvml_config() -> Iterator[Callable[[str], object]]:
    CONFIG.parent.mkdir(exist_ok=True)
    yield CONFIG.write_text
    CONFIG.unlink(missing_ok=True)

"""Simulated hosts for benchmarks."""

from __future__ import annotations

import time
from typing import Any

from vgpuctl.host.clock import SystemClock
from vgpuctl.host.local import LocalHost
from vgpuctl.model.catalog import Catalog
from vgpuctl.sim.host import SimHost

CATALOG = Catalog()
EIGHT = "8xl40s:{framework}"
"""Eight cards with 32 VFs each."""


class SlowKernel:
    """A kernel on which every read takes `delay_s` longer."""

    def __init__(self, kernel: Any, delay_s: float) -> None:
        self._kernel = kernel
        self._delay_s = delay_s

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._kernel, name)
        if name not in {"read", "list", "link", "resolve", "exists"}:
            return call

        def slow(*arguments: Any) -> Any:
            time.sleep(self._delay_s)
            return call(*arguments)

        return slow


def make(sim: SimHost, *, delay_s: float = 0.0) -> LocalHost:
    """A host over a simulated one, without libvirt."""
    return LocalHost(
        kernel=SlowKernel(sim.kernel, delay_s) if delay_s else sim.kernel,
        nvml=sim.nvml,
        handles=sim.handles,
        hypervisor=None,
        catalog=CATALOG,
        clock=SystemClock(),
        simulated=True,
    )

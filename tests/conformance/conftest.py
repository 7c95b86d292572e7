"""The suite's hosts, today simulated ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conformance_rig import Rig

from vgpuctl.host.local import LocalHost
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.gpu import GpuState
from vgpuctl.sim.host import SimHost
from vgpuctl.sim.spec import Card, Spec, parse

CATALOG = Catalog()


@pytest.fixture
def host() -> Callable[..., Rig]:
    """A maker of hosts: `host("t4,l40s")`, or Card objects for what a list of names cannot say."""

    def make(*cards: str | Card, ready_delay_s: float = 0.0) -> Rig:
        every = [card for each in cards for card in (parse(each).cards if isinstance(each, str) else (each,))]
        sim = SimHost.in_memory(Spec(cards=tuple(every), ready_delay_s=ready_delay_s), CATALOG)
        local = LocalHost(
            kernel=sim.kernel,
            nvml=sim.nvml,
            handles=sim.handles,
            hypervisor=None,
            catalog=CATALOG,
            clock=sim.clock,
            simulated=True,
        )
        return Rig(
            kernel=sim.kernel,
            host=local,
            clock=sim.clock,
            control=lambda action, **arguments: sim.control(action, arguments),
        )

    return make


@pytest.fixture(params=["t4", "a40:sriov-mdev", "l40s"])
def ready(request: pytest.FixtureRequest, host: Callable[..., Rig]) -> Rig:
    """A host with one GPU of each framework in turn, ready for vGPUs."""
    rig = host(request.param)
    if rig.gpu().state is GpuState.VFS_OFF:
        rig.turn_on()
    return rig

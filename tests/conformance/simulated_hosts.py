"""Hosts that vgpuctl's own simulation makes, in memory, on a clock that only sleeping moves."""

from __future__ import annotations

from tests.conformance.bench import Bench
from vgpuctl.host.local import LocalHost
from vgpuctl.model.catalog import Catalog
from vgpuctl.sim.host import SimHost
from vgpuctl.sim.spec import Spec


class SimulatedHosts:
    """A new host for each case; nothing outlives one."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def make(self, spec: Spec, *, vfs_timeout_s: float, any_model: bool) -> Bench:
        sim = SimHost.in_memory(spec, self._catalog)
        local = LocalHost(
            kernel=sim.kernel,
            nvml=sim.nvml,
            handles=sim.handles,
            hypervisor=None,
            catalog=self._catalog,
            clock=sim.clock,
            simulated=True,
            vfs_timeout_s=vfs_timeout_s,
        )
        counted = sim.kernel.operations
        return Bench(
            kernel=sim.kernel,
            host=local,
            clock=sim.clock,
            control=lambda action, **arguments: sim.control(action, arguments),
            nvml=sim.nvml,
            writes=lambda: counted["write"] + counted["sriov_manage"],
        )

    def tidy(self) -> None:
        """Nothing is left."""

    def close(self) -> None:
        """Nothing was opened."""

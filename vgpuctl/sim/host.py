"""A simulated host, as the composition root and tests take hold of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from vgpuctl.model.catalog import Catalog
from vgpuctl.sim.clock import ManualClock
from vgpuctl.sim.engine import Engine
from vgpuctl.sim.models import ModelSource
from vgpuctl.sim.ports import SimHandles, SimKernel, SimNvml
from vgpuctl.sim.remote import RemoteTransport, Starter
from vgpuctl.sim.spec import Spec, initial_state, parse
from vgpuctl.sim.transport import Transport

TEST_SEED = UUID("5f7d3c5e-9d4b-4d57-8c5c-0e6d1c1f0a01")
"""The seed of hosts in memory: their boot ids are the same in every test run."""


class SimHost:
    """The low ports over one simulated host, and its controls."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.kernel = SimKernel(transport)
        self.nvml = SimNvml(transport)
        self.handles = SimHandles(transport)

    def control(self, action: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do to the host what life does; raises VgpuctlError."""
        return self.transport.control(action, arguments or {})

    def close(self) -> None:
        """Let go of the host; it goes on by itself."""
        self.kernel.close()
        self.transport.close()

    @classmethod
    def launch(cls, cards: str, socket: Path, state: Path) -> SimHost:
        """The host in a process of its own, which is started where none answers on `socket`.

        `cards` is the argument of `--simulate`.  A host that was made from it goes on where it was;
        one that was made from another is replaced.  Raises InvalidInput and Unavailable.
        """
        spec = parse(cards)
        initial_state(spec, Catalog(), TEST_SEED)
        transport = RemoteTransport(socket, Starter(socket, state, cards))
        transport.install(spec)
        return cls(transport)

    @classmethod
    def in_memory(cls, spec: Spec | str, catalog: ModelSource | None = None) -> MemoryHost:
        """A host in this process, on a clock that only sleeping moves."""
        return MemoryHost(spec, catalog)


class MemoryHost(SimHost):
    """A simulated host in this process: with a clock of its own and its engine within reach."""

    def __init__(self, spec: Spec | str, catalog: ModelSource | None = None) -> None:
        source = catalog or Catalog()
        self.clock = ManualClock()
        parsed = parse(spec) if isinstance(spec, str) else spec
        self.engine = Engine(initial_state(parsed, source, TEST_SEED), source, self.clock.monotonic_s)
        super().__init__(self.engine)

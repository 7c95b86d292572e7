"""The host as the service sees it: something to observe, and something to carry out Steps."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import Effect


class Host(Protocol):
    """One hypervisor host.  May be called from several threads; observe() never raises."""

    def observe(self) -> Snapshot:
        """Read everything, each GPU on its own and with a deadline."""
        ...

    def glimpse(self, gpus: Collection[GpuAddress]) -> Snapshot:
        """Read those GPUs from the kernel alone, soon; never raises.

        Waits neither for libvirt nor for NVML, nor for anybody who does; domains are Unknown.
        """
        ...

    def run(self, effect: Effect) -> None:
        """Carry out one effect and read it back; idempotent; raises VgpuctlError."""
        ...

    def domain_xml(self, domain: str, *, live: bool = False) -> str:
        """A domain's XML, from libvirt."""
        ...

    def capture(self) -> dict[str, Any]:
        """What sysfs, NVML and libvirt say, redacted, as a document that --simulate replays."""
        ...


class Simulator(Protocol):
    """The controls of a simulated host: what life does to a real one."""

    def control(self, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do `action` (reboot, reload-driver, hold, release, fail ...); raises InvalidInput."""
        ...

"""What is: one observation of a whole host."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from vgpuctl.model.domain import Domain, Hypervisor
from vgpuctl.model.fact import Fact
from vgpuctl.model.gpu import Gpu, ObservedVgpu
from vgpuctl.model.pci import GpuAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that observe() could read, and what it could not.

    `boot_id` changes with every boot of the host.  A GPU that could not be read stands in `gpus` with
    state UNREADABLE; libvirt away makes `hypervisor` and `domains` Unknown and nothing else.
    """

    taken_at: datetime
    hostname: str
    kernel: str
    boot_id: str
    driver_version: Fact[str]
    simulated: bool
    gpus: tuple[Gpu, ...]
    hypervisor: Fact[Hypervisor]
    domains: Fact[tuple[Domain, ...]]
    reads: int = field(default=0, compare=False)
    """How many sysfs, NVML and libvirt calls this observation took."""

    def gpu_at(self, address: GpuAddress) -> Gpu | None:
        """The GPU at that address."""
        return next((each for each in self.gpus if each.address == address), None)

    def vgpus(self) -> tuple[ObservedVgpu, ...]:
        """Every vGPU that exists on this host, whoever made it."""
        return tuple(vgpu for gpu in self.gpus for vgpu in gpu.vgpus)

    def mdev(self, uuid: UUID) -> ObservedVgpu | None:
        """The mdev of that UUID."""
        return next((each for each in self.vgpus() if each.mdev_uuid == uuid), None)

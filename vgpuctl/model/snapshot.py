"""What is: one observation of a whole host."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from uuid import UUID

from vgpuctl.model.attachment import Attachments
from vgpuctl.model.domain import Domain, Hypervisor
from vgpuctl.model.fact import Fact, known
from vgpuctl.model.gpu import Gpu, ObservedVgpu
from vgpuctl.model.mdevctl import MdevDefinition
from vgpuctl.model.pci import GpuAddress


@dataclass(frozen=True, kw_only=True)
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
    definitions: Fact[tuple[MdevDefinition, ...]] = ()
    """The mdevs that mdevctl, and libvirt's nodedev through it, know to start."""
    reads: int = field(default=0, compare=False)
    """How many sysfs, NVML and libvirt calls this observation took."""

    def gpu_at(self, address: GpuAddress) -> Gpu | None:
        """The GPU at that address."""
        return next((each for each in self.gpus if each.address == address), None)

    def vgpus(self) -> tuple[ObservedVgpu, ...]:
        """Every vGPU that exists on this host, whoever made it."""
        return self._vgpus

    def mdev(self, uuid: UUID) -> ObservedVgpu | None:
        """The mdev of that UUID."""
        return self._by_uuid.get(uuid)

    def on(self, parent: GpuAddress) -> tuple[ObservedVgpu, ...]:
        """The vGPUs on a VF, or on a PF whose types stand on itself."""
        return self._by_parent.get(parent, ())

    def autostart_of(self, uuid: UUID) -> MdevDefinition | None:
        """The definition by which somebody else starts the mdev of that UUID."""
        return self._autostarts.get(uuid)

    @cached_property
    def attachments(self) -> Attachments:
        """Every hostdev of every domain; none where libvirt does not answer."""
        return Attachments(known(self.domains) or ())

    @cached_property
    def _autostarts(self) -> dict[UUID, MdevDefinition]:
        return {each.uuid: each for each in known(self.definitions) or () if each.autostart}

    @cached_property
    def _vgpus(self) -> tuple[ObservedVgpu, ...]:
        return tuple(vgpu for gpu in self.gpus for vgpu in gpu.vgpus)

    @cached_property
    def _by_uuid(self) -> dict[UUID, ObservedVgpu]:
        return {vgpu.mdev_uuid: vgpu for vgpu in self._vgpus if vgpu.mdev_uuid is not None}

    @cached_property
    def _by_parent(self) -> dict[GpuAddress, tuple[ObservedVgpu, ...]]:
        found: dict[GpuAddress, tuple[ObservedVgpu, ...]] = {}
        for vgpu in self._vgpus:
            found[vgpu.parent] = (*found.get(vgpu.parent, ()), vgpu)
        return found

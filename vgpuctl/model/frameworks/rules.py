"""What a framework has to say about itself; each is a module of this package."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from vgpuctl.model.allocation import Allocation
from vgpuctl.model.domain import Hostdev
from vgpuctl.model.gpu import FrameworkKind, Gpu, ObservedVgpu
from vgpuctl.model.pci import GpuAddress


class Rules(Protocol):
    """The pure half of a framework; the effect half is in `host/frameworks`."""

    KIND: FrameworkKind
    ONE_VGPU_PER_PARENT: bool
    """Whether a parent that carries a vGPU is used up."""

    def parents(self, gpu: Gpu) -> tuple[GpuAddress, ...]:
        """Every parent on which a vGPU can stand, in the order in which they are used."""
        ...

    def hostdev(self, vgpu_id: UUID, parent: GpuAddress) -> Hostdev:
        """The hostdev by which a domain's XML names a vGPU, with our alias."""
        ...

    def owns(self, allocation: Allocation, vgpu: ObservedVgpu, boot_id: str) -> bool:
        """Whether an existing vGPU is the one that was made (or adopted) for `allocation`."""
        ...

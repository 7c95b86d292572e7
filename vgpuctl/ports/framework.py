"""A vGPU framework: how vGPUs of one kind are seen, made and removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vgpuctl.model.fact import Fact
from vgpuctl.model.gpu import FrameworkKind, ObservedVgpu, Vf
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.step import CreateVgpu, RemoveVgpu, SetParams
from vgpuctl.model.types import VgpuType


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameworkView:
    """What one framework shows of one GPU."""

    types: tuple[VgpuType, ...]
    creatable: Fact[frozenset[int]]
    vgpus: tuple[ObservedVgpu, ...]


class Framework(Protocol):
    """One way in which the kernel offers vGPUs.  Runs on the Kernel port; raises VgpuctlError."""

    kind: FrameworkKind

    def serves(self, gpu: GpuAddress, vfs: tuple[Vf, ...]) -> bool:
        """Whether this GPU offers its vGPUs in this way now; found by looking, never by model."""
        ...

    def view(self, gpu: GpuAddress, vfs: tuple[Vf, ...]) -> FrameworkView:
        """The supported types, the vGPUs that exist, and what one more free parent would take."""
        ...

    def create(self, step: CreateVgpu) -> None:
        """Create the vGPU and read it back.  A parent that is not empty is refused, not cleared."""
        ...

    def instance_file(self, step: CreateVgpu) -> str:
        """The file that tells on which GPU instance the vGPU stands; not every driver makes it."""
        ...

    def remove(self, step: RemoveVgpu) -> None:
        """Remove the vGPU and read back that it is gone; done already is done.

        The caller has made sure that nobody holds it.
        """
        ...

    def set_params(self, step: SetParams) -> None:
        """Write the vGPU's parameters as a whole and read them back; what is of another type is refused."""
        ...

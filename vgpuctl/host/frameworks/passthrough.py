"""Passthrough: a whole GPU, or a plain VF of another vendor's GPU, without a vGPU type."""

from __future__ import annotations

from vgpuctl.errors import FactUnknown, InvalidGpuState, UnsupportedHere, VgpuBusy
from vgpuctl.host.frameworks.parents import device_path
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.frameworks.passthrough import PLAIN_VF, WHOLE_GPU
from vgpuctl.model.gpu import FrameworkKind, ObservedVgpu, Vf
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.step import CreateVgpu, RemoveVgpu, SetParams
from vgpuctl.model.types import VgpuType
from vgpuctl.ports.framework import FrameworkView
from vgpuctl.ports.kernel import Kernel

VFIO_PCI = "vfio-pci"


class PassthroughFramework:
    """Functions that libvirt gives to a domain by itself (`managed='yes'`).

    Nothing in the kernel changes before the domain starts: one is seen only while it is on vfio-pci.
    """

    kind = FrameworkKind.PASSTHROUGH

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def serves(self, gpu: GpuAddress, vfs: tuple[Vf, ...]) -> bool:
        """Whether the GPU is given away as a whole, or has VFs that nothing has to fill."""
        return self._driver(gpu) == VFIO_PCI or any(vf.ready for vf in vfs)

    def view(self, gpu: GpuAddress, vfs: tuple[Vf, ...]) -> FrameworkView:
        """The functions on vfio-pci; one more VF can be given away while one is not."""
        if self._driver(gpu) == VFIO_PCI:
            return FrameworkView(types=(), creatable=frozenset(), vgpus=(self._given(gpu, gpu, WHOLE_GPU),))
        given = [vf for vf in vfs if vf.driver == VFIO_PCI]
        creatable: Fact[frozenset[int]] = frozenset({0} if len(given) < len(vfs) else ())
        return FrameworkView(
            types=(PLAIN_VF,),
            creatable=creatable,
            vgpus=tuple(self._given(gpu, vf.address, PLAIN_VF) for vf in given),
        )

    def _given(self, gpu: GpuAddress, parent: GpuAddress, what: VgpuType) -> ObservedVgpu:
        return ObservedVgpu(
            gpu=gpu,
            parent=parent,
            framework=self.kind,
            type_id=what.type_id,
            type_name=what.name,
            mdev_uuid=None,
        )

    def create(self, step: CreateVgpu) -> None:
        """Verify that the function is there and that its VFs, if any, stay out of the way."""
        path = device_path(step.parent)
        if not self._kernel.exists(path):
            raise InvalidGpuState(
                f"there is no PCI function {step.parent}",
                hint="its GPU's VFs were turned off, or the card is gone",
                parent=str(step.parent),
            )
        if step.parent == step.gpu.address and self._has_vfs(path):
            raise InvalidGpuState(
                f"GPU {step.parent} has VFs; it cannot be given away as a whole",
                hint="turn them off first: apply a Gpu document with `vfs: false`",
                parent=str(step.parent),
            )
        if step.params:
            raise UnsupportedHere(f"{step.type_name} takes no parameters", parent=str(step.parent))

    def instance_file(self, step: CreateVgpu) -> str:
        """There is none: a function that is given away stands on no GPU instance."""
        return f"{device_path(step.parent)}/nvidia/gpu_instance_id"

    def remove(self, step: RemoveVgpu) -> None:
        """Verify that no domain has the function: libvirt gives it back when the domain stops."""
        driver = self._driver(step.parent)
        if isinstance(driver, Unknown):
            raise FactUnknown(f"the driver of {step.parent} is not known: {driver.reason}")
        if driver == VFIO_PCI and step.parent != step.gpu.address:
            raise VgpuBusy(
                f"{step.parent} is still on vfio-pci",
                hint="stop the domain that has it; libvirt then gives it back to its driver",
                parent=str(step.parent),
            )

    def set_params(self, step: SetParams) -> None:
        """Refuse: there is no vGPU plugin to take parameters."""
        if step.params:
            raise UnsupportedHere(f"vGPU {step.name} takes no parameters", parent=str(step.parent))

    def _driver(self, parent: GpuAddress) -> Fact[str | None]:
        try:
            return self._kernel.link(f"{device_path(parent)}/driver")
        except FileNotFoundError:
            return None
        except OSError as error:
            return Unknown(error.strerror or "unreadable")

    def _has_vfs(self, path: str) -> bool:
        return any(name.startswith("virtfn") for name in self._kernel.list(path))

"""A host under test, whatever it is made of, and short ways to ask for things."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID, uuid4

from vgpuctl.host.local import LocalHost
from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.fact import known
from vgpuctl.model.gpu import FrameworkKind, Gpu, GpuState, ObservedVgpu
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.step import CreateVgpu, RemoveVgpu, SetParams, SetVfs
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.kernel import Kernel
from vgpuctl.ports.nvml import Nvml
from vgpuctl.sim.spec import Spec

PATIENCE_S = 30.0


class Hosts(Protocol):
    """A kind of host: what can make one, and put it back into the state in which it was.

    `make` may skip the case (`pytest.skip`) where it has no such cards; a real machine has those that it
    has.  After each case `tidy` is called, at the end `close`.
    """

    def make(self, spec: Spec, *, vfs_timeout_s: float, any_model: bool) -> Bench:
        """The host of that specification, untouched; with `any_model` other models do as well."""
        ...

    def tidy(self) -> None:
        """Take away what the case left."""
        ...

    def close(self) -> None:
        """Take everything away."""
        ...


@dataclass
class Bench:
    """A host, the kernel below it, and what life can do to it.

    `writes` says how many writes have reached the driver so far, sriov-manage's among them; `control`
    takes the actions of `vgpuctl sim`.
    """

    kernel: Kernel
    host: LocalHost
    clock: Clock
    control: Callable[..., dict[str, Any]]
    writes: Callable[[], int]
    nvml: Nvml

    def gpu(self, index: int = 0) -> Gpu:
        return self.host.observe().gpus[index]

    def pf(self, index: int = 0) -> str:
        """The PF's directory in sysfs."""
        return f"sys/bus/pci/devices/{self.gpu(index).address}"

    def vgpu(self, step: CreateVgpu) -> ObservedVgpu | None:
        here = [each for each in self.host.observe().vgpus() if each.parent == step.parent]
        return next((each for each in here if each.mdev_uuid in (None, step.vgpu)), None)

    def turn_on(self, index: int = 0) -> Gpu:
        gpu = self.gpu(index)
        if gpu.state is GpuState.READY:
            return gpu
        self.host.run(SetVfs(gpu=identity(gpu), enabled=True))
        return self.gpu(index)

    def create(
        self,
        gpu: Gpu,
        type_name: str,
        *,
        parent: GpuAddress | None = None,
        vgpu: UUID | None = None,
        params: str | None = None,
    ) -> CreateVgpu:
        step = create_step(gpu, type_name, parent=parent, vgpu=vgpu, params=params)
        self.host.run(step)
        return step

    def creatable(self, index: int = 0) -> set[str]:
        gpu = self.gpu(index)
        return {gpu.type_numbered(each).name for each in known(gpu.creatable) or ()}

    def newest_line(self) -> int:
        """The sequence of the last line of the kernel log."""
        return max((line.sequence for line in self.kernel.log()), default=0)

    def mig(self, index: int = 0) -> tuple[bool, bool]:
        """MIG mode now and the pending one, by NVML."""
        gpu = known(self.nvml.host(PATIENCE_S)).gpus[index]
        return known(gpu.mig_current), known(gpu.mig_pending)

    def said_since(self, mark: int) -> str:
        return "\n".join(line.text for line in self.kernel.log(mark))


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether that comes true; what another process does takes its time."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def identity(gpu: Gpu) -> GpuIdentity:
    return GpuIdentity(gpu.address, gpu.device, known(gpu.uuid))


def held_name(step: CreateVgpu) -> str:
    """What a process holds that holds this vGPU: the mdev, or the VF."""
    return str(step.parent if step.framework is FrameworkKind.VENDOR_VFIO else step.vgpu)


def create_step(
    gpu: Gpu,
    type_name: str,
    *,
    parent: GpuAddress | None = None,
    vgpu: UUID | None = None,
    params: str | None = None,
) -> CreateVgpu:
    wanted = gpu.type_named(type_name)
    assert wanted is not None, f"{type_name} is none of {[each.name for each in gpu.types]}"
    taken = {each.parent for each in gpu.vgpus}
    if parent is None:
        parent = next((vf.address for vf in gpu.vfs if vf.address not in taken), gpu.address)
    return CreateVgpu(
        vgpu=vgpu or uuid4(),
        name="desk",
        gpu=identity(gpu),
        framework=gpu.framework,
        parent=parent,
        type_id=wanted.type_id,
        type_name=wanted.name,
        params=params,
    )


def removal(step: CreateVgpu) -> RemoveVgpu:
    return RemoveVgpu(
        vgpu=step.vgpu,
        name=step.name,
        gpu=step.gpu,
        framework=step.framework,
        parent=step.parent,
        type_id=step.type_id,
        type_name=step.type_name,
    )


def new_params(step: CreateVgpu, params: str) -> SetParams:
    return SetParams(
        vgpu=step.vgpu,
        name=step.name,
        gpu=step.gpu,
        framework=step.framework,
        parent=step.parent,
        type_id=step.type_id,
        params=params,
    )

"""A host under test and short ways to ask for things; a real kernel offers the same few methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from vgpuctl.host.local import LocalHost
from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.fact import known
from vgpuctl.model.gpu import Gpu, ObservedVgpu
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.step import CreateVgpu, RemoveVgpu, SetParams, SetVfs
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.kernel import Kernel


@dataclass
class Rig:
    """A host, the kernel below it, and what life can do to it."""

    kernel: Kernel
    host: LocalHost
    clock: Clock
    control: Callable[..., dict[str, Any]]

    def gpu(self, index: int = 0) -> Gpu:
        return self.host.observe().gpus[index]

    def vgpu(self, step: CreateVgpu) -> ObservedVgpu | None:
        here = [each for each in self.host.observe().vgpus() if each.parent == step.parent]
        return next((each for each in here if each.mdev_uuid in (None, step.vgpu)), None)

    def turn_on(self, index: int = 0) -> Gpu:
        self.host.run(SetVfs(gpu=identity(self.gpu(index)), enabled=True))
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


def identity(gpu: Gpu) -> GpuIdentity:
    return GpuIdentity(gpu.address, gpu.device, known(gpu.uuid))


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
        params=params,
    )

"""What the operations that have not ended are about to do to the host."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.step import (
    AttachHostdev,
    CreateVgpu,
    DetachHostdev,
    Effect,
    RemoveVgpu,
    SetMigMode,
    SetVfs,
    Step,
)
from vgpuctl.service.run import Run

_ASK_LIBVIRT = (SetVfs, RemoveVgpu, AttachHostdev, DetachHostdev)
"""What is done only after libvirt was asked: it does not answer while a start waits."""
_SHUT_NVML = (SetVfs, SetMigMode)


class UnderWay:
    """The steps that run, or are lined up, of all operations."""

    def __init__(self, runs: Mapping[UUID, Run]) -> None:
        self._runs = runs

    def running(self) -> list[Effect]:
        """What is being done now."""
        return [step.effect for run in self._runs.values() for step in run.running.values()]

    def planned(self, operation: UUID) -> list[tuple[int, Step]]:
        """The steps of a running operation that have not begun, with their round."""
        run = self._runs.get(operation)
        return [(run.round, step) for step in run.pending.values()] if run else []

    def removes(self, vgpu: UUID) -> bool:
        """Whether some operation is about to remove that vGPU."""
        return any(
            isinstance(step.effect, RemoveVgpu) and step.effect.vgpu == vgpu for _, step in self._steps()
        )

    def turns_vfs(self, gpu: GpuAddress) -> bool:
        """Whether the VFs of that GPU are being turned now."""
        return any(isinstance(each, SetVfs) and each.gpu.address == gpu for each in self.running())

    def shuts_nvml(self) -> bool:
        """Whether a step runs for which nobody may have a GPU open: NVML is not asked meanwhile."""
        return any(isinstance(each, _SHUT_NVML) for each in self.running())

    def coming(self, names: frozenset[str]) -> frozenset[str]:
        """Those of these vGPUs which are about to be made, and wait for nobody who asks libvirt."""
        return frozenset(
            step.effect.name
            for run, step in self._steps()
            if isinstance(step.effect, CreateVgpu)
            and step.effect.name in names
            and not any(
                isinstance(other.effect, _ASK_LIBVIRT)
                and (other.lane == step.lane or (others is run and other.number in step.needs))
                for others, other in self._steps()
            )
        )

    def _steps(self) -> list[tuple[Run, Step]]:
        """Every step that runs, or is lined up."""
        return [
            (run, step)
            for run in self._runs.values()
            for step in (*run.running.values(), *run.pending.values())
        ]

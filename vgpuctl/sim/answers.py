"""What NVML and /proc would say about a simulated host."""

from __future__ import annotations

from collections.abc import Mapping

from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.gpu import FrameworkKind, Holder
from vgpuctl.model.pci import PciAddress
from vgpuctl.ports.nvml import NvmlGpu, NvmlHost, NvmlVgpu
from vgpuctl.sim import mig
from vgpuctl.sim.models import Models
from vgpuctl.sim.state import Board, State, Vgpu

_NO_MIG = Unknown("nvmlDeviceGetMigMode: Not Supported")
HOST_VGPU = 3
"""NVML_GPU_VIRTUALIZATION_MODE_HOST_VGPU."""


def holders(state: State) -> Mapping[str, tuple[Holder, ...]]:
    """Who has which device node open."""
    found: dict[str, tuple[Holder, ...]] = {}
    for each in state.holds:
        found[each.node] = (*found.get(each.node, ()), Holder(each.pid, each.command, each.domain))
    return found


def nvml(state: State, models: Models) -> Fact[NvmlHost]:
    """NVML's answer; a GPU that its driver does not have is not listed [hardware.md 1.5]."""
    gpus = tuple(
        _gpu(state, models, board, board.address)
        for board in state.boards
        if isinstance(board.address, PciAddress)
        and board.is_driven
        and board.framework is not FrameworkKind.PASSTHROUGH
    )
    if not gpus and not any(each.framework is not FrameworkKind.PASSTHROUGH for each in state.boards):
        return Unknown("nvmlInit: Driver Not Loaded")
    return NvmlHost(driver_version=state.driver_version, gpus=gpus)


def _gpu(state: State, models: Models, board: Board, address: PciAddress) -> NvmlGpu:
    model = models.model(board.model)
    has_vfs = board.framework is not FrameworkKind.MDEV
    return NvmlGpu(
        address=address,
        uuid=board.uuid,
        name=model.name,
        # The driver keeps a part of the nominal frame buffer for itself.
        fb_mib=model.fb_mib * 15 // 16,
        mig_current=board.mig if model.mig else _NO_MIG,
        mig_pending=mig.pending(board) if model.mig else _NO_MIG,
        gi_profiles=mig.profiles(board, models) if model.mig else _NO_MIG,
        gpu_instances=mig.described(board, models) if model.mig else _NO_MIG,
        virtualization_mode=HOST_VGPU,
        host_vgpu_mode=int(has_vfs),
        mixed_size=board.mixed_size
        if model.mixed_size
        else Unknown("nvmlDeviceGetVgpuHeterogeneousMode: Not Supported"),
        types=model.types,
        active=tuple(_vgpu(each) for each in board.vgpus if state.holds_vgpu(each)),
    )


def _vgpu(vgpu: Vgpu) -> NvmlVgpu:
    """A vGPU whose VM runs; an idle one is not listed [hardware.md 5]."""
    return NvmlVgpu(
        type_id=vgpu.type_id,
        mdev_uuid=Unknown("not an mdev") if vgpu.uuid is None else str(vgpu.uuid),
        vm_uuid=Unknown("a simulated hold has no VM"),
        fb_used_mib=vgpu.fb_mib,
    )

"""The rules of a simulated GPU: where its VFs are, what may be created on it, and how it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from vgpuctl.model.catalog import GpuModel
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import GpuAddress, PciAddress
from vgpuctl.model.types import TypeKind, VgpuType
from vgpuctl.sim import mig
from vgpuctl.sim.models import Models
from vgpuctl.sim.state import Board

VF_OFFSET = 4
"""The first VF is function .4 [vGPU user guide]."""


class Nvrm(IntEnum):
    """NV_STATUS codes with which the resource manager refuses [open-gpu-kernel-modules nvstatuscodes.h]."""

    INSUFFICIENT_RESOURCES = 0x1A
    INVALID_OPERATION = 0x38
    INVALID_STATE = 0x40
    NOT_SUPPORTED = 0x56
    OBJECT_NOT_FOUND = 0x57
    NOT_READY = 0x66


def vf_address(board: Board, number: int) -> PciAddress:
    """Where VF `number` is: offset 4, stride 1, on the PF's bus."""
    pf = board.address
    assert isinstance(pf, PciAddress)
    function = pf.device * 8 + pf.function + VF_OFFSET + number
    return PciAddress(pf.domain, pf.bus, function // 8, function % 8)


def vf_addresses(board: Board) -> tuple[PciAddress, ...]:
    """The VFs that are on."""
    return tuple(vf_address(board, number) for number in range(board.vfs)) if board.present else ()


def iommu_group(board: Board, vf: int | None = None) -> int:
    """The IOMMU group of the PF, or of one of its VFs; each stands in a group of its own."""
    return 100 * (board.index + 1) + (0 if vf is None else vf + 1)


def vf_number(board: Board, address: GpuAddress) -> int | None:
    """Which VF of the board that is, None when it is none that is on."""
    if not isinstance(address, PciAddress) or not isinstance(board.address, PciAddress):
        return None
    if (address.domain, address.bus) != (board.address.domain, board.address.bus):
        return None
    number = address.device * 8 + address.function - VF_OFFSET - board.address.device * 8
    return number if 0 <= number < board.vfs and board.present else None


def type_of(model: GpuModel, type_id: int) -> VgpuType | None:
    """The type of that number on that model."""
    return next((each for each in model.types if each.type_id == type_id), None)


def is_parent(board: Board, parent: GpuAddress) -> bool:
    """Whether types are offered there: on the PF of an mdev board, on each VF otherwise."""
    if not board.is_driven:
        return False
    if board.framework is FrameworkKind.MDEV:
        return parent == board.address
    return board.framework is not FrameworkKind.PASSTHROUGH and vf_number(board, parent) is not None


def refusal(board: Board, models: Models, parent: GpuAddress, vgpu_type: VgpuType) -> Nvrm | None:
    """Why the driver would not create that type there; None when it would.

    hardware.md 0.2, 1.3, 1.4; a vGPU that is being removed still counts.
    """
    if not board.vfs_are_ready:
        return Nvrm.NOT_READY
    if board.framework is not FrameworkKind.MDEV and board.vgpu_on(parent) is not None:
        return Nvrm.INVALID_OPERATION
    if board.mig != (vgpu_type.kind is TypeKind.MIG_BACKED):
        return Nvrm.INVALID_OPERATION
    if board.mig:
        if not board.instances:
            return Nvrm.INVALID_OPERATION
        return None if mig.instance_for(board, models, vgpu_type) is not None else Nvrm.INVALID_STATE
    if not board.mixed_size and any(each.fb_mib != vgpu_type.fb_mib for each in board.vgpus):
        return Nvrm.NOT_SUPPORTED
    if _room(board, models, vgpu_type) <= 0:
        return Nvrm.INSUFFICIENT_RESOURCES
    return None


def available(board: Board, models: Models, parent: GpuAddress, vgpu_type: VgpuType) -> int:
    """`available_instances`: how many more on a PF; 0 or 1 on a VF."""
    if refusal(board, models, parent, vgpu_type) is not None:
        return 0
    return _room(board, models, vgpu_type) if board.framework is FrameworkKind.MDEV else 1


def creatable(board: Board, models: Models, parent: GpuAddress) -> tuple[VgpuType, ...]:
    """The types that may be created there now."""
    if not is_parent(board, parent):
        return ()
    return tuple(
        each for each in models.model(board.model).types if refusal(board, models, parent, each) is None
    )


def _room(board: Board, models: Models, vgpu_type: VgpuType) -> int:
    assert vgpu_type.fb_mib is not None
    model = models.model(board.model)
    fitting = (model.fb_mib - sum(each.fb_mib for each in board.vgpus)) // vgpu_type.fb_mib
    same = sum(1 for each in board.vgpus if each.fb_mib == vgpu_type.fb_mib)
    if not board.mixed_size:
        return fitting if vgpu_type.max_per_gpu is None else vgpu_type.max_per_gpu - same
    limit = vgpu_type.max_per_gpu_mixed or vgpu_type.max_per_gpu or fitting
    if placement(board, models, vgpu_type.fb_mib) is None:
        return 0
    return min(limit - same, fitting)


def placement(board: Board, models: Models, fb_mib: int) -> int | None:
    """Where, in GB, one more vGPU of that size would lie on a board in mixed-size mode; None for nowhere."""
    return next(free_placements(board, models, fb_mib), None)


def free_placements(board: Board, models: Models, fb_mib: int) -> Iterator[int]:
    """Where one more vGPU of that size could lie, in the order in which the driver tries.

    That is the order of its table [UG17 appendix B]; from the lowest up where no table is public.
    """
    model = models.model(board.model)
    size = _gb(fb_mib)
    table = models.placements(model, fb_mib)
    starts = range(_gb(model.fb_mib) - size + 1) if table is None else table.starts
    taken = [
        (each.placement_id, each.placement_id + _gb(each.fb_mib))
        for each in board.vgpus
        if each.placement_id is not None
    ]
    for start in starts:
        if all(start + size <= begin or end <= start for begin, end in taken):
            yield start


def _gb(mib: int) -> int:
    return -(-mib // 1024)

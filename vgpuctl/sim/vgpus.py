"""Making, changing and removing vGPUs, as the kernel and NVIDIA's driver do it."""

from __future__ import annotations

import errno
from dataclasses import replace
from uuid import UUID

from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import GpuAddress, PciAddress
from vgpuctl.model.types import VgpuType
from vgpuctl.ports.kernel import Uevent
from vgpuctl.sim import board as rules
from vgpuctl.sim import mig
from vgpuctl.sim.board import Nvrm
from vgpuctl.sim.models import Models
from vgpuctl.sim.outcome import Operation, Outcome
from vgpuctl.sim.place import devpath
from vgpuctl.sim.samples import SAMPLES, errno_when_full
from vgpuctl.sim.state import Board, State, Vgpu, noted, with_board

UUID_LENGTH = 36
FIRST_MDEV_GROUP = 10_000
PARAMS_MAX = 1024


def find_mdev(state: State, uuid: UUID) -> tuple[Board, Vgpu] | None:
    """The mdev of that UUID, also one that is being removed."""
    for board in state.boards:
        for vgpu in board.vgpus:
            if vgpu.uuid == uuid:
                return board, vgpu
    return None


def create_mdev(
    state: State, board: Board, models: Models, parent: GpuAddress, *, kind: int, text: str
) -> Outcome:
    """Write `text` to a type's `create`; `kind` is the type's number.

    EINVAL for anything but a UUID of 36 characters and, at most, one more that nobody looks at; EEXIST
    for a UUID in use on any parent [drivers/vfio/mdev/mdev_sysfs.c, mdev_core.c]; EIO and a code in the log
    when NVIDIA's driver refuses.
    """
    if len(text) not in (UUID_LENGTH, UUID_LENGTH + 1):
        return Outcome(state, errno=errno.EINVAL)
    try:
        uuid = UUID(text[:UUID_LENGTH])
    except ValueError:
        return Outcome(state, errno=errno.EINVAL)
    if str(uuid) != text[:UUID_LENGTH].lower():
        return Outcome(state, errno=errno.EINVAL)
    if find_mdev(state, uuid) is not None:
        return Outcome(state, errno=errno.EEXIST)
    vgpu_type = rules.type_of(models.model(board.model), kind)
    code = Nvrm.OBJECT_NOT_FOUND if vgpu_type is None else rules.refusal(board, models, parent, vgpu_type)
    if code is not None and board.model in SAMPLES:
        return Outcome(state, errno=errno_when_full(board.model))
    if code is not None:
        return refused(state, parent, code, is_mdev=True)
    assert vgpu_type is not None
    made = state.made + 1
    vgpu = _new(board, models, parent, vgpu_type, uuid=uuid, iommu_group=FIRST_MDEV_GROUP + made)
    state = with_board(replace(state, made=made), replace(board, vgpus=(*board.vgpus, vgpu)))
    return Outcome(state, events=(Uevent("add", f"{devpath(parent)}/{uuid}", "mdev"),))


def set_type(state: State, board: Board, models: Models, vf: GpuAddress, text: str) -> Outcome:
    """Write `text` to a VF's `current_vgpu_type` [hardware.md 1.4].

    EINVAL unless it is a number, EPERM while the VF has a type (even the same), EIO and a code in
    the log when the driver refuses; 0 removes.
    """
    digits = text.removesuffix("\n")
    if not (digits.isascii() and digits.isdigit()):
        return Outcome(state, errno=errno.EINVAL)
    present = board.vgpu_on(vf)
    if int(digits) == 0:
        return Outcome(state) if present is None else _clear_type(state, board, present)
    if present is not None:
        return Outcome(state, errno=errno.EPERM)
    vgpu_type = rules.type_of(models.model(board.model), int(digits))
    code = Nvrm.OBJECT_NOT_FOUND if vgpu_type is None else rules.refusal(board, models, vf, vgpu_type)
    if code is not None:
        return refused(state, vf, code, is_mdev=False)
    assert vgpu_type is not None
    state = with_board(state, replace(board, vgpus=(*board.vgpus, _new(board, models, vf, vgpu_type))))
    return Outcome(state, events=(Uevent("change", devpath(vf), "pci"),))


def _clear_type(state: State, board: Board, vgpu: Vgpu) -> Outcome:
    if not state.holds_vgpu(vgpu):
        return Outcome(without(state, board, vgpu))
    if state.disputed.clear_held == "block":
        return Outcome(_leaving(state, board, vgpu), then=Operation("released", (vgpu.parent, None)))
    return Outcome(state, errno=getattr(errno, state.disputed.clear_held))


def remove_mdev(state: State, uuid: UUID, text: str) -> Outcome:
    """Write `text` to an mdev's `remove`.

    A held one leaves `/sys/bus/mdev/devices` at once and then blocks the writer until it is released
    [drivers/vfio/vfio_main.c]; meanwhile it counts and its UUID is taken.
    """
    value = text.strip()
    if not (value.isascii() and value.isdigit()):
        return Outcome(state, errno=errno.EINVAL)
    if int(value) == 0:
        return Outcome(state)
    found = find_mdev(state, uuid)
    assert found is not None, "the file that was written to belongs to it"
    board, vgpu = found
    event = Uevent("remove", f"{devpath(vgpu.parent)}/{uuid}", "mdev")
    if not state.holds_vgpu(vgpu):
        return Outcome(without(state, board, vgpu), events=(event,))
    state = _leaving(state, board, vgpu)
    holder = next(each for each in state.holds if each.uuid == uuid)
    state = noted(
        state,
        f"vfio_mdev {uuid}: Device is currently in use, "
        f'task "{holder.command}" ({holder.pid}) blocked until device is released',
    )
    return Outcome(state, events=(event,), then=Operation("released", (vgpu.parent, uuid)))


def set_params(state: State, board: Board, vgpu: Vgpu, text: str) -> Outcome:
    """Write `text` to `vgpu_params`: it replaces the whole file, a single space clears it [UG17 2.8.5]."""
    value = text.strip()
    if len(text) > PARAMS_MAX or any("=" not in each for each in value.split(",") if value):
        return Outcome(state, errno=errno.EINVAL)
    changed = replace(vgpu, params=value)
    vgpus = tuple(changed if each is vgpu else each for each in board.vgpus)
    return Outcome(with_board(state, replace(board, vgpus=vgpus)))


def set_placement(state: State, board: Board, models: Models, vgpu: Vgpu, text: str) -> Outcome:
    """Write `text` to `placement_id`: the vGPU moves there before its VM starts [hardware.md 1.2.4].

    EIO where it has no placement, is in use, or the place is none of its type's or taken.
    """
    digits = text.removesuffix("\n")
    if not (digits.isascii() and digits.isdigit()):
        return Outcome(state, errno=errno.EINVAL)
    others = replace(board, vgpus=tuple(each for each in board.vgpus if each is not vgpu))
    is_free = int(digits) in rules.free_placements(others, models, vgpu.fb_mib)
    if vgpu.placement_id is None or state.holds_vgpu(vgpu) or not is_free:
        return refused(state, vgpu.parent, Nvrm.INVALID_STATE, is_mdev=False)
    moved = replace(vgpu, placement_id=int(digits))
    return Outcome(with_board(state, replace(others, vgpus=(*others.vgpus, moved))))


def set_instance(state: State, board: Board, models: Models, vgpu: Vgpu, text: str) -> Outcome:
    """Write `text` to `gpu_instance_id`: the vGPU moves there before its VM starts [hardware.md 1.2.4]."""
    digits = text.removesuffix("\n")
    if not (digits.isascii() and digits.isdigit()):
        return Outcome(state, errno=errno.EINVAL)
    vgpu_type = rules.type_of(models.model(board.model), vgpu.type_id)
    target = next((each for each in board.instances if each.id == int(digits)), None)
    fits = target is not None and vgpu_type is not None and mig.takes(board, models, vgpu_type, target)
    if state.holds_vgpu(vgpu) or not (fits or vgpu.instance == int(digits)):
        return refused(state, vgpu.parent, Nvrm.INVALID_STATE, is_mdev=False)
    moved = replace(vgpu, instance=int(digits))
    vgpus = tuple(moved if each is vgpu else each for each in board.vgpus)
    return Outcome(with_board(state, replace(board, vgpus=vgpus)))


def without(state: State, board: Board, vgpu: Vgpu) -> State:
    """`state` without that vGPU."""
    return with_board(state, replace(board, vgpus=tuple(each for each in board.vgpus if each is not vgpu)))


def let_go(state: State) -> State:
    """`state` after the removals that waited for somebody who has let go now."""
    for board in state.boards:
        for vgpu in board.vgpus:
            if vgpu.removing and not state.holds_vgpu(vgpu):
                state = without(state, state.board_at(board.address), vgpu)
    return state


def _leaving(state: State, board: Board, vgpu: Vgpu) -> State:
    leaving = replace(vgpu, removing=True)
    return with_board(
        state, replace(board, vgpus=tuple(leaving if each is vgpu else each for each in board.vgpus))
    )


def refused(state: State, parent: GpuAddress, code: int, *, is_mdev: bool) -> Outcome:
    """EIO, with what the driver says in the kernel log: the only detail there is [hardware.md 1.1]."""
    lines = [f"NVRM: Failed to add vgpu create request: 0x{code:x}"]
    if is_mdev and isinstance(parent, PciAddress):
        where = parent.bus << 8 | parent.device << 3 | parent.function
        lines.append(f"vGPU creation failed on device 0x{where:x}. -5")
        lines.append("nvidia-vgpu-vfio: probe failed with error -12")
    return Outcome(noted(state, *lines), errno=errno.EIO)


def _new(
    board: Board,
    models: Models,
    parent: GpuAddress,
    vgpu_type: VgpuType,
    *,
    uuid: UUID | None = None,
    iommu_group: int | None = None,
) -> Vgpu:
    assert vgpu_type.type_id is not None
    assert vgpu_type.fb_mib is not None
    has_placement = board.mixed_size and board.framework is not FrameworkKind.MDEV
    return Vgpu(
        parent=parent,
        type_id=vgpu_type.type_id,
        type_name=vgpu_type.name,
        fb_mib=vgpu_type.fb_mib,
        uuid=uuid,
        iommu_group=iommu_group,
        placement_id=rules.placement(board, models, vgpu_type.fb_mib) if has_placement else None,
        instance=mig.instance_for(board, models, vgpu_type) if board.mig else None,
    )

"""MIG of a simulated GPU: mode, GPU instances, and NVML's error codes [hardware.md 3]."""

from __future__ import annotations

from dataclasses import replace

from vgpuctl.model.giprofile import MigProfile
from vgpuctl.model.gpu import ComputeInstance, GpuInstance
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.types import VgpuType
from vgpuctl.ports.nvml import NvmlDone
from vgpuctl.sim.models import Models
from vgpuctl.sim.outcome import Outcome
from vgpuctl.sim.state import Board, Compute, Instance, State, noted, with_board

SUCCESS, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 0, 2, 3, 6
IN_USE, INSUFFICIENT_RESOURCES, UNKNOWN_ERROR = 19, 23, 999
WORDS = {
    SUCCESS: "Success",
    INVALID_ARGUMENT: "Invalid Argument",
    NOT_SUPPORTED: "Not Supported",
    NOT_FOUND: "Not Found",
    IN_USE: "In use by another client",
    INSUFFICIENT_RESOURCES: "Insufficient Resources",
    UNKNOWN_ERROR: "Unknown Error",
}
"""Codes of nvmlReturn_t and nvmlErrorString's words for them [nvml.h]."""

RESETS = "ampere"
"""The family that is reset for a change of mode, and keeps it in its InfoROM [MIG user guide]."""


def pending(board: Board) -> bool:
    """The mode after the next reset."""
    return board.mig if board.mig_pending is None else board.mig_pending


def profiles(board: Board, models: Models) -> tuple[MigProfile, ...]:
    """Every profile with its placements, also with MIG off; with MIG on, how many more fit now."""
    return tuple(
        replace(each, remaining=_remaining(board, models, each) if board.mig else None)
        for each in models.mig_profiles(models.model(board.model))
    )


def described(board: Board, models: Models) -> tuple[GpuInstance, ...]:
    """The instances as NVML tells them, by id."""
    profiles = {each.gi_profile_id: each for each in models.mig_profiles(models.model(board.model))}
    return tuple(
        GpuInstance(
            id=each.id,
            profile=profiles[each.profile].name,
            profile_id=each.profile,
            start=each.start,
            size=each.size,
            compute_instances=tuple(
                ComputeInstance(one.id, _compute_name(profiles[each.profile], one.slices))
                for one in each.compute
            ),
        )
        for each in sorted(board.instances, key=lambda each: each.id)
    )


def instance_for(board: Board, models: Models, vgpu_type: VgpuType) -> int | None:
    """The GPU instance that the driver gives a new vGPU: the first by id with that profile and room.

    Time-sliced ones take several of one frame-buffer size [hardware.md 3.3.3, 3.4.1].
    """
    fitting = (each.id for each in board.instances if takes(board, models, vgpu_type, each))
    return min(fitting, default=None)


def takes(board: Board, models: Models, vgpu_type: VgpuType, instance: Instance) -> bool:
    """Whether an instance has that type's profile, and room for one more."""
    every = models.mig_profiles(models.model(board.model))
    wanted = next((each.gi_profile_id for each in every if each.name == vgpu_type.gi_profile), None)
    there = [vgpu for vgpu in board.vgpus if vgpu.instance == instance.id]
    alike = all(vgpu.fb_mib == vgpu_type.fb_mib for vgpu in there)
    return instance.profile == wanted and alike and len(there) < (vgpu_type.max_per_gi or 1)


def order(state: State, models: Models, action: str, gpu: GpuAddress | None, numbers: list[int]) -> Outcome:
    """Carry out an order of NVML's: `mode`; `create` or `destroy`, of a GPU instance or a `-compute` one.

    A compute instance is told by its slices, 0 for all of its GPU instance.
    """
    board = next((each for each in state.boards if each.address == gpu and each.is_driven), None)
    if board is None:
        return Outcome(state, answer(NOT_FOUND))
    if not models.model(board.model).mig:
        return Outcome(state, answer(NOT_SUPPORTED))
    match action, numbers:
        case "mode", [enabled]:
            return _set_mode(state, models, board, enabled=bool(enabled))
        case "create", [profile, start, size]:
            return _create(state, models, board, profile, (start, size))
        case "destroy", [number]:
            return _destroy(state, board, number)
        case "create-compute", [number, slices]:
            return _create_compute(state, models, board, number, slices)
        case "destroy-compute", [number, compute]:
            return _destroy_compute(state, board, number, compute)
        case _:
            return Outcome(state, answer(INVALID_ARGUMENT))


def somebody_cuts(state: State, models: Models, board: Board, name: str, *, compute: bool) -> Outcome | None:
    """Somebody else cuts an instance at the first place that is free; None where there is none."""
    for each in models.mig_profiles(models.model(board.model)):
        if each.name != name or not board.mig or not _remaining(board, models, each):
            continue
        start = next(start for start in each.starts if _is_free(board, start, each.size or 0))
        made = _instance(models, board, each, start, compute=compute)
        changed = replace(board, instances=(*board.instances, made))
        return Outcome(with_board(state, changed), {"instance": made.id, "start": start})
    return None


def answer(code: int, *, activation: int = SUCCESS, instance: int | None = None) -> NvmlDone:
    """NVML's answer with that code."""
    return NvmlDone(code=code, text=WORDS[activation or code], activation=activation, instance=instance)


def _set_mode(state: State, models: Models, board: Board, *, enabled: bool) -> Outcome:
    """Refused while the GPU is in use; one that is reset for it takes it, and is in it after a reset."""
    is_held = any(each.address == board.address for each in state.holds)
    if board.vfs or board.vgpus or board.instances or is_held:
        if models.model(board.model).family != RESETS or not (enabled or is_held) or board.instances:
            return Outcome(state, answer(IN_USE))
        waiting = replace(board, mig_pending=enabled if enabled != board.mig else None)
        return Outcome(with_board(state, waiting), answer(SUCCESS, activation=IN_USE))
    changed = replace(board, mig=enabled, mig_pending=None, mixed_size=False)
    state = noted(with_board(state, changed), f"NVRM: GPU {board.address}: MIG {'on' if enabled else 'off'}")
    return Outcome(state, answer(SUCCESS))


def _create(state: State, models: Models, board: Board, profile_id: int, place: tuple[int, int]) -> Outcome:
    profile = next(
        (each for each in models.mig_profiles(models.model(board.model)) if each.gi_profile_id == profile_id),
        None,
    )
    if not board.mig:
        return Outcome(state, answer(NOT_SUPPORTED))
    if profile is None or place[0] not in profile.starts or place[1] != profile.size:
        return Outcome(state, answer(INVALID_ARGUMENT))
    if not _is_free(board, *place) or not _remaining(board, models, profile):
        return Outcome(state, answer(INSUFFICIENT_RESOURCES))
    made = _instance(models, board, profile, place[0])
    changed = replace(board, instances=(*board.instances, made))
    return Outcome(with_board(state, changed), answer(SUCCESS, instance=made.id))


def _destroy(state: State, board: Board, number: int) -> Outcome:
    """Refused while a vGPU or a compute instance is on it."""
    found = next((each for each in board.instances if each.id == number), None)
    if found is None:
        return Outcome(state, answer(NOT_FOUND))
    if found.compute or any(vgpu.instance == number for vgpu in board.vgpus):
        return Outcome(state, answer(IN_USE))
    rest = tuple(each for each in board.instances if each is not found)
    return Outcome(with_board(state, replace(board, instances=rest)), answer(SUCCESS))


def _create_compute(state: State, models: Models, board: Board, number: int, slices: int) -> Outcome:
    """In a GPU instance; refused where its compute slices are taken.  A guest on it is not asked."""
    found = next((each for each in board.instances if each.id == number), None)
    if found is None:
        return Outcome(state, answer(NOT_FOUND))
    every = {each.gi_profile_id: each for each in models.mig_profiles(models.model(board.model))}
    has = every[found.profile].slices
    slices = slices or has
    if slices > has:
        return Outcome(state, answer(NOT_SUPPORTED))
    if sum(each.slices for each in found.compute) + slices > has:
        return Outcome(state, answer(INSUFFICIENT_RESOURCES))
    taken = {each.id for each in found.compute}
    made = Compute(next(each for each in range(has) if each not in taken), slices)
    changed = replace(found, compute=tuple(sorted((*found.compute, made), key=lambda each: each.id)))
    return Outcome(_with_instance(state, board, changed), answer(SUCCESS, instance=made.id))


def _destroy_compute(state: State, board: Board, number: int, compute: int) -> Outcome:
    found = next((each for each in board.instances if each.id == number), None)
    if found is None or compute not in {each.id for each in found.compute}:
        return Outcome(state, answer(NOT_FOUND))
    changed = replace(found, compute=tuple(each for each in found.compute if each.id != compute))
    return Outcome(_with_instance(state, board, changed), answer(SUCCESS))


def _with_instance(state: State, board: Board, instance: Instance) -> State:
    instances = tuple(instance if each.id == instance.id else each for each in board.instances)
    return with_board(state, replace(board, instances=instances))


def _compute_name(profile: MigProfile, slices: int) -> str:
    return profile.name if slices == profile.slices else f"{slices}c.{profile.name}"


def slices_of(compute: str) -> int:
    """The slices in a compute instance's name: 1 of `1c.3g.40gb`, 0 where it is a whole one's."""
    number, is_part, _ = compute.partition("c.")
    return int(number) if is_part and number.isdecimal() else 0


def _instance(
    models: Models, board: Board, profile: MigProfile, start: int, *, compute: bool = False
) -> Instance:
    """An instance with the driver's number for its place: halves, quarters and eighths, from 0 for all."""
    axis = max(each.starts[-1] + (each.size or 0) for each in models.mig_profiles(models.model(board.model)))
    size = profile.size or 1
    return Instance(
        id=axis // size - 1 + start // size,
        profile=profile.gi_profile_id,
        start=start,
        size=size,
        compute=(Compute(0, profile.slices),) if compute else (),
    )


def _remaining(board: Board, models: Models, profile: MigProfile) -> int:
    """How many more of that profile: places that are free beside each other, compute slices, its limit.

    One instance has the media extension; one that has all media engines leaves only those without.
    """
    every = {each.gi_profile_id: each for each in models.mig_profiles(models.model(board.model))}
    present = [every[each.profile] for each in board.instances]
    slices = max(each.slices for each in every.values()) - sum(each.slices for each in present)
    most = profile.max - sum(each.name == profile.name for each in present)
    if "+me" in profile.name and any("+me" in each.name for each in present):
        return 0
    if any(each.name.endswith("+me.all") for each in present) and not profile.name.endswith("-me"):
        return 0
    if profile.name.endswith("+me.all") and any(not each.name.endswith("-me") for each in present):
        return 0
    free = sum(_is_free(board, start, profile.size or 0) for start in profile.starts)
    return max(0, min(most, free, slices // profile.slices))


def _is_free(board: Board, start: int, size: int) -> bool:
    return all(start + size <= each.start or each.start + each.size <= start for each in board.instances)

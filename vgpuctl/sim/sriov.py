"""Turning VFs on and off: NVIDIA's sriov-manage, and a plain `sriov_numvfs` elsewhere."""

from __future__ import annotations

import errno
from dataclasses import replace

from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import PciAddress
from vgpuctl.ports.kernel import CommandResult, Uevent
from vgpuctl.sim import board as rules
from vgpuctl.sim import mig
from vgpuctl.sim.models import Models, total_vfs
from vgpuctl.sim.outcome import Outcome
from vgpuctl.sim.place import devpath
from vgpuctl.sim.state import Board, Hold, State, noted, with_board


def manage(state: State, models: Models, address: str, *, enable: bool, now: float) -> Outcome:
    """Run `sriov-manage -e|-d` for a PF [hardware.md 1.5].

    Turning on what is on succeeds and does nothing; a PF that anybody has open is refused; otherwise
    types, GPU instances and mixed-size mode are gone afterwards, in both directions.
    """
    board = _nvidia_board(state, address)
    if board is None:
        return _said(state, 1, f"{address}: no such NVIDIA GPU")
    verb = "Enabling" if enable else "Disabling"
    if not models.model(board.model).vfs:
        return _said(state, 0, f"{verb} VFs on {address}")
    if board.is_driven and enable == (board.vfs > 0):
        return _said(state, 0, f"{verb} VFs on {address}")
    if holders_of(state, board):
        return _said(state, 1, f"{verb} VFs on {address}\nCannot obtain unbindLock for {address}")
    vfs = models.model(board.model).vfs if enable else 0
    outcome = _changed(state, board, vfs, now if enable and board.ready_delay_s else None)
    return replace(outcome, result=CommandResult(0, f"{verb} VFs on {address}"))


def interrupt(state: State, address: str) -> Outcome:
    """What sriov-manage leaves when it dies half-way: the PF on pci-pf-stub, without VFs [cubecos 1459]."""
    board = _nvidia_board(state, address)
    if board is None or holders_of(state, board):
        return _said(state, 1, f"{address}: sriov-manage failed")
    outcome = _changed(state, replace(board, parked=True), 0, None, parked=True)
    return replace(outcome, result=CommandResult(1, f"Enabling VFs on {address}\nTerminated"))


def set_numvfs(state: State, models: Models, board: Board, text: str) -> Outcome:
    """Write `sriov_numvfs`: NVIDIA's driver refuses, others follow drivers/pci/pci-sysfs.c."""
    if board.framework is not FrameworkKind.PASSTHROUGH:
        return Outcome(state, errno=getattr(errno, state.disputed.numvfs_errno))
    value = text.strip()
    if not value.isdigit():
        return Outcome(state, errno=errno.EINVAL)
    wanted = int(value)
    if wanted == board.vfs:
        return Outcome(state)
    if wanted > total_vfs(models.model(board.model)):
        return Outcome(state, errno=errno.ERANGE)
    if wanted and board.vfs:
        return Outcome(state, errno=errno.EBUSY)
    if holders_of(state, board):
        return Outcome(state, errno=errno.EBUSY)
    return _changed(state, board, wanted, None)


def holders_of(state: State, board: Board) -> tuple[Hold, ...]:
    """Who has the PF, one of its VFs, or a vGPU on them open."""
    mine = {board.address, *rules.vf_addresses(board)}
    return tuple(each for each in state.holds if each.address in mine)


def _nvidia_board(state: State, address: str) -> Board | None:
    for each in state.boards:
        if str(each.address) == address and each.present and each.framework is not FrameworkKind.PASSTHROUGH:
            return each
    return None


def _changed(
    state: State, board: Board, vfs: int, started_at: float | None, *, parked: bool = False
) -> Outcome:
    before = set(rules.vf_addresses(board))
    board = replace(
        board,
        parked=parked,
        vfs=vfs,
        vfs_ready_at=None if started_at is None else started_at + board.ready_delay_s,
        mig=mig.pending(board),
        mig_pending=None,
        mixed_size=False,
        instances=(),
        vgpus=(),
    )
    after = set(rules.vf_addresses(board))
    state = noted(with_board(state, board), f"pci {board.address}: {vfs} VFs")
    return Outcome(
        state,
        events=(
            *(_event("remove", each) for each in sorted(before - after)),
            *(_event("add", each) for each in sorted(after - before)),
        ),
    )


def _event(action: str, address: PciAddress) -> Uevent:
    return Uevent(action, devpath(address), "pci")


def _said(state: State, exit_status: int, output: str) -> Outcome:
    return Outcome(state, result=CommandResult(exit_status, output))

"""The machine: from a state, an operation and a time to a state, a result and events; no I/O, no clock."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any
from uuid import UUID

from vgpuctl.model.fact import Unknown
from vgpuctl.model.pci import GpuAddress
from vgpuctl.ports.kernel import CommandResult, Uevent
from vgpuctl.sim import answers, faults, mdevctl, mig, sriov, vgpus
from vgpuctl.sim.board import Nvrm, vf_addresses
from vgpuctl.sim.models import Models
from vgpuctl.sim.node import Dir, File, Found, Link, Store, below, failure, walk
from vgpuctl.sim.outcome import Operation, Outcome
from vgpuctl.sim.place import devpath
from vgpuctl.sim.replay import replay
from vgpuctl.sim.state import Board, Fault, State, Vgpu, with_board
from vgpuctl.sim.tree import tree


class Machine:
    """The rules of one host's models; what it remembers (the last state's tree) only saves time."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._seen: State | None = None
        self._root: Dir = Dir(dict)
        self._found: dict[tuple[str, bool], Found] = {}

    def step(self, state: State, operation: Operation, now: float) -> Outcome:
        """Do one operation at the time `now` (seconds; any origin, but always the same)."""
        settled, events = settle(state, now)
        outcome = self._do(settled, operation, now)
        if events:
            outcome = replace(outcome, events=events + outcome.events)
        if any(each.subsystem == "pci" for each in outcome.events):
            # Parents have appeared, for all that udev knows.
            outcome = replace(outcome, state=mdevctl.started(outcome.state, self.models))
        return outcome

    def _do(self, state: State, operation: Operation, now: float) -> Outcome:
        match operation.verb, operation.arguments:
            case (("read" | "list" | "link" | "resolve" | "exists" | "is_writable"), (str(path),)):
                return self._look(state, operation, path)
            case "write", (str(path), str(text)):
                return self._write(state, operation, path, text)
            case "replace", (str(path), str(text)):
                return mdevctl.replaced(state, path, text)
            case "released", (address, uuid):
                return _released(state, operation, address, uuid)
            case "sriov_manage", (str(address), bool(enable)):
                return self._sriov_manage(state, operation, address, enable=enable, now=now)
            case "log", (int(since),):
                return Outcome(state, tuple(each for each in state.log if each.sequence > since))
            case "holders", ():
                return _holders(state)
            case "nvml", ():
                return self._nvml(state, operation)
            case "nvml_order", (str(action), str(address), *numbers):
                return self._nvml_order(state, operation, action, address, numbers)
            case _:
                msg = f"no such operation: {operation}"
                raise ValueError(msg)

    def _look(self, state: State, operation: Operation, path: str) -> Outcome:
        verb = operation.verb
        try:
            found = self._walk(state, path, follow=verb != "link")
        except OSError as error:
            if verb in ("exists", "is_writable"):
                return Outcome(state, result=False)
            return Outcome(state, errno=error.errno or errno.EIO, about=path)
        state, fault = faults.hit(state, found.gpu, "gpu", *(("read",) if verb == "read" else ()))
        if fault is not None:
            return _struck(state, operation, fault, path)
        try:
            return Outcome(state, _seen_as(verb, found, path))
        except OSError as error:
            return Outcome(state, errno=error.errno or errno.EIO, about=path)

    def _write(self, state: State, operation: Operation, path: str, text: str) -> Outcome:
        try:
            found = self._walk(state, path)
        except OSError as error:
            return Outcome(state, errno=error.errno or errno.EIO, about=path)
        if isinstance(found.node, Dir):
            return Outcome(state, errno=errno.EISDIR, about=path)
        if state.capture is not None:
            return Outcome(state, errno=errno.EPERM, about=path)
        if not isinstance(found.node, File) or found.node.store is None:
            return Outcome(state, errno=errno.EACCES, about=path)
        if not text:
            return Outcome(state)  # no driver ever sees a write of nothing [fs/sysfs/file.c]
        store = found.node.store
        state, fault = faults.hit(state, found.gpu, "gpu", *_deeds(store, text))
        if fault is not None:
            if fault.what == "create" and not fault.hang and (fault.errno or errno.EIO) == errno.EIO:
                is_mdev = store.attribute == "create"
                refused = vgpus.refused(state, store.parent, Nvrm.INVALID_STATE, is_mdev=is_mdev)
                return replace(refused, about=path)
            return _struck(state, operation, fault, path)
        return replace(self._store(state, store, text), about=path)

    def _store(self, state: State, store: Store, text: str) -> Outcome:
        """Do what a write to that file does."""
        board = state.board_at(store.gpu)
        match store.attribute:
            case "create":
                return vgpus.create_mdev(
                    state, board, self.models, store.parent, kind=int(store.detail), text=text
                )
            case "remove":
                return vgpus.remove_mdev(state, UUID(store.detail), text)
            case "current_vgpu_type":
                return vgpus.set_type(state, board, self.models, store.parent, text)
            case "vgpu_params":
                vgpu = _vgpu_of(board, store)
                if vgpu is None:
                    return Outcome(state, errno=errno.ENXIO)
                return vgpus.set_params(state, board, vgpu, text)
            case "placement_id":
                vgpu = _vgpu_of(board, store)
                if vgpu is None:
                    return Outcome(state, errno=errno.ENXIO)
                return vgpus.set_placement(state, board, self.models, vgpu, text)
            case "gpu_instance_id":
                vgpu = _vgpu_of(board, store)
                if vgpu is None:
                    return Outcome(state, errno=errno.ENXIO)
                return vgpus.set_instance(state, board, self.models, vgpu, text)
            case "sriov_numvfs":
                return sriov.set_numvfs(state, self.models, board, text)
            case _:
                msg = f"no such attribute: {store}"
                raise ValueError(msg)

    def _sriov_manage(
        self, state: State, operation: Operation, address: str, *, enable: bool, now: float
    ) -> Outcome:
        if not _exists(self._tree(state), "usr/lib/nvidia/sriov-manage"):
            return Outcome(state, None)
        if state.capture is not None:
            return Outcome(state, CommandResult(1, "a replayed capture can only be read"))
        gpu = next((each.address for each in state.boards if str(each.address) == address), None)
        state, fault = faults.hit(state, gpu, "sriov-manage")
        if fault is not None and fault.hang:
            return Outcome(state, then=operation)
        if fault is not None:
            return sriov.interrupt(state, address)
        return sriov.manage(state, self.models, address, enable=enable, now=now)

    def _nvml(self, state: State, operation: Operation) -> Outcome:
        state, fault = faults.hit(state, None, "nvml")
        if fault is not None and fault.hang:
            return Outcome(state, then=operation)
        if fault is not None:
            return Outcome(state, Unknown("nvmlInit: Unknown Error"))
        if state.capture is not None:
            return Outcome(state, replay(state.capture).nvml)
        return Outcome(state, answers.nvml(state, self.models))

    def _nvml_order(
        self, state: State, operation: Operation, action: str, address: str, numbers: list[int]
    ) -> Outcome:
        gpu = next((each.address for each in state.boards if str(each.address) == address), None)
        state, fault = faults.hit(state, gpu, "nvml-order")
        if fault is not None and fault.hang:
            return Outcome(state, then=operation)
        if fault is not None or state.capture is not None:
            return Outcome(state, mig.answer(mig.UNKNOWN_ERROR))
        return mig.order(state, self.models, action, gpu, numbers)

    def _walk(self, state: State, path: str, *, follow: bool = True) -> Found:
        root = self._tree(state)
        found = self._found.get((path, follow))
        if found is None:
            parent, _, name = path.rpartition("/")
            found = self._found[path, follow] = (
                below(root, self._walk(state, parent), name, follow=follow)
                if parent and name not in ("", ".", "..")
                else walk(root, path, follow=follow)
            )
        return found

    def _tree(self, state: State) -> Dir:
        if self._seen is not state:
            self._root = tree(state, self.models) if state.capture is None else replay(state.capture).root
            self._seen = state
            self._found = {}
        return self._root


def settle(state: State, now: float) -> tuple[State, tuple[Uevent, ...]]:
    """What time alone does: late VFs are filled by the driver, and their parents register."""
    events: list[Uevent] = []
    for board in state.boards:
        if board.vfs_ready_at is None or now < board.vfs_ready_at:
            continue
        board_now = replace(board, vfs_ready_at=None)
        state = with_board(state, board_now)
        events += [Uevent("change", devpath(each), "pci") for each in vf_addresses(board_now)]
    return state, tuple(events)


def _seen_as(verb: str, found: Found, path: str) -> Any:
    match verb, found.node:
        case "read", File(show=show):
            if show is None:
                raise failure(errno.EACCES, path)
            return show()
        case "read", Dir():
            raise failure(errno.EISDIR, path)
        case "list", Dir(entries=entries):
            return tuple(sorted(entries))
        case "list", _:
            raise failure(errno.ENOTDIR, path)
        case "link", Link(target=target):
            return target.rpartition("/")[2]
        case "link", _:
            raise failure(errno.EINVAL, path)
        case "resolve", _:
            return found.path
        case "is_writable", node:
            return isinstance(node, File) and node.store is not None
        case _:
            return True


def _deeds(store: Store, text: str) -> tuple[str, ...]:
    """The names by which a fault may stop that write."""
    match store.attribute:
        case "current_vgpu_type":
            return ("remove" if text.strip() == "0" else "create",)
        case attribute:
            return (attribute,)


def _struck(state: State, operation: Operation, fault: Fault, path: str) -> Outcome:
    if fault.hang:
        return Outcome(state, then=operation)
    return Outcome(state, errno=fault.errno or errno.EIO, about=path)


def _released(state: State, operation: Operation, address: GpuAddress, uuid: UUID | None) -> Outcome:
    return Outcome(state, then=operation if state.is_held(address, uuid) else None)


def _holders(state: State) -> Outcome:
    state, fault = faults.hit(state, None, "holders")
    if fault is not None:
        return Outcome(state, Unknown("/proc/4242/fd: Permission denied"))
    if state.capture is not None:
        return Outcome(state, Unknown("a capture does not say who holds what"))
    return Outcome(state, answers.holders(state))


def _vgpu_of(board: Board, store: Store) -> Vgpu | None:
    """The vGPU whose file that is: the mdev of that UUID, or the one on that VF."""
    uuid = UUID(store.detail) if store.detail else None
    return next((each for each in board.vgpus if each.parent == store.parent and each.uuid == uuid), None)


def _exists(root: Dir, path: str) -> bool:
    try:
        walk(root, path)
    except OSError:
        return False
    return True

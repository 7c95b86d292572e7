"""The controls of a simulated host: what life does to a real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID, uuid5

from vgpuctl.errors import Conflict, InvalidInput, NoCapacity, NotFound
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import GpuAddress, PciAddress, parse_address
from vgpuctl.ports.kernel import Uevent
from vgpuctl.sim import board as rules
from vgpuctl.sim import faults, mdevctl, mig, sriov, vgpus
from vgpuctl.sim.arguments import Arguments, board_named, errno_named, integer, switch, type_named
from vgpuctl.sim.models import Models
from vgpuctl.sim.outcome import Outcome
from vgpuctl.sim.place import cdev_of, devpath, group_of
from vgpuctl.sim.samples import SAMPLES
from vgpuctl.sim.spec import gpu_uuid
from vgpuctl.sim.state import Board, Fault, Hold, State, noted, with_board

FIRST_PID = 4200
BUSY = ("EPERM", "EBUSY", "block")
KEEPS_MIG = "ampere"
"""The family whose MIG mode outlives the driver: a bit in its InfoROM [MIG user guide]."""


@dataclass(frozen=True, slots=True)
class Control:
    """An action: what does it, which arguments it must and may have, and what it is."""

    act: Callable[[State, Models, Arguments], Outcome]
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    doc: str


def control(state: State, models: Models, action: str, arguments: Arguments) -> Outcome:
    """Do `action`; the result is a JSON object.  Raises VgpuctlError, and then nothing has changed."""
    found = CONTROLS.get(action)
    if found is None:
        raise InvalidInput(f"a simulated host has no control {action!r}", hint=usage())
    given = {key: value for key, value in arguments.items() if value is not None}
    missing = [key for key in found.needs if key not in given]
    unknown = [key for key in given if key not in found.needs + found.takes]
    if missing or unknown:
        faults_found = [f"{key}: missing" for key in missing] + [f"{key}: unknown" for key in unknown]
        raise InvalidInput(f"{action}: {', '.join(faults_found)}", hint=usage(), faults=faults_found)
    return found.act(state, models, given)


def usage() -> str:
    """Every control with its arguments, in one line."""
    return "; ".join(
        " ".join((name, *each.needs, *(f"[{key}]" for key in each.takes))) for name, each in CONTROLS.items()
    )


def _reboot(state: State, models: Models, _arguments: Arguments) -> Outcome:
    """A boot: nothing is left but what cards keep [hardware.md 0.9]; a card that fell off is found again."""
    boards = tuple(_fresh(replace(each, present=True), models) for each in state.boards)
    state = replace(state, boards=boards, holds=(), boot=state.boot + 1)
    state = mdevctl.started(state, models)
    return Outcome(
        noted(state, f"Linux version {state.kernel}"), {"boot_id": state.boot_id}, events=_appearances(boards)
    )


def _appearances(boards: tuple[Board, ...]) -> tuple[Uevent, ...]:
    """What udev hears when a driver has found its cards."""
    return tuple(Uevent("add", devpath(each.address), "pci") for each in boards if each.present)


def _reload_driver(state: State, models: Models, _arguments: Arguments) -> Outcome:
    holders = sorted({each.pid for each in state.holds})
    if holders:
        raise Conflict("the driver is in use and cannot be unloaded", holders=holders)
    boards = tuple(
        each if each.framework is FrameworkKind.PASSTHROUGH or not each.present else _fresh(each, models)
        for each in state.boards
    )
    state = mdevctl.started(replace(state, boards=boards), models)
    state = noted(state, f"NVRM: loading {state.driver_version}")
    return Outcome(state, {}, events=_appearances(boards))


def _fresh(board: Board, models: Models) -> Board:
    """The board as the driver finds it: no VFs, no vGPUs, no mixed-size mode [hardware.md 0.9, 3.2]."""
    keeps_mig = models.model(board.model).family == KEEPS_MIG
    return replace(
        board,
        parked=False,
        vfs=0,
        vfs_ready_at=None,
        vgpus=(),
        mig=mig.pending(board) and keeps_mig,
        mig_pending=None,
        instances=(),
        mixed_size=board.model in SAMPLES,
    )


def _hold(state: State, _models: Models, arguments: Arguments) -> Outcome:
    address, uuid, board = _device(state, arguments)
    if state.is_held(address, uuid):
        raise Conflict(f"{uuid or address} is held already")
    vgpu = next((each for each in board.vgpus if each.parent == address and each.uuid == uuid), None)
    is_pf = address == board.address and uuid is None
    if is_pf:
        node, command, domain = f"/dev/nvidia{board.index}", "nv-hostengine", None
    else:
        group, cdev = group_of(board, address, vgpu), cdev_of(board, address, vgpu)
        node = f"/dev/vfio/devices/vfio{cdev}" if arguments.get("cdev") else f"/dev/vfio/{group}"
        command, domain = "qemu-system-x86", arguments.get("domain")
    made = state.made + 1
    hold = Hold(address=address, uuid=uuid, node=node, pid=FIRST_PID + made, command=command, domain=domain)
    state = replace(state, made=made, holds=(*state.holds, hold))
    return Outcome(state, {"device": node, "pid": hold.pid, "command": command, "domain": domain})


def _release(state: State, _models: Models, arguments: Arguments) -> Outcome:
    """Let go; a removal that waited for it is done now."""
    address, uuid, _ = _device(state, arguments)
    if not state.is_held(address, uuid):
        raise NotFound(f"nobody holds {uuid or address}")
    kept = tuple(each for each in state.holds if (each.address, each.uuid) != (address, uuid))
    return Outcome(vgpus.let_go(replace(state, holds=kept)), {})


def _device(state: State, arguments: Arguments) -> tuple[GpuAddress, UUID | None, Board]:
    """What is to be held: an mdev by its UUID or its VF, a VF, or a PF."""
    name = str(arguments.get("vgpu") or arguments.get("parent") or "")
    mdev = _uuid(name)
    if mdev is not None:
        found = vgpus.find_mdev(state, mdev)
        if found is None:
            raise NotFound(f"there is no mdev {name} on this host")
        return found[1].parent, mdev, found[0]
    try:
        address = parse_address(name)
    except ValueError as error:
        raise InvalidInput(f"hold or release what? {error}", hint="an mdev's UUID, a VF, or a PF") from error
    for board in state.boards:
        if board.address == address and board.present:
            return address, None, board
        if rules.vf_number(board, address) is not None:
            vgpu = board.vgpu_on(address)
            return address, None if vgpu is None else vgpu.uuid, board
    raise NotFound(f"there is no {name} on this host", hint="an mdev's UUID, a VF, or a PF")


def _uuid(name: str) -> UUID | None:
    try:
        return UUID(name)
    except ValueError:
        return None


def _fail(state: State, _models: Models, arguments: Arguments) -> Outcome:
    what = arguments["what"]
    if what not in faults.KINDS:
        known = "; ".join(f"{name} ({doc})" for name, doc in faults.KINDS.items())
        raise InvalidInput(f"{what!r} cannot be made to fail", hint=known)
    gpu = board_named(state, arguments).address if "gpu" in arguments else None
    if what == "gpu" and gpu is None:
        raise InvalidInput("fail gpu: which one?")
    fault = Fault(
        what=what,
        gpu=gpu,
        errno=errno_named(arguments["errno"]) if "errno" in arguments else None,
        count=integer(arguments, "count"),
        hang=bool(arguments.get("hang", False)),
    )
    return Outcome(replace(state, faults=(*state.faults, fault)), {"faults": len(state.faults) + 1})


def _heal(state: State, _models: Models, _arguments: Arguments) -> Outcome:
    disputed = replace(state.disputed, clear_held=BUSY[0])
    return Outcome(replace(state, faults=(), slow_ms=0.0, disputed=disputed), {})


def _remove_gpu(state: State, models: Models, arguments: Arguments) -> Outcome:
    """The card falls off the bus: function, VFs and vGPUs are gone, and whoever held them has nothing."""
    board = board_named(state, arguments)
    held = sriov.holders_of(state, board)
    state = with_board(state, replace(_fresh(board, models), present=False))
    state = replace(state, holds=tuple(each for each in state.holds if each not in held))
    return Outcome(noted(state, f"NVRM: Xid (PCI:{board.address}): 79, GPU has fallen off the bus."), {})


def _swap_gpu(state: State, models: Models, arguments: Arguments) -> Outcome:
    """Another card of the model at the same address: where an address deceives [hardware.md T8]."""
    board = board_named(state, arguments)
    held = sriov.holders_of(state, board)
    made = state.made + 1
    other = replace(
        _fresh(board, models), present=True, mig=False, mig_pending=None, uuid=gpu_uuid(board.index, made)
    )
    state = with_board(replace(state, made=made), other)
    return Outcome(
        replace(state, holds=tuple(each for each in state.holds if each not in held)), {"uuid": other.uuid}
    )


def _move_gpu(state: State, models: Models, arguments: Arguments) -> Outcome:
    """The card is in another slot at the next boot: the same UUID at another address."""
    board = board_named(state, arguments)
    try:
        address = parse_address(str(arguments["address"]))
    except ValueError as error:
        raise InvalidInput(f"move where? {error}", hint="a PCI address, such as 0000:c1:00.0") from error
    if not isinstance(board.address, PciAddress) or not isinstance(address, PciAddress):
        raise InvalidInput("only a PCI card can be moved, and only to a PCI address")
    if any(isinstance(each.address, PciAddress) and each.address.bus == address.bus for each in state.boards):
        raise Conflict(f"there is a card on the bus of {address}")
    moved = replace(_fresh(board, models), address=address, present=True)
    boards = tuple(moved if each is board else each for each in state.boards)
    return Outcome(replace(state, boards=boards), {"address": str(address), "uuid": moved.uuid})


def _foreign(state: State, models: Models, arguments: Arguments) -> Outcome:
    """Somebody else makes a vGPU on the first free parent."""
    board = board_named(state, arguments)
    vgpu_type = type_named(models, board, str(arguments["type"]))
    for parent in (board.address, *rules.vf_addresses(board)):
        if vgpu_type not in rules.creatable(board, models, parent):
            continue
        if board.framework is FrameworkKind.VENDOR_VFIO:
            outcome = vgpus.set_type(state, board, models, parent, str(vgpu_type.type_id))
            return replace(outcome, result={"parent": str(parent), "uuid": None})
        uuid = str(uuid5(state.seed, f"foreign {state.made}"))
        assert vgpu_type.type_id is not None
        outcome = vgpus.create_mdev(state, board, models, parent, kind=vgpu_type.type_id, text=uuid)
        if arguments.get("autostart"):
            made = mdevctl.defined(outcome.state, str(parent), UUID(uuid), vgpu_type.type_id, start="auto")
            outcome = replace(outcome, state=made)
        return replace(outcome, result={"parent": str(parent), "uuid": uuid})
    raise NoCapacity(f"GPU {board.address} takes no {vgpu_type.name} now")


def _slow(state: State, _models: Models, arguments: Arguments) -> Outcome:
    return Outcome(replace(state, slow_ms=float(integer(arguments, "ms") or 0)), {})


def _busy(state: State, _models: Models, arguments: Arguments) -> Outcome:
    """What clearing the type of a held VF comes to; EPERM and EBUSY were both reported [hardware.md 8.3]."""
    answer = str(arguments["errno"])
    if answer not in BUSY:
        raise InvalidInput(f"busy: {answer!r} is none of {', '.join(BUSY)}")
    return Outcome(replace(state, disputed=replace(state.disputed, clear_held=answer)), {})


def _mixed_size(state: State, models: Models, arguments: Arguments) -> Outcome:
    """`nvidia-smi vgpu -shm`: with VFs on and no vGPU [hardware.md 3.4.3]."""
    board = board_named(state, arguments)
    if not models.model(board.model).mixed_size or board.mig:
        raise Conflict(f"GPU {board.address} has no mixed-size mode")
    if board.vgpus:
        raise Conflict(f"GPU {board.address} is in use by another client")
    return Outcome(with_board(state, replace(board, mixed_size=switch(arguments))), {})


def _mig(state: State, models: Models, arguments: Arguments) -> Outcome:
    """`nvidia-smi -mig`: with VFs off and nobody on the GPU [hardware.md 3.2.1, 3.3.7].

    Ampere, which has to be reset for it, takes it otherwise too, and is in that mode when its driver
    next finds it.
    """
    board = board_named(state, arguments)
    if not models.model(board.model).mig:
        raise Conflict(f"GPU {board.address} has no MIG")
    wanted = switch(arguments)
    if board.vfs or board.vgpus or sriov.holders_of(state, board):
        if not (wanted and models.model(board.model).family == KEEPS_MIG):
            raise Conflict(f"GPU {board.address} is in use by another client")
        waiting = replace(board, mig_pending=None if board.mig else True)
        return Outcome(with_board(state, waiting), {"pending": True})
    board = replace(board, mig=wanted, mig_pending=None, instances=(), mixed_size=False)
    return Outcome(with_board(state, board), {"pending": False})


def _mig_cut(state: State, models: Models, arguments: Arguments) -> Outcome:
    """`nvidia-smi mig -cgi`, and `-C`: somebody else cuts a GPU instance where there is room."""
    board = board_named(state, arguments)
    found = mig.somebody_cuts(
        state, models, board, str(arguments["profile"]), compute=bool(arguments.get("compute", False))
    )
    if found is None:
        raise NoCapacity(f"GPU {board.address} takes no GPU instance {arguments['profile']} now")
    return found


CONTROLS = {
    "reboot": Control(_reboot, (), (), "the host boots again"),
    "reload-driver": Control(_reload_driver, (), (), "the NVIDIA driver is unloaded and loaded"),
    "hold": Control(_hold, (), ("vgpu", "parent", "domain", "cdev"), "a process opens a vGPU, VF or PF"),
    "release": Control(_release, (), ("vgpu", "parent"), "it lets go"),
    "fail": Control(_fail, ("what",), ("gpu", "errno", "count", "hang"), "something fails from now on"),
    "heal": Control(_heal, (), (), "nothing fails, and nothing is slow"),
    "remove-gpu": Control(_remove_gpu, ("gpu",), (), "a GPU falls off the bus"),
    "swap-gpu": Control(_swap_gpu, ("gpu",), (), "another card stands at the same address"),
    "foreign": Control(
        _foreign, ("gpu", "type"), ("autostart",), "somebody else makes a vGPU, and defines it in mdevctl"
    ),
    "move-gpu": Control(_move_gpu, ("gpu", "address"), (), "a card is put into another slot"),
    "slow": Control(_slow, ("ms",), (), "every access takes so long"),
    "busy": Control(_busy, ("errno",), (), "clearing a held VF: EPERM, EBUSY or block"),
    "mixed-size": Control(_mixed_size, ("gpu",), ("enabled",), "mixed-size mode"),
    "mig": Control(_mig, ("gpu",), ("enabled",), "MIG mode"),
    "mig-cut": Control(_mig_cut, ("gpu", "profile"), ("compute",), "somebody else cuts a GPU instance"),
}
"""Every control by name."""

"""The arguments of a simulated host's controls: which GPU, which type, how many, which errno."""

from __future__ import annotations

import errno
from typing import Any

from vgpuctl.errors import GpuNotFound, InvalidInput, TypeUnknown
from vgpuctl.model.types import VgpuType
from vgpuctl.sim.models import Models
from vgpuctl.sim.state import Board, State

Arguments = dict[str, Any]


def board_named(state: State, arguments: Arguments) -> Board:
    """The GPU that `gpu` names: its address, UUID or index."""
    name = str(arguments["gpu"])
    for each in state.boards:
        if name in (str(each.address), each.uuid, str(each.index)):
            return each
    known = ", ".join(str(each.address) for each in state.boards)
    raise GpuNotFound(f"no simulated GPU {name}", hint=f"there are: {known}")


def type_named(models: Models, board: Board, name: str) -> VgpuType:
    """The type of that name or number; raises TypeUnknown."""
    for each in models.model(board.model).types:
        if name.lower() in (each.name.lower(), str(each.type_id)):
            return each
    raise TypeUnknown(f"GPU {board.address} has no type {name}")


def switch(arguments: Arguments) -> bool:
    """Whether something is to be turned on; it is where nothing is said."""
    return bool(arguments.get("enabled", True))


def integer(arguments: Arguments, name: str) -> int | None:
    """The number of that name, None where it is not given; raises InvalidInput."""
    try:
        return int(arguments[name]) if name in arguments else None
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name}: not a number: {arguments[name]!r}") from error


def errno_named(name: Any) -> int:
    """The errno of that name or number; raises InvalidInput."""
    if name in errno.errorcode:
        return int(name)
    number = getattr(errno, str(name).upper(), None)
    if not isinstance(number, int):
        raise InvalidInput(f"errno: there is no {name!r}", hint="such as EIO, EPERM, ENODEV")
    return number

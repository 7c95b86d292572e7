"""mdevctl on a simulated host: its files, and the start of what is defined so when a parent appears."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from vgpuctl.model.pci import parse_address
from vgpuctl.sim import vgpus
from vgpuctl.sim.mdev import mdev_parents
from vgpuctl.sim.models import Models
from vgpuctl.sim.node import Dir, Node, fixed, folder
from vgpuctl.sim.outcome import Outcome
from vgpuctl.sim.state import Definition, State


def definition_files(definitions: Iterable[Definition]) -> dict[str, Node]:
    """`/etc/mdevctl.d`: a directory for each parent, and `scripts.d`, as the package has it."""
    parents: dict[str, dict[str, Node]] = {}
    for each in definitions:
        parents.setdefault(each.parent, {})[str(each.uuid)] = fixed(each.text)
    found: dict[str, Node] = {name: folder(files) for name, files in parents.items()}
    return found | {"scripts.d": Dir(lambda: {"callouts": folder({}), "notifiers": folder({})})}


def replaced(state: State, path: str, text: str) -> Outcome:
    """Another file in the place of one; only mdevctl's can be replaced."""
    parent, _, name = path.removeprefix("etc/mdevctl.d/").partition("/")
    old = next((each for each in state.definitions if (each.parent, str(each.uuid)) == (parent, name)), None)
    if old is None:
        return Outcome(state, errno=errno.ENOENT, about=path)
    new = replace(old, text=text)
    return Outcome(
        replace(state, definitions=tuple(new if each is old else each for each in state.definitions))
    )


def defined(state: State, parent: str, uuid: UUID, type_id: int, *, start: str) -> State:
    """One more definition, as `mdevctl define` writes it."""
    text = json.dumps({"mdev_type": f"nvidia-{type_id}", "start": start, "attrs": []}, indent=2)
    return replace(state, definitions=(*state.definitions, Definition(parent=parent, uuid=uuid, text=text)))


def started(state: State, models: Models) -> State:
    """What udev's rule starts: `auto` devices whose parent stands there [hardware.md 6.2]."""
    for each in state.definitions:
        body = json.loads(each.text)
        parent = parse_address(each.parent)
        board = next((board for board in state.boards if parent in mdev_parents(board, state.disputed)), None)
        is_there = vgpus.find_mdev(state, each.uuid) is not None
        if body.get("start") != "auto" or board is None or is_there or not board.vfs_are_ready:
            continue
        kind = int(str(body["mdev_type"]).rpartition("-")[2])
        state = vgpus.create_mdev(state, board, models, parent, kind=kind, text=str(each.uuid)).state
    return state

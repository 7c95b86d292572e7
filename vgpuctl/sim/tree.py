"""sysfs and procfs of a simulated host: the top of the tree, as a view of the state."""

from __future__ import annotations

from collections.abc import Iterator

from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import PciAddress
from vgpuctl.sim import board as rules
from vgpuctl.sim.function import pf, vf
from vgpuctl.sim.mdev import mdev_parents, virtual_parent
from vgpuctl.sim.mdevctl import definition_files
from vgpuctl.sim.models import Models
from vgpuctl.sim.node import Dir, Link, Node, fixed, folder
from vgpuctl.sim.place import cdev_of, group_of, real_path
from vgpuctl.sim.samples import SAMPLES
from vgpuctl.sim.state import Board, Disputed, State

BYSTANDERS = {
    "0000:02:00.0": {
        "class": "0x020000",
        "vendor": "0x8086",
        "device": "0x1572",
        "sriov_totalvfs": "64",
        "sriov_numvfs": "0",
    },
    "0000:03:00.0": {"class": "0x030000", "vendor": "0x1a03", "device": "0x2000"},
}
"""A network card with SR-IOV and the display of a BMC: on every server, and no GPU of ours."""


def tree(state: State, models: Models) -> Dir:
    """The root directory of that state."""
    return folder(
        {
            "sys": folder(
                {
                    "bus": folder({"pci": Dir(lambda: _pci(state)), "mdev": Dir(lambda: _mdev_bus(state))}),
                    "class": folder({"mdev_bus": Dir(lambda: _mdev_class(state))}),
                    "devices": Dir(lambda: _devices(state, models)),
                    "kernel": folder({"iommu_groups": Dir(lambda: _iommu_groups(state))}),
                    "module": Dir(lambda: _modules(state)),
                }
            ),
            "proc": folder(
                {"sys": Dir(lambda: _proc_sys(state)), "driver": Dir(lambda: _proc_driver(state, models))}
            ),
            "dev": folder({"vfio": Dir(lambda: _dev_vfio(state))}),
            "etc": folder({"mdevctl.d": Dir(lambda: definition_files(state.definitions))}),
            "usr": folder({"lib": folder({"nvidia": Dir(lambda: _usr_lib_nvidia(state))})}),
        }
    )


def _functions(board: Board) -> Iterator[PciAddress]:
    if isinstance(board.address, PciAddress) and board.present:
        yield board.address
        yield from rules.vf_addresses(board)


def _pci(state: State) -> dict[str, Node]:
    devices: dict[str, Node] = {
        str(address): Link(real_path(address)) for board in state.boards for address in _functions(board)
    }
    devices |= {name: folder(_bystander(name)) for name in BYSTANDERS}
    drivers = ("nvidia", "pci-pf-stub", "vfio-pci", "gim")
    return {
        "devices": folder(devices),
        "drivers": folder({name: folder({}) for name in drivers}),
    }


def _bystander(name: str) -> dict[str, Node]:
    facts = {"subsystem_vendor": "0x0000", "subsystem_device": "0x0000", "numa_node": "0", "revision": "0x01"}
    return {key: fixed(value) for key, value in (facts | BYSTANDERS[name]).items()}


def _devices(state: State, models: Models) -> dict[str, Node]:
    """`/sys/devices`: each PF with its VFs as siblings below a root port of their own."""
    roots: dict[str, Node] = {}
    virtual: dict[str, Node] = {}
    for board in state.boards:
        if not board.present:
            continue
        if isinstance(board.address, PciAddress):
            _, _, root, port, _ = real_path(board.address).split("/")
            roots[root] = folder({port: _port(board, models, state.disputed)})
        else:
            virtual[str(board.address)] = folder(
                {str(board.address): virtual_parent(board, models, state.disputed)}
            )
    return roots | {"virtual": folder(virtual)}


def _port(board: Board, models: Models, disputed: Disputed) -> Dir:
    def fill() -> dict[str, Node]:
        below: dict[str, Node] = {str(board.address): pf(board, models, disputed)}
        for number, address in enumerate(rules.vf_addresses(board)):
            below[str(address)] = vf(board, models, disputed, number, address)
        return below

    return Dir(fill)


def _mdev_class(state: State) -> dict[str, Node]:
    return {
        str(parent): Link(real_path(parent))
        for board in state.boards
        for parent in mdev_parents(board, state.disputed)
    }


def _mdev_bus(state: State) -> dict[str, Node]:
    """`/sys/bus/mdev`: an mdev leaves its `devices` as soon as its removal begins."""
    devices: dict[str, Node] = {
        str(vgpu.uuid): Link(f"{real_path(vgpu.parent)}/{vgpu.uuid}")
        for board in state.boards
        for vgpu in board.vgpus
        if vgpu.uuid is not None and not vgpu.removing
    }
    return {
        "devices": folder(devices),
        "drivers": folder({name: folder({}) for name in ("nvidia-vgpu-vfio", *SAMPLES)}),
    }


def _nodes(state: State) -> Iterator[tuple[int, int]]:
    """Group and character-device number of everything that stands in an IOMMU group."""
    for board in state.boards:
        for address in _functions(board):
            yield group_of(board, address, None), cdev_of(board, address, None)
        for vgpu in board.vgpus:
            if vgpu.uuid is not None:
                yield group_of(board, vgpu.parent, vgpu), cdev_of(board, vgpu.parent, vgpu)


def _iommu_groups(state: State) -> dict[str, Node]:
    return {str(group): folder({}) for group, _ in _nodes(state)}


def _dev_vfio(state: State) -> dict[str, Node]:
    nodes = tuple(_nodes(state))
    by_group: dict[str, Node] = {str(group): fixed("") for group, _ in nodes}
    return by_group | {"devices": folder({f"vfio{cdev}": fixed("") for _, cdev in nodes})}


def _nvidia_boards(state: State) -> tuple[Board, ...]:
    return tuple(
        each
        for each in state.boards
        if isinstance(each.address, PciAddress) and each.framework is not FrameworkKind.PASSTHROUGH
    )


def _modules(state: State) -> dict[str, Node]:
    return {"nvidia": folder({"version": fixed(state.driver_version)})} if _nvidia_boards(state) else {}


def _usr_lib_nvidia(state: State) -> dict[str, Node]:
    return {"sriov-manage": fixed("#!/bin/bash")} if state.sriov_manage and _nvidia_boards(state) else {}


def _proc_sys(state: State) -> dict[str, Node]:
    kernel: dict[str, Node] = {
        "hostname": fixed(state.hostname),
        "osrelease": fixed(state.kernel),
        "random": folder({"boot_id": fixed(state.boot_id)}),
    }
    return {"kernel": folder(kernel)}


def _proc_driver(state: State, models: Models) -> dict[str, Node]:
    """`/proc/driver/nvidia`; a GPU that the driver does not have is not among its `gpus`."""
    boards = _nvidia_boards(state)
    if not boards:
        return {}
    version = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {state.driver_version}"
    gpus: dict[str, Node] = {
        str(board.address): folder({"information": fixed(_information(board, models))})
        for board in boards
        if board.is_driven
    }
    return {"nvidia": folder({"version": fixed(version), "gpus": folder(gpus)})}


def _information(board: Board, models: Models) -> str:
    facts = {
        "Model": models.model(board.model).name,
        "IRQ": "190",
        "GPU UUID": board.uuid,
        "Bus Type": "PCIe",
        "Bus Location": str(board.address),
        "Device Minor": str(board.index),
        "GPU Excluded": "No",
    }
    return "\n".join(f"{key + ':':<16} {value}" for key, value in facts.items())

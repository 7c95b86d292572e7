"""Mediated devices in the simulated sysfs: parents, their types, and the devices."""

from __future__ import annotations

from collections.abc import Iterator

from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import GpuAddress, PciAddress
from vgpuctl.model.types import VgpuType
from vgpuctl.sim import board as rules
from vgpuctl.sim import samples
from vgpuctl.sim.models import Models
from vgpuctl.sim.node import Dir, File, Link, Node, Store, fixed, folder
from vgpuctl.sim.place import cdev_of, group_of, placement_text, real_path, type_directory
from vgpuctl.sim.state import Board, Disputed, Vgpu


def mdev_parents(board: Board, disputed: Disputed) -> Iterator[GpuAddress]:
    """What of a board stands in `/sys/class/mdev_bus`: the PF, or each VF and then not the PF."""
    if not board.is_driven:
        return
    if board.framework is FrameworkKind.MDEV:
        if disputed.mdev_tree or not isinstance(board.address, PciAddress):
            yield board.address
    elif board.framework is FrameworkKind.SRIOV_MDEV:
        yield from rules.vf_addresses(board)


def virtual_parent(board: Board, models: Models, disputed: Disputed) -> Dir:
    """A parent that is no PCI device."""
    return Dir(lambda: parent_entries(board, models, disputed, board.address), gpu=board.address)


def parent_entries(board: Board, models: Models, disputed: Disputed, parent: GpuAddress) -> dict[str, Node]:
    """What an mdev parent has: its types, and a directory for each mdev."""
    if not board.is_driven:
        return {}
    entries: dict[str, Node] = {"mdev_supported_types": Dir(lambda: _types(board, models, parent))}
    for vgpu in board.vgpus:
        if vgpu.parent == parent:
            entries[str(vgpu.uuid)] = _device(board, disputed, vgpu)
    return entries


def _types(board: Board, models: Models, parent: GpuAddress) -> dict[str, Node]:
    return {
        type_directory(board, each.type_id, each.name): _type(board, models, parent, each)
        for each in models.model(board.model).types
        if each.type_id is not None
    }


def _type(board: Board, models: Models, parent: GpuAddress, vgpu_type: VgpuType) -> Dir:
    def fill() -> dict[str, Node]:
        entries: dict[str, Node] = {
            "name": fixed(vgpu_type.raw_name),
            "device_api": fixed("vfio-pci"),
            "available_instances": File(lambda: str(rules.available(board, models, parent, vgpu_type))),
            "create": File(None, Store("create", board.address, parent, str(vgpu_type.type_id))),
            "devices": folder(
                {
                    str(vgpu.uuid): Link(f"{real_path(parent)}/{vgpu.uuid}")
                    for vgpu in board.vgpus
                    if vgpu.parent == parent and vgpu.type_id == vgpu_type.type_id and not vgpu.removing
                }
            ),
        }
        told = (
            _description(vgpu_type, models.model(board.model).fb_mib)
            if isinstance(board.address, PciAddress)
            else samples.description(vgpu_type.name)
        )
        if told is not None:
            entries["description"] = fixed(told)
        return entries

    return Dir(fill)


def _description(vgpu_type: VgpuType, board_fb_mib: int) -> str:
    """NVIDIA's `description`; its `max_instance` is per GPU, also on a VF [hardware.md 1.1]."""
    assert vgpu_type.fb_mib is not None
    return ", ".join(
        (
            f"num_heads={vgpu_type.heads or 1}",
            f"frl_config={vgpu_type.frl_fps or 60}",
            f"framebuffer={vgpu_type.fb_mib}M",
            f"max_resolution={vgpu_type.max_resolution or '4096x2160'}",
            f"max_instance={vgpu_type.max_per_gpu or board_fb_mib // vgpu_type.fb_mib}",
        )
    )


def _device(board: Board, disputed: Disputed, vgpu: Vgpu) -> Dir:
    """An mdev; its `remove` deletes itself first, so that a second writer finds none [hardware.md 1.6].

    Its links to and from its type go next, before the kernel waits [drivers/vfio/mdev/mdev_core.c].
    """

    def fill() -> dict[str, Node]:
        is_nvidia = isinstance(board.address, PciAddress)
        types = f"{real_path(vgpu.parent)}/mdev_supported_types"
        uuid = str(vgpu.uuid)
        entries: dict[str, Node] = {
            "iommu_group": Link(f"sys/kernel/iommu_groups/{group_of(board, vgpu.parent, vgpu)}"),
            "driver": Link(f"sys/bus/mdev/drivers/{'nvidia-vgpu-vfio' if is_nvidia else board.model}"),
            "vfio-dev": folder({f"vfio{cdev_of(board, vgpu.parent, vgpu)}": folder({})}),
        }
        if not vgpu.removing:
            entries["mdev_type"] = Link(f"{types}/{type_directory(board, vgpu.type_id, vgpu.type_name)}")
            entries["remove"] = File(None, Store("remove", board.address, vgpu.parent, uuid))
        if is_nvidia:
            entries["nvidia"] = folder(
                {
                    "vgpu_params": File(
                        lambda: vgpu.params, Store("vgpu_params", board.address, vgpu.parent, uuid)
                    ),
                    "placement_id": File(
                        lambda: placement_text(vgpu),
                        Store("placement_id", board.address, vgpu.parent, uuid)
                        if disputed.placement_writable
                        else None,
                    ),
                }
            )
        return entries

    return Dir(fill)

"""PCI functions in the simulated sysfs: a PF, and its VFs."""

from __future__ import annotations

import errno
from collections.abc import Callable

from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import GpuAddress, PciAddress
from vgpuctl.sim import board as rules
from vgpuctl.sim.mdev import parent_entries
from vgpuctl.sim.models import NVIDIA, Models, total_vfs, vendor_of
from vgpuctl.sim.node import Dir, File, Link, Node, Store, failure, fixed, folder
from vgpuctl.sim.place import cdev_of, instance_text, placement_text, real_path
from vgpuctl.sim.state import Board, Disputed, Vgpu

MXGPU_VF_DEVICE = 0x692F
CREATABLE_HEADER = "ID    : vGPU Name"


def pf(board: Board, models: Models, disputed: Disputed) -> Dir:
    """A physical function.  It has no `nvidia/` [hardware.md 1.4]."""
    return Dir(lambda: _pf_entries(board, models, disputed), gpu=board.address)


def vf(board: Board, models: Models, disputed: Disputed, number: int, address: PciAddress) -> Dir:
    """A virtual function."""
    return Dir(lambda: _vf_entries(board, models, disputed, number, address), gpu=board.address)


def _ids(board: Board, models: Models, device: int) -> dict[str, Node]:
    model = models.model(board.model)
    vendor = vendor_of(model)
    return {
        "vendor": fixed(f"0x{vendor:04x}"),
        "device": fixed(f"0x{device:04x}"),
        "subsystem_vendor": fixed(f"0x{vendor:04x}"),
        "subsystem_device": fixed(f"0x{model.subsystem or device:04x}"),
        "class": fixed("0x030200" if vendor == NVIDIA else "0x030000"),
        "revision": fixed("0xa1"),
        "numa_node": fixed(str(board.numa_node)),
    }


def _pf_entries(board: Board, models: Models, disputed: Disputed) -> dict[str, Node]:
    model = models.model(board.model)
    entries = _ids(board, models, model.device)
    entries["driver"] = _driver(_pf_driver(board, models))
    entries["iommu_group"] = _group(rules.iommu_group(board))
    if total_vfs(model):
        entries["sriov_totalvfs"] = fixed(str(total_vfs(model)))
        entries["sriov_numvfs"] = File(
            lambda: str(board.vfs), Store("sriov_numvfs", board.address, board.address)
        )
    for number, address in enumerate(rules.vf_addresses(board)):
        entries[f"virtfn{number}"] = Link(real_path(address))
    if board.framework is FrameworkKind.MDEV and disputed.mdev_tree:
        entries |= parent_entries(board, models, disputed, board.address)
    return entries


def _pf_driver(board: Board, models: Models) -> str:
    if board.parked:
        return "pci-pf-stub"
    return "nvidia" if vendor_of(models.model(board.model)) == NVIDIA else "gim"


def _vf_entries(
    board: Board, models: Models, disputed: Disputed, number: int, address: PciAddress
) -> dict[str, Node]:
    is_nvidia = board.framework is not FrameworkKind.PASSTHROUGH
    entries = _ids(board, models, models.model(board.model).device if is_nvidia else MXGPU_VF_DEVICE)
    entries["physfn"] = Link(real_path(board.address))
    entries["iommu_group"] = _group(rules.iommu_group(board, number))
    if is_nvidia and board.vfs_are_ready:
        entries["driver"] = _driver("nvidia")
    if board.framework is FrameworkKind.SRIOV_MDEV:
        entries |= parent_entries(board, models, disputed, address)
    if board.framework is FrameworkKind.VENDOR_VFIO and board.vfs_are_ready:
        entries["nvidia"] = Dir(lambda: _vendor_entries(board, models, disputed, address))
        entries["vfio-dev"] = folder({f"vfio{cdev_of(board, address, None)}": folder({})})
    return entries


def _vendor_entries(board: Board, models: Models, disputed: Disputed, address: PciAddress) -> dict[str, Node]:
    """`<VF>/nvidia/` of the vendor framework [hardware.md 1.4]."""
    vgpu = board.vgpu_on(address)

    def creatable() -> str:
        types = rules.creatable(board, models, address)
        header = (CREATABLE_HEADER,) if disputed.creatable_header else ()
        return "\n".join([*header, *(f"{each.type_id:<5} : {each.raw_name}" for each in types)])

    def store(attribute: str) -> Store:
        return Store(attribute, board.address, address)

    def store_if(is_writable: bool, attribute: str) -> Store | None:
        return store(attribute) if is_writable else None

    return {
        "creatable_vgpu_types": File(creatable),
        "current_vgpu_type": File(
            lambda: str(0 if vgpu is None else vgpu.type_id), store("current_vgpu_type")
        ),
        "vgpu_params": File(_only_with(vgpu, address, lambda each: each.params), store("vgpu_params")),
        "gpu_instance_id": File(
            _only_with(vgpu, address, instance_text), store_if(disputed.gi_writable, "gpu_instance_id")
        ),
        "placement_id": File(
            _only_with(vgpu, address, placement_text), store_if(disputed.placement_writable, "placement_id")
        ),
    }


def _only_with(vgpu: Vgpu | None, address: GpuAddress, show: Callable[[Vgpu], str]) -> Callable[[], str]:
    """Show something of a vGPU; ENXIO while there is none."""

    def text() -> str:
        if vgpu is None:
            raise failure(errno.ENXIO, str(address))
        return show(vgpu)

    return text


def _driver(name: str) -> Link:
    return Link(f"sys/bus/pci/drivers/{name}")


def _group(number: int) -> Link:
    return Link(f"sys/kernel/iommu_groups/{number}")

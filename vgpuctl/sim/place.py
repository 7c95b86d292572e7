"""Where things stand in the simulated sysfs: real paths, device nodes, names of type directories."""

from __future__ import annotations

from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import GpuAddress, PciAddress
from vgpuctl.sim import board as rules
from vgpuctl.sim.state import Board, Vgpu

CDEVS_PER_BOARD = 64
FIRST_MDEV_CDEV = 4096
NOT_APPLICABLE = "Not Applicable"


def real_path(address: GpuAddress) -> str:
    """The real path of a function, below the root bridge of its bus; VFs are the PF's siblings."""
    if not isinstance(address, PciAddress):
        return f"sys/devices/virtual/{address}/{address}"
    root = f"{address.domain:04x}:{address.bus - 1:02x}"
    return f"sys/devices/pci{root}/{root}:01.0/{address}"


def devpath(address: GpuAddress) -> str:
    """The path of a function as uevents tell it: below `/sys`."""
    return real_path(address).removeprefix("sys")


def group_of(board: Board, parent: GpuAddress, vgpu: Vgpu | None) -> int:
    """The IOMMU group of a vGPU, a VF, or a PF."""
    if vgpu is not None and vgpu.iommu_group is not None:
        return vgpu.iommu_group
    return rules.iommu_group(board, rules.vf_number(board, parent))


def cdev_of(board: Board, parent: GpuAddress, vgpu: Vgpu | None) -> int:
    """The N of `/dev/vfio/devices/vfioN`; not the group's number, so that nobody takes one for the other."""
    if vgpu is not None and vgpu.iommu_group is not None:
        return FIRST_MDEV_CDEV + vgpu.iommu_group
    return CDEVS_PER_BOARD * board.index + (rules.vf_number(board, parent) or 0)


def type_directory(board: Board, type_id: int, name: str) -> str:
    """The name of a type's directory: its driver and its number; `pci` until the driver is bound.

    A sample driver's types are called after the driver anyway.
    """
    if not isinstance(board.address, PciAddress):
        return name
    is_early = board.framework is not FrameworkKind.MDEV and not board.vfs_are_ready
    return f"{'pci' if is_early else 'nvidia'}-{type_id}"


def instance_text(vgpu: Vgpu) -> str:
    """`gpu_instance_id`: a number in MIG mode, else the words `Not Applicable` [hardware.md 1.4.7]."""
    return NOT_APPLICABLE if vgpu.instance is None else str(vgpu.instance)


def placement_text(vgpu: Vgpu) -> str:
    """`placement_id`: a number in mixed-size mode, else the words `Not Applicable` [hardware.md 1.2]."""
    return NOT_APPLICABLE if vgpu.placement_id is None else str(vgpu.placement_id)

"""A root like that of a host with a T4 (mdev), an L40S (vendor VFIO), an mtty parent and a network card.

The shape of the files: hardware.md 1.1 to 1.4.
"""

from __future__ import annotations

from pathlib import Path

MDEV = "3c1e4b2a-9f0d-4a6e-8b7c-1d2e3f405162"
GPU_UUID = "GPU-7e1f2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
BOOT_ID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
HOSTNAME = "secret-hypervisor"

T4 = "sys/devices/pci0000:40/0000:41:00.0"
L40S = "sys/devices/pci0000:60/0000:61:00.0"
VF = "sys/devices/pci0000:60/0000:61:00.4"
NIC = "sys/devices/pci0000:00/0000:00:03.0"
MTTY = "sys/devices/virtual/mtty/mtty"

FILES = {
    "proc/sys/kernel/osrelease": "6.8.0-45-generic",
    "proc/sys/kernel/hostname": HOSTNAME,
    "proc/sys/kernel/random/boot_id": BOOT_ID,
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.16",
    "proc/driver/nvidia/gpus/0000:41:00.0/information": f"Model: \t Tesla T4\nGPU UUID: \t {GPU_UUID}\n"
    "Serial Number: \t 1324020012345\nDevice Minor: \t 0",
    "dev/kmsg": f"4,1,1,-;NVRM: nvidia-vgpu-vfio {MDEV}: start failed. status: 0x1\n6,2,2,-;eth0: link up",
    f"{NIC}/class": "0x020000",
    f"{T4}/class": "0x030200",
    f"{T4}/vendor": "0x10de",
    f"{T4}/device": "0x1eb8",
    f"{T4}/numa_node": "-1",
    f"{T4}/resource": "not for us",
    f"{T4}/mdev_supported_types/nvidia-222/name": "GRID T4-1B",
    f"{T4}/mdev_supported_types/nvidia-222/available_instances": "15",
    f"{L40S}/class": "0x030200",
    f"{L40S}/sriov_numvfs": "1",
    f"{VF}/class": "0x030200",
    f"{VF}/nvidia/current_vgpu_type": "1147",
    f"{VF}/nvidia/creatable_vgpu_types": "ID    : vGPU Name\n1147  : NVIDIA L40S-1Q",
    f"{VF}/vfio-dev/vfio3/dev": "511:3",
    f"{MTTY}/mdev_supported_types/mtty-1/name": "Single port serial",
    f"{T4}/{MDEV}/nvidia/vgpu_params": "frame_rate_limiter=0",
}
LINKS = {
    "sys/bus/pci/devices/0000:00:03.0": NIC,
    "sys/bus/pci/devices/0000:41:00.0": T4,
    "sys/bus/pci/devices/0000:61:00.0": L40S,
    "sys/bus/pci/devices/0000:61:00.4": VF,
    "sys/class/mdev_bus/0000:41:00.0": T4,
    "sys/class/mdev_bus/mtty": MTTY,
    f"sys/bus/mdev/devices/{MDEV}": f"{T4}/{MDEV}",
    f"{T4}/driver": "sys/bus/pci/drivers/nvidia",
    f"{L40S}/driver": "sys/bus/pci/drivers/nvidia",
    f"{L40S}/virtfn0": VF,
    f"{VF}/driver": "sys/bus/pci/drivers/nvidia",
    f"{VF}/physfn": L40S,
    f"{VF}/iommu_group": "sys/kernel/iommu_groups/12",
    f"{T4}/{MDEV}/mdev_type": f"{T4}/mdev_supported_types/nvidia-222",
}
DIRECTORIES = ("sys/bus/pci/drivers/nvidia", "sys/kernel/iommu_groups/12")


def build(root: Path) -> Path:
    """Make that tree below `root`."""
    for directory in DIRECTORIES:
        (root / directory).mkdir(parents=True)
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    for path, target in LINKS.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(root / target)
    return root

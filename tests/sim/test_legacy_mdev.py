"""vGPUs on the PF of a card without SR-IOV."""

from __future__ import annotations

import errno

import pytest

from tests.sim.hosts import (
    DEVICES,
    MDEVS,
    T4,
    UUID_1,
    UUID_2,
    available,
    create,
    log_of,
    refused,
    turn,
    type_id,
    types_of,
)
from vgpuctl.sim.host import MemoryHost, SimHost


@pytest.fixture
def host() -> MemoryHost:
    return SimHost.in_memory("t4,t4")


def test_type_files_read_as_the_driver_writes_them(host):
    """hardware.md 1.1.1, 1.1.3, 1.1.4, 1.1.5: description verbatim, device_api, names with GRID."""
    base = f"{types_of(T4)}/nvidia-{type_id(host, 'T4-4Q')}"
    assert host.kernel.read(f"{base}/name") == "GRID T4-4Q"
    assert host.kernel.read(f"{base}/device_api") == "vfio-pci"
    assert (
        host.kernel.read(f"{base}/description")
        == "num_heads=4, frl_config=60, framebuffer=4096M, max_resolution=7680x4320, max_instance=4"
    )
    with refused(errno.EACCES):
        host.kernel.read(f"{base}/create")
    with refused(errno.EACCES):
        host.kernel.write(f"{base}/name", "x")


def test_only_the_size_that_is_there_stays_creatable(host):
    """hardware.md 0.2, 0.3, 1.1.7: 1Q=16, 2Q=8; after one 1Q: 1Q=15, others 0; series of one size mix."""
    assert (available(host, T4, "T4-1Q"), available(host, T4, "T4-2Q")) == (16, 8)
    create(host, T4, "T4-1Q", UUID_1)
    assert (available(host, T4, "T4-1Q"), available(host, T4, "T4-1B")) == (15, 15)
    assert (available(host, T4, "T4-2Q"), available(host, T4, "T4-16Q")) == (0, 0)
    create(host, T4, "T4-1B", UUID_2)
    assert available(host, T4, "T4-1Q") == 14


def test_another_size_is_eio_and_the_log_says_0x56(host):
    """hardware.md 1.1.8: EIO, and the three lines that dmesg had."""
    create(host, T4, "T4-1Q", UUID_1)
    with refused(errno.EIO):
        create(host, T4, "T4-2Q", UUID_2)
    assert log_of(host)[-3:] == [
        "NVRM: Failed to add vgpu create request: 0x56",
        "vGPU creation failed on device 0x4100. -5",
        "nvidia-vgpu-vfio: probe failed with error -12",
    ]


def test_full_is_eio_and_the_log_says_0x1a(host):
    """hardware.md 1.4.10: 0x1A = insufficient resources."""
    create(host, T4, "T4-16Q", UUID_1)
    assert available(host, T4, "T4-16Q") == 0
    with refused(errno.EIO):
        create(host, T4, "T4-16A", UUID_2)
    assert "NVRM: Failed to add vgpu create request: 0x1a" in log_of(host)


def test_a_write_of_nothing_reaches_nobody(host):
    """sysfs itself takes it: no driver ever sees it [fs/sysfs/file.c]."""
    create(host, T4, "T4-1Q", "")
    assert host.kernel.list(MDEVS) == ()


@pytest.mark.parametrize(
    "text", ["\n", "x", UUID_1[:-1], UUID_1 + "\n\n", "g" + UUID_1[1:], UUID_1.replace("-", "0")]
)
def test_a_malformed_uuid_is_einval(host, text):
    """hardware.md 1.1.2: exactly 36 characters (or 37 with the newline), else EINVAL."""
    with refused(errno.EINVAL):
        create(host, T4, "T4-1Q", text)
    create(host, T4, "T4-1Q", UUID_1 + "\n")


def test_a_uuid_is_taken_on_the_whole_host(host):
    """hardware.md 1.6.4: an existing UUID is EEXIST, on another parent too."""
    create(host, T4, "T4-1Q", UUID_1)
    with refused(errno.EEXIST):
        create(host, "0000:61:00.0", "T4-2Q", UUID_1)


def test_an_mdev_stands_where_the_kernel_puts_it(host):
    """hardware.md 1.2.1: links to its type, group and parent."""
    create(host, T4, "T4-1Q", UUID_1)
    mdev = f"{MDEVS}/{UUID_1}"
    assert host.kernel.resolve(mdev) == f"sys/devices/pci0000:40/0000:40:01.0/{T4}/{UUID_1}"
    assert host.kernel.link(f"{mdev}/mdev_type") == f"nvidia-{type_id(host, 'T4-1Q')}"
    assert host.kernel.list(f"{mdev}/mdev_type/devices") == (UUID_1,)
    group = host.kernel.link(f"{mdev}/iommu_group")
    assert host.kernel.exists(f"dev/vfio/{group}")
    host.kernel.write(f"{mdev}/remove", "1")
    assert not host.kernel.exists(mdev)
    assert available(host, T4, "T4-2Q") == 8


def test_params_are_a_whole_file(host):
    """hardware.md 1.2.2: vgpu_params is replaced as a whole, and a single space clears it."""
    create(host, T4, "T4-1Q", UUID_1)
    params = f"{MDEVS}/{UUID_1}/nvidia/vgpu_params"
    host.kernel.write(params, "frame_rate_limiter=0,disable_vnc=1")
    host.kernel.write(params, "enable_uvm=1")
    assert host.kernel.read(params) == "enable_uvm=1"
    host.kernel.write(params, "")
    assert host.kernel.read(params) == "enable_uvm=1"
    host.kernel.write(params, " ")
    assert host.kernel.read(params) == ""
    with refused(errno.EINVAL):
        host.kernel.write(params, "nonsense")


def test_removing_a_held_one_blocks_until_it_is_released(host):
    """hardware.md 1.6.1, 1.6.2: it waits without limit; it is listed no more, counts, and has its UUID."""
    create(host, T4, "T4-16Q", UUID_1)
    host.control("hold", {"vgpu": UUID_1, "domain": "desk-1"})
    with pytest.raises(TimeoutError):
        host.kernel.write_abandonable(f"{MDEVS}/{UUID_1}/remove", "1", 0.01)
    assert not host.kernel.exists(f"{MDEVS}/{UUID_1}")
    parent_side = f"{DEVICES}/{T4}/{UUID_1}"
    assert "remove" not in host.kernel.list(parent_side)
    with refused(errno.ENOENT):
        host.kernel.write(f"{parent_side}/remove", "1")
    with refused(errno.EEXIST):
        create(host, "0000:61:00.0", "T4-1Q", UUID_1)
    assert available(host, T4, "T4-16Q") == 0
    assert any("blocked until device is released" in line for line in log_of(host))
    host.control("release", {"vgpu": UUID_1})
    assert not host.kernel.exists(parent_side)
    assert available(host, T4, "T4-16Q") == 1


def test_t4_shows_totalvfs_and_never_has_vfs(host):
    """hardware.md T19: T4 shows totalvfs but has no VFs."""
    assert host.kernel.read(f"{DEVICES}/{T4}/sriov_totalvfs") == "16"
    assert turn(host, T4, on=True)[0] == 0
    assert host.kernel.read(f"{DEVICES}/{T4}/sriov_numvfs") == "0"
    assert host.kernel.exists(f"{DEVICES}/{T4}/mdev_supported_types")


def test_mtty_is_a_parent_without_description():
    """DESIGN.md: any other mdev parent; the kernel's sample has no description and no PCI function."""
    host = SimHost.in_memory("mtty")
    types = types_of("mtty")
    assert host.kernel.list(types) == ("mtty-1", "mtty-2")
    assert not host.kernel.exists(f"{types}/mtty-2/description")
    assert host.kernel.read(f"{types}/mtty-2/available_instances") == "12"
    host.kernel.write(f"{types}/mtty-2/create", UUID_1)
    assert host.kernel.read(f"{types}/mtty-1/available_instances") == "22"
    assert host.kernel.resolve(f"{MDEVS}/{UUID_1}") == f"sys/devices/virtual/mtty/mtty/{UUID_1}"
    assert host.kernel.sriov_manage("mtty", enable=True, timeout_s=1) is None

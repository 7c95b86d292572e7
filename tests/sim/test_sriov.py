"""Turning VFs on and off, and vGPUs as mdevs on them."""

from __future__ import annotations

import errno

import pytest

from tests.sim.hosts import (
    DEVICES,
    FIRST,
    MDEVS,
    UUID_1,
    UUID_2,
    available,
    create,
    current_type,
    log_of,
    refused,
    set_type,
    turn,
    type_id,
    types_of,
    vf,
    with_vfs,
)
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.sim.host import SimHost
from vgpuctl.sim.spec import Card, Spec


def test_vfs_begin_at_function_4():
    """hardware.md 1.3.1, 1.3.2: virtfnN links; the first VF is function .4; types on VFs only."""
    host = SimHost.in_memory("l40s:sriov-mdev")
    pf = f"{DEVICES}/{FIRST}"
    assert host.kernel.list("sys/class/mdev_bus") == ()
    assert turn(host, FIRST, on=True)[0] == 0
    assert host.kernel.read(f"{pf}/sriov_numvfs") == host.kernel.read(f"{pf}/sriov_totalvfs") == "32"
    assert [host.kernel.link(f"{pf}/virtfn{n}") for n in (0, 3, 4)] == [
        "0000:41:00.4",
        "0000:41:00.7",
        "0000:41:01.0",
    ]
    assert host.kernel.link(f"{DEVICES}/{vf(0)}/physfn") == FIRST
    assert host.kernel.link(f"{DEVICES}/{vf(0)}/driver") == "nvidia"
    assert FIRST not in host.kernel.list("sys/class/mdev_bus")
    assert not host.kernel.exists(f"{pf}/mdev_supported_types")


def test_a_vf_takes_one_mdev_ever():
    """hardware.md 0.3, 1.3.5: available_instances on a VF is 0 or 1; a second create there is 0x38."""
    host = with_vfs("l40s:sriov-mdev")
    assert available(host, vf(0), "L40S-1Q") == 1
    create(host, vf(0), "L40S-1Q", UUID_1)
    assert available(host, vf(0), "L40S-1Q") == 0
    assert (available(host, vf(1), "L40S-1Q"), available(host, vf(1), "L40S-2Q")) == (1, 0)
    with refused(errno.EIO):
        create(host, vf(0), "L40S-1Q", UUID_2)
    assert "NVRM: Failed to add vgpu create request: 0x38" in log_of(host)


def test_sriov_manage_is_refused_while_anybody_has_the_pf():
    """hardware.md 0.6, T21: any open client makes it fail with `Cannot obtain unbindLock`."""
    host = SimHost.in_memory("l40s")
    host.control("hold", {"parent": FIRST})
    status, output = turn(host, FIRST, on=True)
    assert status == 1
    assert f"Cannot obtain unbindLock for {FIRST}" in output
    host.control("release", {"parent": FIRST})
    assert turn(host, FIRST, on=True)[0] == 0


def test_sriov_manage_is_refused_while_a_vgpu_runs():
    """hardware.md 1.5.6: the lock is granted only when nobody uses the device."""
    host = with_vfs("l40s")
    set_type(host, 0, "L40S-8Q")
    host.control("hold", {"vgpu": vf(0)})
    assert turn(host, FIRST, on=False)[0] == 1
    assert current_type(host, 0) != "0"


def test_turning_on_what_is_on_changes_nothing():
    """hardware.md 1.5.3: -e on an enabled GPU is a no-op that succeeds."""
    host = with_vfs("l40s")
    set_type(host, 0, "L40S-8Q")
    assert turn(host, FIRST, on=True)[0] == 0
    assert current_type(host, 0) != "0"


def test_turning_off_clears_everything():
    """hardware.md 1.5.8, T2, 3.4: -d clears every type; mixed-size mode is lost in both directions."""
    host = with_vfs("l40s")
    host.control("mixed-size", {"gpu": FIRST})
    set_type(host, 0, "L40S-8Q")
    turn(host, FIRST, on=False)
    assert host.kernel.read(f"{DEVICES}/{FIRST}/sriov_numvfs") == "0"
    assert not host.kernel.exists(f"{DEVICES}/{vf(0)}")
    turn(host, FIRST, on=True)
    assert current_type(host, 0) == "0"
    assert not host.engine.state.boards[0].mixed_size


def test_mixed_size_mode_that_was_set_before_the_vfs_is_wiped():
    """hardware.md T2: heterogeneous mode set before SR-IOV reads back Enabled and is wiped."""
    host = SimHost.in_memory("l40s")
    host.control("mixed-size", {"gpu": FIRST})
    nvml = host.nvml.host(1)
    assert nvml.gpus[0].mixed_size is True
    turn(host, FIRST, on=True)
    nvml = host.nvml.host(1)
    assert nvml.gpus[0].mixed_size is False


def test_numvfs_of_nvidia_cannot_be_written():
    """hardware.md 1.5.1: a raw write is rejected by the driver."""
    host = SimHost.in_memory("l40s")
    with refused(errno.EPERM):
        host.kernel.write(f"{DEVICES}/{FIRST}/sriov_numvfs", "4")


def test_numvfs_of_others_follows_the_kernel():
    """drivers/pci/pci-sysfs.c: ERANGE above the total, EBUSY when on, 0 first."""
    host = SimHost.in_memory("mxgpu")
    numvfs = f"{DEVICES}/{FIRST}/sriov_numvfs"
    with refused(errno.ERANGE):
        host.kernel.write(numvfs, "17")
    host.kernel.write(numvfs, "4")
    with refused(errno.EBUSY):
        host.kernel.write(numvfs, "8")
    assert host.kernel.link(f"{DEVICES}/{FIRST}/virtfn3") == vf(3)
    assert not host.kernel.exists(f"{DEVICES}/{vf(0)}/driver")
    host.kernel.write(numvfs, "0")
    assert not host.kernel.exists(f"{DEVICES}/{vf(0)}")
    assert isinstance(host.nvml.host(1), Unknown)


def test_an_interrupted_sriov_manage_parks_the_pf():
    """hardware.md 1.5.5, 1.5.2: PF on pci-pf-stub with numvfs 0, unknown to NVML; -e brings it back."""
    host = with_vfs("l40s,t4")
    set_type(host, 0, "L40S-8Q")
    host.control("fail", {"what": "sriov-manage", "count": 1})
    assert turn(host, FIRST, on=False)[0] != 0
    assert host.kernel.link(f"{DEVICES}/{FIRST}/driver") == "pci-pf-stub"
    assert host.kernel.read(f"{DEVICES}/{FIRST}/sriov_numvfs") == "0"
    assert [str(gpu.address) for gpu in host.nvml.host(1).gpus] == ["0000:61:00.0"]
    assert not host.kernel.exists(f"proc/driver/nvidia/gpus/{FIRST}")
    assert turn(host, FIRST, on=True)[0] == 0
    assert host.kernel.link(f"{DEVICES}/{FIRST}/driver") == "nvidia"
    assert current_type(host, 0) == "0"


def test_vfs_are_late_and_show_pci_types_first():
    """hardware.md T18: VFs appear late and may show `pci-NNN` type dirs first."""
    host = SimHost.in_memory(
        Spec(cards=(Card(model="l40s", framework=FrameworkKind.SRIOV_MDEV, ready_delay_s=3.0),))
    )
    turn(host, FIRST, on=True)
    kind = type_id(host, "L40S-8Q")
    assert f"pci-{kind}" in host.kernel.list(types_of(vf(0)))
    assert not host.kernel.exists(f"{DEVICES}/{vf(0)}/driver")
    with refused(errno.EIO):
        host.kernel.write(f"{types_of(vf(0))}/pci-{kind}/create", UUID_1)
    assert "NVRM: Failed to add vgpu create request: 0x66" in log_of(host)
    host.clock.sleep(3.0)
    assert f"nvidia-{kind}" in host.kernel.list(types_of(vf(0)))
    create(host, vf(0), "L40S-8Q", UUID_1)
    assert host.kernel.link(f"{MDEVS}/{UUID_1}/mdev_type") == f"nvidia-{kind}"


def test_late_vendor_vfs_have_no_nvidia_directory():
    """hardware.md T18, 1.4.4: VFs appear late; the vendor's files come with the driver."""
    host = SimHost.in_memory(Spec(cards=(Card(model="l40s"),), ready_delay_s=1.0))
    turn(host, FIRST, on=True)
    assert host.kernel.exists(f"{DEVICES}/{vf(0)}")
    assert not host.kernel.exists(f"{DEVICES}/{vf(0)}/nvidia")
    host.clock.sleep(1.0)
    assert current_type(host, 0) == "0"


@pytest.mark.parametrize("address", ["0000:99:00.0", "41:00.0", ""])
def test_sriov_manage_wants_an_address_that_is_there(address):
    """hardware.md 1.5.5: a tool that passes an empty address gets nowhere."""
    host = SimHost.in_memory("l40s")
    assert turn(host, address, on=True)[0] == 1

"""What life does to a host."""

from __future__ import annotations

import errno
import threading

import pytest

from tests.sim.hosts import (
    DEVICES,
    FIRST,
    MDEVS,
    T4,
    UUID_1,
    available,
    create,
    current_type,
    log_of,
    refused,
    set_type,
    turn,
    vf,
    with_vfs,
)
from vgpuctl.errors import Conflict, GpuNotFound, InvalidInput, NoCapacity, NotFound, TypeUnknown
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import Holder
from vgpuctl.sim.host import SimHost

BOOT_ID = "proc/sys/kernel/random/boot_id"


def test_nothing_survives_a_reboot():
    """hardware.md 0.9, 1.5.9: VFs, vGPUs, holds and mixed-size mode vanish; the boot id is another."""
    host = with_vfs("t4,l40s")
    create(host, T4, "T4-4Q", UUID_1)
    host.control("hold", {"vgpu": UUID_1})
    before = host.kernel.read(BOOT_ID)
    host.control("reboot")
    assert host.kernel.read(BOOT_ID) != before
    assert host.kernel.list(MDEVS) == ()
    assert host.kernel.read(f"{DEVICES}/0000:61:00.0/sriov_numvfs") == "0"
    assert host.handles.holders() == {}


@pytest.mark.parametrize(("model", "stays"), [("a100-80", True), ("h100", False)])
@pytest.mark.parametrize("action", ["reboot", "reload-driver"])
def test_mig_mode_outlives_a_boot_on_ampere_only(model, stays, action):
    """hardware.md T20, 3.2: an InfoROM bit on Ampere; lost with the module from Hopper on."""
    host = SimHost.in_memory(model)
    host.control("mig", {"gpu": FIRST})
    host.control(action)
    assert host.nvml.host(1).gpus[0].mig_current is stays


def test_mig_is_refused_while_vfs_are_on():
    """hardware.md 1.6.7: refused while VFs are on."""
    host = with_vfs("h100")
    with pytest.raises(Conflict):
        host.control("mig", {"gpu": FIRST})


def test_ampere_takes_mig_mode_and_is_in_it_when_the_driver_finds_it_again():
    """hardware.md 3.2.1: pending while anything uses the GPU."""
    host = with_vfs("a100-80")
    assert host.control("mig", {"gpu": FIRST}) == {"pending": True}
    (gpu,) = host.nvml.host(1).gpus
    assert (gpu.mig_current, gpu.mig_pending) == (False, True)
    host.control("reload-driver")
    (gpu,) = host.nvml.host(1).gpus
    assert (gpu.mig_current, gpu.mig_pending) == (True, True)


def test_mixed_size_is_refused_while_a_vgpu_is_there():
    """hardware.md 1.6.8, 3.4: IN_USE."""
    host = with_vfs("l40s")
    set_type(host, 0, "L40S-8Q")
    with pytest.raises(Conflict):
        host.control("mixed-size", {"gpu": FIRST})


def test_the_driver_cannot_be_reloaded_while_held():
    host = with_vfs("l40s")
    set_type(host, 0, "L40S-8Q")
    boot_id = host.kernel.read(BOOT_ID)
    host.control("hold", {"vgpu": vf(0)})
    with pytest.raises(Conflict):
        host.control("reload-driver")
    host.control("release", {"vgpu": vf(0)})
    host.control("reload-driver")
    assert not host.kernel.exists(f"{DEVICES}/{vf(0)}")
    assert host.kernel.read(BOOT_ID) == boot_id


def test_a_held_vgpu_has_a_holder_and_runs():
    """hardware.md 5: NVML lists only vGPUs whose VM runs."""
    host = with_vfs("l40s")
    set_type(host, 0, "L40S-8Q")
    set_type(host, 1, "L40S-8Q")
    assert host.nvml.host(1, in_full=True).gpus[0].active == ()
    held = host.control("hold", {"vgpu": vf(0), "domain": "desk-1"})
    group = host.kernel.link(f"{DEVICES}/{vf(0)}/iommu_group")
    assert held["device"] == f"/dev/vfio/{group}"
    assert host.handles.holders() == {held["device"]: (Holder(held["pid"], "qemu-system-x86", "desk-1"),)}
    assert [each.type_id for each in host.nvml.host(1, in_full=True).gpus[0].active] == [1152]
    with pytest.raises(Conflict):
        host.control("hold", {"vgpu": vf(0)})


def test_a_holder_may_use_the_device_cdev():
    """hardware.md 1.4.9: vfio-dev/vfioN."""
    host = with_vfs("l40s")
    held = host.control("hold", {"vgpu": vf(0), "cdev": True})
    assert held["device"] == f"/dev/vfio/devices/{host.kernel.list(f'{DEVICES}/{vf(0)}/vfio-dev')[0]}"


def test_an_mdev_on_a_vf_can_be_named_by_the_vf():
    host = with_vfs("l40s:sriov-mdev")
    create(host, vf(0), "L40S-8Q", UUID_1)
    held = host.control("hold", {"vgpu": vf(0)})
    assert held["device"] == f"/dev/vfio/{host.kernel.link(f'{MDEVS}/{UUID_1}/iommu_group')}"
    host.control("release", {"vgpu": UUID_1})
    assert host.handles.holders() == {}


def test_a_fault_is_met_so_often_and_no_more():
    host = with_vfs("l40s")
    host.control("fail", {"what": "create", "count": 1})
    with refused(errno.EIO):
        set_type(host, 0, "L40S-8Q")
    assert log_of(host)[-1] == "NVRM: Failed to add vgpu create request: 0x40"
    set_type(host, 0, "L40S-8Q")
    host.control("fail", {"what": "remove", "errno": "EPERM"})
    for _ in range(2):
        with refused(errno.EPERM):
            host.kernel.write(f"{DEVICES}/{vf(0)}/nvidia/current_vgpu_type", "0")
    host.control("heal")
    host.kernel.write(f"{DEVICES}/{vf(0)}/nvidia/current_vgpu_type", "0")


def test_a_failing_gpu_fails_alone():
    host = with_vfs("t4,l40s")
    host.control("fail", {"what": "gpu", "gpu": T4, "errno": "ENODEV"})
    for path in (f"{DEVICES}/{T4}/vendor", f"{DEVICES}/{T4}/mdev_supported_types/nvidia-222/name"):
        with refused(errno.ENODEV):
            host.kernel.read(path)
    with refused(errno.ENODEV):
        host.kernel.list(f"{DEVICES}/{T4}/mdev_supported_types")
    assert host.kernel.read(f"{DEVICES}/0000:61:00.0/vendor") == "0x10de"
    assert host.kernel.read(BOOT_ID)


def test_a_hanging_gpu_hangs_its_readers_until_it_is_healed():
    host = SimHost.in_memory("t4,t4")
    host.control("fail", {"what": "gpu", "gpu": T4, "hang": True})
    answers: list[str] = []
    reader = threading.Thread(target=lambda: answers.append(host.kernel.read(f"{DEVICES}/{T4}/vendor")))
    reader.start()
    assert host.kernel.read(f"{DEVICES}/0000:61:00.0/vendor") == "0x10de"
    assert not answers
    host.control("heal")
    reader.join(timeout=10)
    assert answers == ["0x10de"]


def test_nvml_and_the_handles_can_be_unknown():
    """DESIGN.md: three answers, not two."""
    host = SimHost.in_memory("t4")
    host.control("fail", {"what": "nvml"})
    host.control("fail", {"what": "holders"})
    assert isinstance(host.nvml.host(1), Unknown)
    assert isinstance(host.handles.holders(), Unknown)
    host.control("heal")
    host.control("fail", {"what": "nvml", "hang": True})
    assert host.nvml.host(0.01) == Unknown("NVML did not answer within 0.01 s")


def test_a_gpu_that_fell_off_the_bus_is_gone_until_the_next_boot():
    host = with_vfs("l40s,t4")
    set_type(host, 0, "L40S-8Q")
    host.control("hold", {"vgpu": vf(0)})
    host.control("remove-gpu", {"gpu": "0"})
    assert FIRST not in host.kernel.list(DEVICES)
    assert vf(0) not in host.kernel.list(DEVICES)
    assert host.handles.holders() == {}
    assert any("Xid" in line for line in log_of(host))
    host.control("reboot")
    assert FIRST in host.kernel.list(DEVICES)


def test_another_card_has_another_uuid_at_the_same_address():
    """hardware.md T8: the dangerous case is the same address with another card."""
    host = with_vfs("l40s")
    before = host.nvml.host(1).gpus[0]
    set_type(host, 0, "L40S-8Q")
    swapped = host.control("swap-gpu", {"gpu": FIRST})
    after = host.nvml.host(1).gpus[0]
    assert before.uuid != after.uuid == swapped["uuid"]
    assert before.address == after.address
    turn(host, FIRST, on=True)
    assert current_type(host, 0) == "0"
    assert host.control("swap-gpu", {"gpu": FIRST})["uuid"] != swapped["uuid"]


def test_somebody_else_makes_a_vgpu():
    host = with_vfs("l40s")
    set_type(host, 0, "L40S-8Q")
    assert host.control("foreign", {"gpu": FIRST, "type": "l40s-8q"}) == {"parent": vf(1), "uuid": None}
    with pytest.raises(NoCapacity):
        host.control("foreign", {"gpu": FIRST, "type": "L40S-1Q"})
    with pytest.raises(TypeUnknown):
        host.control("foreign", {"gpu": FIRST, "type": "T4-1Q"})
    mdevs = SimHost.in_memory("t4")
    made = mdevs.control("foreign", {"gpu": T4, "type": "T4-4Q"})
    assert mdevs.kernel.list(MDEVS) == (made["uuid"],)
    assert available(mdevs, T4, "T4-4Q") == 3


@pytest.mark.parametrize(
    ("action", "arguments", "error"),
    [
        ("explode", {}, InvalidInput),
        ("hold", {}, InvalidInput),
        ("hold", {"vgpu": "0000:99:00.4"}, NotFound),
        ("hold", {"vgpu": UUID_1}, NotFound),
        ("release", {"vgpu": FIRST}, NotFound),
        ("fail", {}, InvalidInput),
        ("fail", {"what": "everything"}, InvalidInput),
        ("fail", {"what": "gpu"}, InvalidInput),
        ("fail", {"what": "read", "errno": "EWRONG"}, InvalidInput),
        ("fail", {"what": "read", "count": "many"}, InvalidInput),
        ("fail", {"what": "read", "gpu": "7"}, GpuNotFound),
        ("slow", {"ms": "much"}, InvalidInput),
        ("slow", {"ms": 1, "gpu": FIRST}, InvalidInput),
        ("busy", {"errno": "EIO"}, InvalidInput),
        ("mixed-size", {"gpu": "1"}, Conflict),
        ("mig", {"gpu": "0"}, Conflict),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(action, arguments, error):
    host = SimHost.in_memory("l40s,t4")
    before = host.engine.state
    with pytest.raises(error):
        host.control(action, arguments)
    assert host.engine.state is before


def test_an_unknown_control_lists_those_that_there_are():
    with pytest.raises(InvalidInput) as caught:
        SimHost.in_memory("t4").control("explode", {})
    assert "swap-gpu gpu" in (caught.value.hint or "")
    assert "hold [vgpu]" in (caught.value.hint or "")

"""sriov-manage, and who a GPU is (hardware.md 1.5)."""

from __future__ import annotations

import pytest
from conformance_rig import create_step, identity

from vgpuctl.errors import CardChanged, GpuNotFound, GpuState, HostFailure
from vgpuctl.model import gpu as gpus
from vgpuctl.model.fact import Unknown
from vgpuctl.model.step import SetVfs

PF = "sys/bus/pci/devices/0000:41:00.0"


def on(gpu):
    return SetVfs(gpu=identity(gpu), enabled=True)


def test_turning_on_what_is_on_is_done(host):
    """hardware.md 1.5.3: -e on an enabled GPU is a no-op that succeeds; ours does not even ask."""
    rig = host("l40s")
    rig.turn_on()
    before = rig.kernel.operations["sriov_manage"]
    rig.turn_on()
    assert rig.kernel.operations["sriov_manage"] == before
    assert rig.kernel.sriov_manage("0000:41:00.0", enable=True, timeout_s=60).exit_status == 0


def test_a_plain_write_to_sriov_numvfs_is_rejected(host):
    """hardware.md 1.5.1: sriov-manage is the only way."""
    rig = host("l40s")
    with pytest.raises(OSError):
        rig.kernel.write(f"{PF}/sriov_numvfs", "32")
    assert rig.gpu().vfs == ()


def test_another_vendors_vfs_are_made_by_a_plain_write(host):
    rig = host("mxgpu")
    gpu = rig.turn_on()
    assert len(gpu.vfs) == gpu.vfs_max > 0
    assert gpu.framework is gpus.FrameworkKind.PASSTHROUGH
    assert rig.kernel.operations["sriov_manage"] == 0
    rig.host.run(SetVfs(gpu=identity(gpu), enabled=False))
    assert rig.gpu().vfs == ()


def test_whoever_holds_the_pf_blocks_sriov_manage(host):
    """hardware.md 0.6, 1.5.6, T21: `Cannot obtain unbindLock` while anything holds the GPU open."""
    rig = host("l40s")
    rig.control("hold", parent="0000:41:00.0")
    gpu = rig.gpu()
    assert [each.command for each in gpu.holders] == ["nv-hostengine"]
    with pytest.raises(GpuState) as caught:
        rig.host.run(on(gpu))
    assert "unbindLock" in caught.value.message
    assert "DCGM" in caught.value.hint
    rig.control("release", parent="0000:41:00.0")
    assert rig.turn_on().vfs


def test_half_done_leaves_the_pf_parked_and_a_second_run_repairs_it(host):
    """hardware.md 1.5.5, T7: PF on pci-pf-stub with sriov_numvfs=0; NVML does not list it [cubecos 1459]."""
    rig = host("l40s")
    before = rig.gpu()
    rig.control("fail", what="sriov-manage", count=1)
    with pytest.raises(GpuState) as caught:
        rig.host.run(on(before))
    assert "pci-pf-stub" in caught.value.message
    parked = rig.gpu()
    assert parked.state is gpus.GpuState.PARKED
    assert isinstance(parked.uuid, Unknown)
    assert parked.device == before.device
    rig.host.run(on(before))
    assert rig.gpu().state is gpus.GpuState.READY


def test_another_card_at_the_address_stops_everything(host):
    """hardware.md T8: the dangerous case is the same address with another card."""
    rig = host("t4")
    step = create_step(rig.gpu(), "T4-4Q")
    rig.control("swap-gpu", gpu=0)
    before = rig.kernel.operations["write"]
    with pytest.raises(CardChanged) as caught:
        rig.host.run(step)
    assert step.gpu.uuid in caught.value.message
    assert rig.kernel.operations["write"] == before


def test_a_card_that_fell_off_the_bus_is_not_found(host):
    rig = host("t4,l40s")
    step = create_step(rig.gpu(0), "T4-4Q")
    rig.control("remove-gpu", gpu=0)
    assert [str(each.address) for each in rig.host.observe().gpus] == ["0000:61:00.0"]
    with pytest.raises(GpuNotFound):
        rig.host.run(step)


def test_a_driver_that_does_not_fill_the_vfs_is_said_in_time(host):
    """hardware.md 6.2: before nvidia-vgpud has run there are no types."""
    rig = host("l40s", ready_delay_s=3600)
    with pytest.raises(HostFailure) as caught:
        rig.turn_on()
    assert "32 are there, 0 of them filled" in caught.value.message
    assert rig.gpu().state is gpus.GpuState.NO_TYPES


def test_a_bystander_is_no_gpu(host):
    """A network card with SR-IOV and a BMC's display stand on every server."""
    assert [str(each.address) for each in host("t4").host.observe().gpus] == ["0000:41:00.0"]

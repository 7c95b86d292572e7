"""sriov-manage, and who a GPU is (hardware.md 1.5)."""

from __future__ import annotations

import pytest

from tests.conformance.bench import create_step, identity
from vgpuctl.errors import CardChanged, GpuNotFound, HostFailure, InvalidGpuState
from vgpuctl.model import gpu as gpus
from vgpuctl.model.fact import Unknown
from vgpuctl.model.step import SetVfs


def on(gpu):
    return SetVfs(gpu=identity(gpu), enabled=True)


def test_vfs_are_all_there_when_sriov_manage_returns_and_turning_them_on_again_is_nothing(host):
    """hardware.md 1.5.3, 1.5.7: no polling for VFs; -e on an enabled GPU succeeds, and ours does not ask."""
    bench = host("a2")
    gpu = bench.gpu()
    for _ in range(2):
        done = bench.kernel.sriov_manage(str(gpu.address), enable=True, timeout_s=60)
        assert done.exit_status == 0
        assert len(bench.gpu().vfs) == 16
    before = bench.writes()
    bench.host.run(on(gpu))
    assert bench.writes() == before


@pytest.mark.only("sim", reason="no other vendor's card stands in the rig")
def test_another_vendors_vfs_are_made_by_a_plain_write(host):
    bench = host("mxgpu")
    gpu = bench.turn_on()
    assert len(gpu.vfs) == gpu.vfs_max > 0
    assert gpu.framework is gpus.FrameworkKind.PASSTHROUGH
    assert bench.kernel.operations["sriov_manage"] == 0
    bench.host.run(SetVfs(gpu=identity(gpu), enabled=False))
    assert bench.gpu().vfs == ()


def test_whoever_holds_the_pf_blocks_sriov_manage(host):
    """hardware.md 0.6, 1.5.6, T21: `Cannot obtain unbindLock` while anything holds the GPU open."""
    bench = host("a2")
    pf = str(bench.gpu().address)
    bench.control("hold", parent=pf)
    gpu = bench.gpu()
    assert [each.command for each in gpu.holders] == ["nv-hostengine"]
    with pytest.raises(InvalidGpuState) as caught:
        bench.host.run(on(gpu))
    assert "unbindLock" in caught.value.message
    assert "DCGM" in caught.value.hint
    bench.control("release", parent=pf)
    assert bench.turn_on().vfs


def test_half_done_leaves_the_pf_parked_and_a_second_run_repairs_it(host):
    """hardware.md 1.5.5, T7: PF on pci-pf-stub with sriov_numvfs=0; NVML does not list it [cubecos 1459]."""
    bench = host("a2")
    before = bench.gpu()
    bench.control("fail", what="sriov-manage", count=1)
    with pytest.raises(InvalidGpuState) as caught:
        bench.host.run(on(before))
    assert "pci-pf-stub" in caught.value.message
    parked = bench.gpu()
    assert parked.state is gpus.GpuState.PARKED
    assert isinstance(parked.uuid, Unknown)
    assert parked.device == before.device
    bench.host.run(on(before))
    after = bench.gpu()
    assert (after.state, after.uuid) == (gpus.GpuState.READY, before.uuid)


def test_another_card_at_the_address_stops_everything(host):
    """hardware.md T8: the dangerous case is the same address with another card."""
    bench = host("t4")
    step = create_step(bench.gpu(), "T4-4Q")
    bench.control("swap-gpu", gpu=0)
    before = bench.writes()
    with pytest.raises(CardChanged) as caught:
        bench.host.run(step)
    assert step.gpu.uuid in caught.value.message
    assert bench.writes() == before


def test_a_card_that_fell_off_the_bus_is_not_found(host):
    bench = host("t4,a2")
    lost, other = bench.host.observe().gpus
    mark = bench.newest_line()
    bench.control("remove-gpu", gpu=0)
    assert "79, GPU has fallen off the bus" in bench.said_since(mark)
    assert [each.address for each in bench.host.observe().gpus] == [other.address]
    with pytest.raises(GpuNotFound):
        bench.host.run(create_step(lost, "T4-4Q"))


def test_a_driver_that_does_not_fill_the_vfs_is_said_in_time(host):
    """hardware.md 6.2: before nvidia-vgpud has run there are no types."""
    bench = host("a2", ready_delay_s=3600, vfs_timeout_s=3)
    with pytest.raises(HostFailure) as caught:
        bench.turn_on()
    assert "16 are there, 0 of them filled" in caught.value.message
    assert bench.gpu().state is gpus.GpuState.NO_TYPES


@pytest.mark.read_only
def test_a_bystander_is_no_gpu(host):
    """A network card with SR-IOV and a BMC's display stand on every server."""
    bench = host("t4")
    (gpu,) = bench.host.observe().gpus
    assert gpu.device.vendor == 0x10DE
    assert len(bench.kernel.list("sys/bus/pci/devices")) > 1


def test_nothing_but_mig_on_ampere_outlives_the_driver(host):
    """hardware.md 0.9, 1.5.9, 3.2.1, 3.2.2, T20: VFs are off again; from Hopper on MIG mode is off too."""
    bench = host("a30,h100,t4")
    for index in (0, 1):
        bench.control("mig", gpu=index, enabled=True)
    bench.create(bench.gpu(2), "T4-4Q")
    ampere, hopper, turing = (each.address for each in bench.host.observe().gpus)
    bench.turn_on(0)
    bench.control("reload-driver")
    after = {each.address: each for each in bench.host.observe().gpus}
    assert (after[ampere].mig, after[hopper].mig) == (True, False)
    assert {each.state for each in (after[ampere], after[hopper])} == {gpus.GpuState.VFS_OFF}
    assert after[turing].vgpus == ()

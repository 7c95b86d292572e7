"""What sources disagree about, or nobody wrote down: vgpuctl has to be right either way."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from tests.conformance.bench import create_step, held_name, identity, removal
from tests.conformance.test_conformance_mig_steps import cut
from vgpuctl.errors import KernelRefused, RemovalBlocked, VgpuBusy
from vgpuctl.host.frameworks.mdev_types import TypeMemory
from vgpuctl.host.frameworks.vendor_vfio import VendorVfioFramework
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.gpu import GpuState
from vgpuctl.model.step import SetVfs
from vgpuctl.sim.state import Disputed


@pytest.mark.parametrize("answer", ["EPERM", "EBUSY"])
def test_clearing_a_vf_in_use_is_busy(host, answer):
    """hardware.md 8.3: EPERM and "busy" were both reported; asked below the check of open handles."""
    bench = host("a2", vfs=True, disputed=Disputed(clear_held=answer))
    step = bench.create(bench.gpu(), "A2-8Q")
    bench.control("hold", vgpu=held_name(step), domain="desk")
    framework = VendorVfioFramework(bench.kernel, bench.clock, TypeMemory())
    with pytest.raises(VgpuBusy) as caught:
        framework.remove(removal(step))
    assert answer in caught.value.message
    assert bench.vgpu(step) is not None
    bench.control("release", vgpu=held_name(step))
    bench.host.run(removal(step))
    assert bench.vgpu(step) is None


def test_clearing_a_vf_in_use_may_block_as_the_removal_of_an_mdev_does(host):
    """hardware.md 1.4.12, 8.3: the write waits for whoever holds it, in a process that can be left alone."""
    bench = host("a2", vfs=True, disputed=Disputed(clear_held="block"))
    step = bench.create(bench.gpu(), "A2-8Q")
    bench.control("hold", vgpu=held_name(step), domain="desk")
    framework = VendorVfioFramework(bench.kernel, bench.clock, TypeMemory(), removal_timeout_s=3)
    with pytest.raises(RemovalBlocked):
        framework.remove(removal(step))
    with pytest.raises(VgpuBusy):
        bench.host.run(removal(step))
    bench.control("release", vgpu=held_name(step))
    bench.host.run(removal(step))
    assert bench.vgpu(step) is None


@pytest.mark.parametrize("is_writable", [False, True])
def test_placement_and_gpu_instance_are_read_the_same_whether_they_can_be_written_or_not(host, is_writable):
    """hardware.md 1.2.3, 1.2.4, 8.2: without MIG vgpuctl writes neither; one that was moved is seen there."""
    bench = host(
        "a2",
        vfs=True,
        mixed_size=True,
        disputed=Disputed(placement_writable=is_writable, gi_writable=is_writable),
    )
    step = bench.create(bench.gpu(), "A2-4Q")
    assert bench.vgpu(step).placement_id == 0
    path = f"sys/bus/pci/devices/{step.parent}/nvidia"
    if is_writable:
        bench.kernel.write(f"{path}/placement_id", "8")
        assert bench.vgpu(step).placement_id == 8
        with pytest.raises(OSError):
            bench.kernel.write(f"{path}/placement_id", "3")
    else:
        with pytest.raises(OSError):
            bench.kernel.write(f"{path}/placement_id", "8")
        assert bench.vgpu(step).placement_id == 0
    with pytest.raises(OSError):
        bench.kernel.write(f"{path}/gpu_instance_id", "1")  # there is none
    assert bench.vgpu(step).gpu_instance_id is None


@pytest.mark.parametrize("is_writable", [False, True])
def test_a_vgpu_is_moved_to_its_gpu_instance_where_the_driver_lets_that_be_chosen(host, is_writable):
    """hardware.md 1.2.4, 3.3.3: by the mode of the file, never by a try; else the driver's choice stays."""
    bench = host("a100-80:vendor-vfio", mig=True, vfs=True, disputed=Disputed(gi_writable=is_writable))
    path = f"sys/bus/pci/devices/{bench.gpu().vfs[0].address}/nvidia"
    assert bench.kernel.is_writable(f"{path}/gpu_instance_id") is is_writable
    assert bench.kernel.is_writable(f"{path}/current_vgpu_type")
    assert not bench.kernel.is_writable(f"{path}/no_such_file")
    cut(bench, "2g.20gb", 0)
    cut(bench, "2g.20gb", 2)
    first, second = sorted(bench.gpu().gpu_instances, key=lambda each: each.id)
    step = create_step(bench.gpu(), "A100D-2-20C")
    bench.host.run(replace(step, instance=second.place, instance_id=second.id))
    assert bench.vgpu(step).gpu_instance_id == (second if is_writable else first).id
    bench.host.run(removal(step))
    bench.host.run(replace(step, instance=second.place))  # an id that shows only once it is cut
    assert bench.vgpu(step).gpu_instance_id == (second if is_writable else first).id
    other = create_step(bench.gpu(), "A100D-2-20C")
    taken = second if is_writable else first
    bench.host.run(replace(other, instance=taken.place, instance_id=taken.id))
    assert bench.vgpu(other) is not None, "what the driver refuses is no failure: it stays where it is"
    assert bench.vgpu(other).gpu_instance_id == (first if is_writable else second).id


@pytest.mark.parametrize("has_header", [True, False])
def test_creatable_types_are_read_with_and_without_their_header(host, has_header):
    """hardware.md 1.4.5: `ID    : vGPU Name`, then `1147  : NVIDIA L40S-1Q`; samples without it exist."""
    bench = host("a2", vfs=True, disputed=Disputed(creatable_header=has_header))
    gpu = bench.gpu()
    lines = bench.kernel.read(
        f"sys/bus/pci/devices/{gpu.vfs[0].address}/nvidia/creatable_vgpu_types"
    ).splitlines()
    if has_header:
        assert lines.pop(0).split() == ["ID", ":", "vGPU", "Name"]
    assert known(gpu.creatable) == frozenset(int(line.split()[0]) for line in lines)
    assert {"A2-1Q", "A2-16Q", "A2-4A"} <= bench.creatable()
    bench.create(gpu, "A2-16Q")
    assert bench.gpu().creatable == frozenset()


def test_a_legacy_card_without_types_is_a_state(host):
    """hardware.md 1.4.3: whether a T4 has an mdev tree on kernel 6.8 is disputed; none is reported."""
    bench = host("t4", disputed=Disputed(mdev_tree=False))
    gpu = bench.gpu()
    assert gpu.state is GpuState.NO_TYPES
    assert "nvidia offers no vGPU types" in gpu.state_reason
    assert isinstance(gpu.creatable, Unknown)
    assert (gpu.framework, gpu.vgpus) == (None, ())


@pytest.mark.parametrize("answer", ["EPERM", "ENOENT", "EIO"])
def test_a_plain_write_to_sriov_numvfs_is_rejected(host, answer):
    """hardware.md 1.5.1: sriov-manage is the only way, and what a refusal names, whatever its errno."""
    bench = host("a2", sriov_manage=False, disputed=Disputed(numvfs_errno=answer))
    gpu = bench.gpu()
    with pytest.raises(OSError) as low:
        bench.kernel.write(f"{bench.pf()}/sriov_numvfs", "16")
    assert low.value.errno == getattr(errno, answer)
    with pytest.raises(KernelRefused) as caught:
        bench.host.run(SetVfs(gpu=identity(gpu), enabled=True))
    assert caught.value.facts["errno"] == answer
    assert "sriov-manage" in caught.value.hint
    assert bench.gpu().vfs == ()


def test_placement_and_gpu_instance_answer_enxio_while_there_is_no_vgpu(host):
    """hardware.md 1.4.7: ENXIO until a vGPU exists."""
    bench = host("a2", vfs=True)
    step = create_step(bench.gpu(), "A2-8Q")
    for name in ("gpu_instance_id", "placement_id"):
        with pytest.raises(OSError) as caught:
            bench.kernel.read(f"sys/bus/pci/devices/{step.parent}/nvidia/{name}")
        assert caught.value.errno == errno.ENXIO
    bench.host.run(step)
    assert bench.vgpu(step).gpu_instance_id is None
    assert not isinstance(bench.vgpu(step).placement_id, Unknown)

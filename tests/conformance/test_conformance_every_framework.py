"""What holds in every framework, on every host."""

from __future__ import annotations

import pytest

from tests.conformance.bench import Bench, create_step, held_name, new_params, removal
from vgpuctl.errors import Conflict, KernelRefused, VgpuBusy
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.step import SetVfs


def a_type(bench: Bench, fb_mib: int) -> str:
    return next(each.name for each in bench.gpu().types if each.fb_mib == fb_mib and each.series == "Q")


def test_a_created_vgpu_is_seen_with_its_type_and_is_gone_after_removal(ready):
    name = a_type(ready, 4096)
    step = ready.create(ready.gpu(), name)
    seen = ready.vgpu(step)
    assert (seen.type_id, seen.type_name, seen.parent) == (step.type_id, name, step.parent)
    assert seen.framework is step.framework
    assert seen.holders == ()
    ready.host.run(removal(step))
    assert ready.gpu().vgpus == ()


def test_what_exists_is_not_created_over_and_removal_done_twice_is_done_once(ready):
    """hardware.md T11: a VF path is reused; the same type on it may be somebody else's."""
    step = ready.create(ready.gpu(), a_type(ready, 4096), params="frame_rate_limiter=0")
    before = ready.writes()
    if step.framework is FrameworkKind.VENDOR_VFIO:
        with pytest.raises(Conflict):
            ready.host.run(step)
    else:
        ready.host.run(step)
    assert ready.writes() == before
    ready.host.run(removal(step))
    ready.host.run(removal(step))
    assert ready.gpu().vgpus == ()


def test_another_size_is_refused_and_the_nvrm_code_says_why(ready):
    """hardware.md 0.2, 1.4.10: only types of the same frame buffer; EIO, and 0x56 in the kernel log."""
    ready.create(ready.gpu(), a_type(ready, 4096))
    with pytest.raises(KernelRefused) as caught:
        ready.host.run(create_step(ready.gpu(), a_type(ready, 2048)))
    assert caught.value.facts["errno"] == "EIO"
    assert caught.value.facts["nvrm"] == "0x56"
    assert "another frame-buffer size" in caught.value.message


def test_types_of_one_size_may_mix_and_all_come_back_when_the_last_is_gone(ready):
    """hardware.md 0.2: A, B, C and Q of one size mix; it resets only when the count is 0 again."""
    everything = ready.creatable()
    step = ready.create(ready.gpu(), a_type(ready, 2048))
    same = {each.name for each in ready.gpu().types if each.fb_mib == 2048}
    assert len(same) > 1
    assert ready.creatable() == same
    ready.host.run(removal(step))
    assert ready.creatable() == everything


def test_params_are_written_as_a_whole_and_a_space_clears_them(ready):
    """hardware.md 1.2.2, 1.4.8: one parameter cannot be cleared by itself."""
    step = ready.create(ready.gpu(), a_type(ready, 4096), params="frame_rate_limiter=0,disable_vnc=1")
    assert ready.vgpu(step).params == "frame_rate_limiter=0,disable_vnc=1"
    ready.host.run(new_params(step, "enable_uvm=1"))
    assert ready.vgpu(step).params == "enable_uvm=1"
    ready.host.run(new_params(step, ""))
    assert ready.vgpu(step).params == ""


def test_parameters_are_not_written_to_what_stands_there_instead(ready):
    """hardware.md T11: the place of a vGPU is reused, here by one of another type."""
    step = ready.create(ready.gpu(), a_type(ready, 4096))
    ready.host.run(removal(step))
    place = {"parent": step.parent, "vgpu": step.vgpu}
    ready.host.run(create_step(ready.gpu(), a_type(ready, 8192), **place, params="disable_vnc=1"))
    before = ready.writes()
    with pytest.raises(Conflict):
        ready.host.run(new_params(step, "frame_rate_limiter=0"))
    assert ready.writes() == before
    assert [each.params for each in ready.gpu().vgpus] == ["disable_vnc=1"]


def test_a_held_vgpu_is_not_removed(ready):
    """hardware.md 1.6.1, 1.4.12, T9: check for open VFIO handles first; the removal would never return."""
    step = ready.create(ready.gpu(), a_type(ready, 4096))
    ready.control("hold", vgpu=held_name(step), domain="desk-7")
    before = ready.writes()
    with pytest.raises(VgpuBusy) as caught:
        ready.host.run(removal(step))
    assert [each["domain"] for each in caught.value.facts["holders"]] == ["desk-7"]
    assert ready.writes() == before
    assert [each.domain for each in ready.vgpu(step).holders] == ["desk-7"]


@pytest.mark.only("sim", reason="Debian's kernels are built without VFIO character devices")
def test_a_holder_by_the_character_device_counts_too(ready):
    """hardware.md 1.4.9: a VF has a cdev, vfio-dev/vfio<N>, beside its group."""
    step = ready.create(ready.gpu(), a_type(ready, 4096))
    ready.control("hold", vgpu=held_name(step), domain="desk-7", cdev=True)
    assert [each.domain for each in ready.vgpu(step).holders] == ["desk-7"]
    with pytest.raises(VgpuBusy):
        ready.host.run(removal(step))


@pytest.mark.only(
    "sim", reason="a case in the guest does not outlive its reboot; the product's tests reboot one"
)
def test_nothing_survives_a_reboot(ready):
    """hardware.md 0.9, 1.5.9: VFs and vGPUs vanish; the boot id says so."""
    ready.create(ready.gpu(), a_type(ready, 4096))
    before = ready.host.observe().boot_id
    ready.control("reboot")
    after = ready.host.observe()
    assert after.boot_id != before
    assert after.vgpus() == ()
    assert after.gpus[0].vfs == ()


def test_a_refusal_is_told_and_the_same_step_works_later(ready):
    ready.control("fail", what="create", count=1, errno="EIO")
    step = create_step(ready.gpu(), a_type(ready, 4096))
    with pytest.raises(KernelRefused):
        ready.host.run(step)
    ready.host.run(step)
    assert ready.vgpu(step) is not None


def test_capacity_is_counted_at_creation(ready):
    """hardware.md 0.4, 1.4.10: memory is taken at VM start, the count is not; 0x1A when it is full."""
    biggest = max((each for each in ready.gpu().types if each.series == "Q"), key=lambda each: each.fb_mib)
    ready.create(ready.gpu(), biggest.name)
    assert biggest.name not in ready.creatable()
    with pytest.raises(KernelRefused) as caught:
        ready.host.run(create_step(ready.gpu(), biggest.name))
    assert caught.value.facts["nvrm"] == "0x1a"


@pytest.mark.parametrize("card", ["a2:sriov-mdev", "a2"], scope="module")
def test_turning_vfs_off_under_a_vgpu_is_refused(ready):
    """hardware.md 1.5.8, T9: sriov-manage -d clears every type; never under a consumer."""
    gpu = ready.gpu()
    step = ready.create(gpu, a_type(ready, 4096))
    with pytest.raises(VgpuBusy):
        ready.host.run(SetVfs(gpu=step.gpu, enabled=False))
    assert ready.vgpu(step) is not None

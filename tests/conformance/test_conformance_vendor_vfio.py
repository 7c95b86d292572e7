"""The vendor framework (hardware.md 1.4)."""

from __future__ import annotations

import errno

import pytest

from tests.conformance.bench import create_step, removal
from vgpuctl.errors import Conflict, GpuState, KernelRefused
from vgpuctl.host.frameworks.mdev_types import TypeMemory
from vgpuctl.host.frameworks.vendor_vfio import VendorVfioFramework
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import FrameworkKind


@pytest.fixture
def l40s(host):
    return host("l40s", vfs=True)


def nvidia(address, name):
    return f"sys/bus/pci/devices/{address}/nvidia/{name}"


def fails_with(number, call, *arguments):
    with pytest.raises(OSError) as caught:
        call(*arguments)
    assert caught.value.errno == number


def test_the_files_are_on_the_vf_only_and_it_stays_bound_to_nvidia(l40s):
    """hardware.md 1.4.4, 1.4.9: the PF has no nvidia/; the VF is not on vfio-pci."""
    gpu = l40s.gpu()
    assert gpu.framework is FrameworkKind.VENDOR_VFIO
    assert not l40s.kernel.exists(f"sys/bus/pci/devices/{gpu.address}/nvidia")
    l40s.create(gpu, "L40S-8Q")
    assert {vf.driver for vf in l40s.gpu().vfs} == {"nvidia"}


def test_the_first_write_collapses_what_the_siblings_take(l40s):
    """hardware.md 0.5, T12, T16: creatable_vgpu_types shrinks as siblings are created."""
    l40s.create(l40s.gpu(), "L40S-48Q")
    assert l40s.gpu().creatable == frozenset()
    text = l40s.kernel.read(nvidia(l40s.gpu().vfs[1].address, "creatable_vgpu_types"))
    assert len(text.splitlines()) <= 1


def test_a_type_that_is_no_longer_listed_keeps_its_name(l40s):
    """hardware.md 0.5: the id->name map must come from NVML."""
    step = l40s.create(l40s.gpu(), "L40S-48Q")
    assert l40s.vgpu(step).type_name == "L40S-48Q"
    assert l40s.gpu().type_named("L40S-8Q") is not None


def test_without_nvml_the_catalogue_names_the_types(l40s):
    """hardware.md 0.5: a host without NVML is no host without names."""
    step = create_step(l40s.gpu(), "L40S-48Q")
    l40s.kernel.write(nvidia(step.parent, "current_vgpu_type"), str(step.type_id))
    l40s.control("fail", what="nvml")
    seen = l40s.vgpu(step)
    assert (seen.type_id, seen.type_name) == (step.type_id, "L40S-48Q")
    assert isinstance(l40s.gpu().fb_mib, Unknown)


def test_what_was_listed_once_is_remembered(l40s):
    """hardware.md 0.5: where neither NVML nor the catalogue knows a type, the listing did."""
    gpu = l40s.gpu()
    framework = VendorVfioFramework(l40s.kernel, l40s.clock, TypeMemory())
    framework.view(gpu.address, gpu.vfs)
    l40s.create(gpu, "L40S-48Q")
    (seen,) = framework.view(gpu.address, gpu.vfs).vgpus
    assert seen.type_name == "L40S-48Q"


def test_a_set_vf_refuses_even_the_same_id(l40s):
    """hardware.md T17, 6.2: EPERM until 0 is written; hence look before writing."""
    step = l40s.create(l40s.gpu(), "L40S-8Q")
    path = nvidia(step.parent, "current_vgpu_type")
    fails_with(errno.EPERM, l40s.kernel.write, path, str(step.type_id))
    before = l40s.writes()
    with pytest.raises(Conflict):
        l40s.host.run(step)
    assert l40s.writes() == before


def test_clearing_an_empty_vf_is_fine(l40s):
    """hardware.md 1.4.6: 0 = none; write a decimal id to create, 0 to delete."""
    path = nvidia(l40s.gpu().vfs[0].address, "current_vgpu_type")
    assert l40s.kernel.read(path) == "0"
    l40s.kernel.write(path, "0")
    number = l40s.gpu().type_named("L40S-8Q").type_id
    l40s.kernel.write(path, f"{number}\n")
    assert l40s.kernel.read(path) == str(number)
    l40s.kernel.write(path, "0\n")
    assert l40s.kernel.read(path) == "0"


def test_a_vf_with_another_type_is_a_conflict_not_cleared(l40s):
    step = l40s.create(l40s.gpu(), "L40S-8Q")
    with pytest.raises(Conflict):
        l40s.create(l40s.gpu(), "L40S-8A", parent=step.parent)
    assert l40s.vgpu(step).type_name == "L40S-8Q"


def test_what_is_no_number_is_einval_and_what_is_no_type_is_0x57(l40s):
    """hardware.md 1.4.10, 6.3: the errno is all that user space gets."""
    path = nvidia(l40s.gpu().vfs[0].address, "current_vgpu_type")
    fails_with(errno.EINVAL, l40s.kernel.write, path, "L40S-8Q")
    gpu = l40s.gpu()
    step = create_step(gpu, "L40S-8Q")
    wrong = type(step)(**{name: getattr(step, name) for name in step.__slots__} | {"type_id": 3})
    with pytest.raises(KernelRefused) as caught:
        l40s.host.run(wrong)
    assert caught.value.facts["nvrm"] == "0x57"


def test_a_late_removal_does_not_hit_the_next_owner(l40s):
    """hardware.md 1.4.13, T11: a VF path is reused between owners."""
    step = l40s.create(l40s.gpu(), "L40S-8Q")
    l40s.host.run(removal(step))
    l40s.create(l40s.gpu(), "L40S-8A", parent=step.parent)
    l40s.host.run(removal(step))
    assert [each.type_name for each in l40s.gpu().vgpus] == ["L40S-8A"]


def test_a_vf_that_went_away_is_a_state_of_the_gpu(l40s):
    gpu = l40s.gpu()
    step = create_step(gpu, "L40S-8Q")
    l40s.control("reboot")
    with pytest.raises(GpuState):
        l40s.host.run(step)

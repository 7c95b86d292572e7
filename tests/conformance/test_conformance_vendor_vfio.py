"""The vendor framework (hardware.md 1.4)."""

from __future__ import annotations

import errno

import pytest

from tests.conformance.bench import create_step, removal
from vgpuctl.errors import Conflict, InvalidGpuState, KernelRefused
from vgpuctl.host.frameworks.mdev_types import TypeMemory
from vgpuctl.host.frameworks.vendor_vfio import VendorVfioFramework
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import FrameworkKind


@pytest.fixture
def a2(host):
    return host("a2", vfs=True)


def nvidia(address, name):
    return f"sys/bus/pci/devices/{address}/nvidia/{name}"


def fails_with(number, call, *arguments):
    with pytest.raises(OSError) as caught:
        call(*arguments)
    assert caught.value.errno == number


def test_the_files_are_on_the_vf_only_and_it_stays_bound_to_nvidia(a2):
    """hardware.md 1.4.4, 1.4.9: the PF has no nvidia/; the VF is not on vfio-pci."""
    gpu = a2.gpu()
    assert gpu.framework is FrameworkKind.VENDOR_VFIO
    assert not a2.kernel.exists(f"sys/bus/pci/devices/{gpu.address}/nvidia")
    a2.create(gpu, "A2-8Q")
    assert {vf.driver for vf in a2.gpu().vfs} == {"nvidia"}


def test_the_first_write_collapses_what_the_siblings_take(a2):
    """hardware.md 0.5, T12, T16: creatable_vgpu_types shrinks as siblings are created."""
    a2.create(a2.gpu(), "A2-16Q")
    assert a2.gpu().creatable == frozenset()
    text = a2.kernel.read(nvidia(a2.gpu().vfs[1].address, "creatable_vgpu_types"))
    assert len(text.splitlines()) <= 1


def test_a_type_that_is_no_longer_listed_keeps_its_name(a2):
    """hardware.md 0.5: the id->name map must come from NVML."""
    step = a2.create(a2.gpu(), "A2-16Q")
    assert a2.vgpu(step).type_name == "A2-16Q"
    assert a2.gpu().type_named("A2-8Q") is not None


def test_without_nvml_the_catalogue_names_the_types(a2):
    """hardware.md 0.5: a host without NVML is no host without names."""
    step = create_step(a2.gpu(), "A2-16Q")
    a2.kernel.write(nvidia(step.parent, "current_vgpu_type"), str(step.type_id))
    a2.control("fail", what="nvml")
    seen = a2.vgpu(step)
    assert (seen.type_id, seen.type_name) == (step.type_id, "A2-16Q")
    assert isinstance(a2.gpu().fb_mib, Unknown)


def test_what_was_listed_once_is_remembered(a2):
    """hardware.md 0.5: where neither NVML nor the catalogue knows a type, the listing did."""
    gpu = a2.gpu()
    framework = VendorVfioFramework(a2.kernel, a2.clock, TypeMemory())
    framework.view(gpu.address, gpu.vfs)
    a2.create(gpu, "A2-16Q")
    (seen,) = framework.view(gpu.address, gpu.vfs).vgpus
    assert seen.type_name == "A2-16Q"


def test_a_set_vf_refuses_even_the_same_id(a2):
    """hardware.md T17, 6.2: EPERM until 0 is written; hence look before writing."""
    step = a2.create(a2.gpu(), "A2-8Q")
    path = nvidia(step.parent, "current_vgpu_type")
    fails_with(errno.EPERM, a2.kernel.write, path, str(step.type_id))
    before = a2.writes()
    with pytest.raises(Conflict):
        a2.host.run(step)
    assert a2.writes() == before


def test_clearing_an_empty_vf_is_fine(a2):
    """hardware.md 1.4.6: 0 = none; write a decimal id to create, 0 to delete."""
    path = nvidia(a2.gpu().vfs[0].address, "current_vgpu_type")
    assert a2.kernel.read(path) == "0"
    a2.kernel.write(path, "0")
    number = a2.gpu().type_named("A2-8Q").type_id
    a2.kernel.write(path, f"{number}\n")
    assert a2.kernel.read(path) == str(number)
    a2.kernel.write(path, "0\n")
    assert a2.kernel.read(path) == "0"


def test_a_vf_with_another_type_is_a_conflict_not_cleared(a2):
    step = a2.create(a2.gpu(), "A2-8Q")
    with pytest.raises(Conflict):
        a2.create(a2.gpu(), "A2-8A", parent=step.parent)
    assert a2.vgpu(step).type_name == "A2-8Q"


def test_what_is_no_number_is_einval_and_what_is_no_type_is_0x57(a2):
    """hardware.md 1.4.10, 6.3: the errno is all that user space gets."""
    path = nvidia(a2.gpu().vfs[0].address, "current_vgpu_type")
    fails_with(errno.EINVAL, a2.kernel.write, path, "A2-8Q")
    gpu = a2.gpu()
    step = create_step(gpu, "A2-8Q")
    wrong = type(step)(**{name: getattr(step, name) for name in step.__slots__} | {"type_id": 3})
    with pytest.raises(KernelRefused) as caught:
        a2.host.run(wrong)
    assert caught.value.facts["nvrm"] == "0x57"


def test_a_late_removal_does_not_hit_the_next_owner(a2):
    """hardware.md 1.4.13, T11: a VF path is reused between owners."""
    step = a2.create(a2.gpu(), "A2-8Q")
    a2.host.run(removal(step))
    a2.create(a2.gpu(), "A2-8A", parent=step.parent)
    a2.host.run(removal(step))
    assert [each.type_name for each in a2.gpu().vgpus] == ["A2-8A"]


def test_a_vf_that_went_away_is_a_state_of_the_gpu(a2):
    gpu = a2.gpu()
    step = create_step(gpu, "A2-8Q")
    a2.control("reload-driver")
    with pytest.raises(InvalidGpuState):
        a2.host.run(step)

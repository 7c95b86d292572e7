"""GPU instances and MIG-backed vGPUs (hardware.md 3), made by NVML as an administrator would."""

from __future__ import annotations

import ctypes

import pynvml
import pytest

from tests.conformance import smi
from tests.conformance.bench import create_step, held_name, identity, removal
from vgpuctl.errors import KernelRefused
from vgpuctl.model.fact import known
from vgpuctl.model.step import SetVfs

pytestmark = pytest.mark.only(
    "rig", reason="these ask NVML past vgpuctl, by its binding; by vgpuctl's own steps MIG runs on both"
)


@pytest.fixture
def h100(host):
    """One whose MIG mode and VFs are on."""
    return host("h100", mig=True, vfs=True)


@pytest.fixture
def blackwell(host):
    return host("rtx-pro-6000", mig=True, vfs=True)


def nvidia(address, name):
    return f"sys/bus/pci/devices/{address}/nvidia/{name}"


def fails_with(code, call, *arguments):
    with pytest.raises(pynvml.NVMLError) as caught:
        call(*arguments)
    assert caught.value.value == code


def test_profiles_lie_where_the_catalogue_says(h100):
    """hardware.md 3.1.1, 3.1.2, 3.1.6: start slices and sizes; the id is not NVML's number of the profile."""
    with smi.device(h100.gpu().address) as gpu:
        ids = {name: info.id for name, info in smi.gi_profiles(gpu).items()}
        assert ids == {
            "1g.10gb": 19,
            "1g.10gb+me": 20,
            "1g.20gb": 15,
            "2g.20gb": 14,
            "3g.40gb": 9,
            "4g.40gb": 5,
            "7g.80gb": 0,
        }
        assert smi.possible_placements(gpu, "1g.10gb") == ([0, 1, 2, 3, 4, 5, 6], 1)
        assert smi.possible_placements(gpu, "1g.20gb") == ([0, 2, 4, 6], 2)
        assert smi.possible_placements(gpu, "2g.20gb") == ([0, 2, 4], 2)
        assert smi.possible_placements(gpu, "3g.40gb") == ([0, 4], 4)
        assert smi.possible_placements(gpu, "4g.40gb") == ([0], 4)
        assert smi.possible_placements(gpu, "7g.80gb") == ([0], 8)


def test_what_is_free_is_counted_on_the_placement_axis(h100):
    """hardware.md 3.1.3, 3.1.4, 3.1.5: one 3g drops the free 1g from 7 to 3; 4g and 3g fill the card."""
    with smi.device(h100.gpu().address) as gpu:
        assert smi.free(gpu, "1g.10gb") == 7
        first = smi.make_gi(gpu, "3g.40gb", start=0)
        assert smi.free(gpu, "1g.10gb") == 3
        assert smi.free(gpu, "4g.40gb") == 0
        pynvml.nvmlGpuInstanceDestroy(first)
        smi.make_gi(gpu, "4g.40gb")
        smi.make_gi(gpu, "3g.40gb")
        made = smi.gis(gpu).values()
        assert {(each.placement.start, each.placement.size) for each in made} == {(0, 4), (4, 4)}
        assert {name: smi.free(gpu, name) for name in ("1g.10gb", "2g.20gb", "7g.80gb")} == {
            "1g.10gb": 0,
            "2g.20gb": 0,
            "7g.80gb": 0,
        }
        fails_with(pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES, smi.make_gi, gpu, "1g.10gb")


def test_a_vgpu_lands_in_the_first_gpu_instance_of_its_profile(h100):
    """hardware.md 1.4.7, 3.3.1, 3.3.2, 3.3.3, 3.3.4: the driver chooses; no compute instance is needed."""
    with smi.device(h100.gpu().address) as gpu:
        for name in ("3g.40gb", "1g.10gb", "1g.10gb"):
            smi.make_gi(gpu, name)
        profile = smi.gi_profiles(gpu)["1g.10gb"].id
        small = sorted(number for number, info in smi.gis(gpu).items() if info.profileId == profile)
    assert h100.creatable() == {"H100-3-40C", "H100-1-10C"}
    first = h100.create(h100.gpu(), "H100-1-10C")
    second = h100.create(h100.gpu(), "H100-1-10C")
    assert [h100.vgpu(each).gpu_instance_id for each in (first, second)] == small
    assert h100.creatable() == {"H100-3-40C"}
    with pytest.raises(KernelRefused) as caught:
        h100.host.run(create_step(h100.gpu(), "H100-1-10C"))
    assert caught.value.facts["nvrm"] == "0x40"
    h100.host.run(removal(first))
    assert "H100-1-10C" in h100.creatable()


def test_the_media_engines_have_to_match_exactly(h100):
    """hardware.md 3.3.3: 1g.10gb+me takes a type ...CME only, and a plain instance none."""
    address = h100.gpu().address
    with smi.device(address) as gpu:
        smi.make_gi(gpu, "1g.10gb")
    assert h100.creatable() == {"H100-1-10C"}
    with smi.device(address) as gpu:
        smi.destroy_gis(gpu)
        smi.make_gi(gpu, "1g.10gb+me")
    assert h100.creatable() == {"H100-1-10CME"}


def test_sriov_manage_takes_the_gpu_instances_and_keeps_the_mode(h100):
    """hardware.md 0.6, 1.5.2, T3: MIG mode survives, GPU instances do not."""
    address = h100.gpu().address
    with smi.device(address) as gpu:
        smi.make_gi(gpu, "3g.40gb")
    for enabled in (False, True):
        h100.host.run(SetVfs(gpu=identity(h100.gpu()), enabled=enabled))
    with smi.device(address) as gpu:
        assert smi.gis(gpu) == {}
    assert h100.gpu().mig is True
    assert h100.creatable() == set()


def test_a_gpu_instance_in_use_is_not_destroyed(h100):
    """hardware.md 1.6.6: with a compute instance or a vGPU on it NVML answers IN_USE."""
    with smi.device(h100.gpu().address) as gpu:
        instance = smi.make_gi(gpu, "1g.10gb")
        compute = smi.make_ci(instance)
        fails_with(pynvml.NVML_ERROR_IN_USE, pynvml.nvmlGpuInstanceDestroy, instance)
        pynvml.nvmlComputeInstanceDestroy(compute)
    step = h100.create(h100.gpu(), "H100-1-10C")
    with smi.device(h100.gpu().address) as gpu:
        (number,) = smi.gis(gpu)
        handle = pynvml.nvmlDeviceGetGpuInstanceById(gpu, number)
        fails_with(pynvml.NVML_ERROR_IN_USE, pynvml.nvmlGpuInstanceDestroy, handle)
    h100.host.run(removal(step))
    with smi.device(h100.gpu().address) as gpu:
        smi.destroy_gis(gpu)
        assert smi.gis(gpu) == {}


def test_several_vgpus_share_a_gpu_instance_of_blackwell(blackwell):
    """hardware.md 3.4.1, 3.4.2, T13: one size per instance, series may differ; 8 of 3 GB fit into 24 GB."""
    address = blackwell.gpu().address
    with smi.device(address) as gpu:
        smi.make_gi(
            gpu, next(name for name in smi.gi_profiles(gpu) if name.startswith("1g.") and "+gfx" in name)
        )
        assert pynvml.nvmlDeviceGetVgpuCapabilities(gpu, 10) == 1
    listed = nvidia(blackwell.gpu().vfs[0].address, "creatable_vgpu_types")
    assert "NVIDIA RTX Pro 6000 Blackwell DC-1-3Q" in blackwell.kernel.read(listed)
    blackwell.create(blackwell.gpu(), "DC-1-3Q")
    blackwell.create(blackwell.gpu(), "DC-1-3A")
    assert len({each.gpu_instance_id for each in blackwell.gpu().vgpus}) == 1
    assert "DC-1-6Q" not in blackwell.creatable()
    with pytest.raises(KernelRefused):
        blackwell.host.run(create_step(blackwell.gpu(), "DC-1-6Q"))
    for _ in range(6):
        blackwell.create(blackwell.gpu(), "DC-1-3Q")
    assert len(blackwell.gpu().vgpus) == 8
    assert "DC-1-3Q" not in blackwell.creatable()


def test_nvml_and_sysfs_agree_on_what_an_instance_takes(blackwell):
    """hardware.md 3.4.2: creatable types of one GPU instance; active vGPUs are those whose VM runs."""
    address = blackwell.gpu().address
    with smi.device(address) as gpu:
        instance = smi.make_gi(
            gpu, next(name for name in smi.gi_profiles(gpu) if name.startswith("2g.") and "+gfx" in name)
        )
        number = pynvml.nvmlGpuInstanceGetInfo(instance).id
        told = pynvml.c_nvmlVgpuTypeIdInfo_v1_t(version=pynvml.nvmlVgpuTypeIdInfo_v1)
        told = pynvml.nvmlGpuInstanceGetCreatableVgpus(instance, told)
        creatable = {told.vgpuTypeIds[each] for each in range(told.vgpuCount)}
    assert creatable == known(blackwell.gpu().creatable)
    step = blackwell.create(blackwell.gpu(), "DC-2-24Q")
    assert blackwell.vgpu(step).gpu_instance_id == number
    with smi.device(address) as gpu:
        assert list(pynvml.nvmlDeviceGetActiveVgpus(gpu)) == []
    blackwell.control("hold", vgpu=held_name(step), domain="desk")
    with smi.device(address) as gpu:
        (active,) = pynvml.nvmlDeviceGetActiveVgpus(gpu)
        assert pynvml.nvmlVgpuInstanceGetType(active) == step.type_id
        assert ctypes.c_uint(pynvml.nvmlVgpuInstanceGetGpuInstanceId(active)).value == number

from __future__ import annotations

from dataclasses import replace

import pytest

from vgpuctl.host.frameworks import TypeMemory, frameworks
from vgpuctl.host.frameworks.typefacts import disagreements, enriched, named_type, sized
from vgpuctl.host.joining import Others, holders_of, joined
from vgpuctl.host.sighting import DriverWords, Sighting, driver_words, look, state_of
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import DeviceId, FrameworkKind, GpuState, Holder, ObservedVgpu, Vf
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.types import TypeKind
from vgpuctl.ports.framework import FrameworkView
from vgpuctl.ports.nvml import NvmlGpu, NvmlHost

from scripted_kernel import ScriptedKernel, SteppingClock  # isort: skip

PF = PciAddress.parse("0000:41:00.0")
VF = PciAddress.parse("0000:41:00.4")
L40S = Catalog().keyed("l40s")
NVIDIA = DeviceId(0x10DE, 0x26B9, 0x10DE, 0x1851)
QEMU = Holder(4201, "qemu-system-x86", "desk")
NO = Unknown("no")


def seen(**changes):
    facts = {
        "address": PF,
        "device": NVIDIA,
        "driver": "nvidia",
        "numa_node": 0,
        "vfs_total": 32,
        "vfs": (),
        "words": DriverWords(),
        "framework": None,
        "view": FrameworkView(types=(), creatable=NO, vgpus=()),
        "nodes": {},
        "own_nodes": (),
    }
    return Sighting(**(facts | changes))


def others(nvml=NO, handles=None, model=L40S):
    return Others(nvml=nvml, model=model, handles={} if handles is None else handles)


def nvml_with(**changes):
    facts = dict.fromkeys(
        (
            "uuid", "name", "fb_mib", "mig_current", "mig_pending", "virtualization_mode",
            "host_vgpu_mode", "mixed_size", "types", "active",
        ),
        NO,
    )  # fmt: skip
    gpu = NvmlGpu(**({"address": PF} | facts | changes))
    return NvmlHost(driver_version="580", gpus=(gpu,))


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, GpuState.VFS_OFF),
        ({"driver": "pci-pf-stub"}, GpuState.PARKED),
        ({"driver": "vfio-pci", "framework": FrameworkKind.PASSTHROUGH}, GpuState.PASSED_THROUGH),
        ({"driver": None}, GpuState.NO_DRIVER),
        ({"vfs_total": 0}, GpuState.NO_TYPES),
        ({"driver": "nouveau"}, GpuState.NO_TYPES),
        ({"vfs": (Vf(VF, 0, None, ready=False),)}, GpuState.NO_TYPES),
        ({"framework": FrameworkKind.VENDOR_VFIO, "vfs": (Vf(VF, 0, "nvidia", ready=True),)}, GpuState.READY),
        ({"device": DeviceId(0x1002, 1, 1, 1), "driver": "gim"}, GpuState.VFS_OFF),
    ],
)
def test_states(facts, state):
    assert state_of(seen(**facts))[0] is state


def test_the_drivers_own_words_stand_in_for_nvml():
    text = (
        "Model: \t\t NVIDIA L40S\nGPU UUID: \t GPU-11112222-0000-0000-0000-000000000000\nDevice Minor: \t 3\n"
    )
    kernel = ScriptedKernel(files={f"proc/driver/nvidia/gpus/{PF}/information": text})
    words = driver_words(kernel, PF)
    assert words == DriverWords("NVIDIA L40S", "GPU-11112222-0000-0000-0000-000000000000", 3)
    gpu = joined(seen(words=words), 0, others())
    assert (gpu.uuid, gpu.model) == (words.uuid, "NVIDIA L40S")


def test_a_uuid_of_question_marks_is_no_uuid():
    """The driver prints it so until somebody has opened the GPU."""
    text = "GPU UUID: \t GPU-????????-????-????-????-????????????\n"
    kernel = ScriptedKernel(files={f"proc/driver/nvidia/gpus/{PF}/information": text})
    assert driver_words(kernel, PF).uuid is None


def test_nvmls_word_on_the_uuid_comes_first():
    gpu = joined(seen(words=DriverWords(uuid="GPU-b")), 0, others(nvml_with(uuid="GPU-a")))
    assert gpu.uuid == "GPU-a"


def test_a_gpu_that_nvml_does_not_list_says_so():
    gpu = joined(seen(), 0, others(NvmlHost(driver_version="580", gpus=())))
    assert gpu.fb_mib == Unknown("NVML does not list this GPU")


def test_a_mode_that_nvml_does_not_say_is_unknown_unless_the_model_lacks_it():
    """hardware.md 3.2.2, 3.4.3: UNKNOWN is never off."""
    gpu = joined(seen(), 0, others(nvml_with()))
    assert isinstance(gpu.mixed_size, Unknown)
    assert gpu.mig is False
    a100 = Catalog().keyed("a100-80")
    assert isinstance(joined(seen(), 0, others(nvml_with(), model=a100)).mig, Unknown)
    assert joined(seen(), 0, others(nvml_with(mig_current=True), model=a100)).mig is True


def test_a_vgpu_of_a_type_that_nobody_lists_any_more_is_named_by_the_catalogue():
    """hardware.md 0.5: listed types go, names stay."""
    here = next(each for each in L40S.types if each.name == "L40S-8Q")
    vgpu = ObservedVgpu(
        gpu=PF,
        parent=VF,
        framework=FrameworkKind.VENDOR_VFIO,
        type_id=here.type_id,
        type_name=Unknown("nothing names it"),
        mdev_uuid=None,
    )
    sighting = seen(
        framework=FrameworkKind.VENDOR_VFIO,
        view=FrameworkView(types=(), creatable=frozenset(), vgpus=(vgpu,)),
        nodes={(vgpu.parent, vgpu.mdev_uuid): ("/dev/vfio/7", "/dev/vfio/devices/vfio3")},
    )
    (known_now,) = joined(sighting, 0, others(handles={"/dev/vfio/devices/vfio3": (QEMU,)})).vgpus
    assert known_now.type_name == "L40S-8Q"
    assert known_now.holders == (QEMU,)
    (unknown_now,) = joined(sighting, 0, others(model=None)).vgpus
    assert isinstance(unknown_now.type_name, Unknown)


@pytest.mark.parametrize(
    ("handles", "expected"),
    [
        ({}, ()),
        ({"/dev/nvidiactl": (QEMU,), "/dev/vfio/7": (QEMU,)}, ()),
        ({"/dev/nvidia0": (QEMU,)}, Unknown),
        (Unknown("pid 7"), Unknown),
    ],
)
def test_without_a_minor_only_nobody_at_all_means_nobody(handles, expected):
    gpu = joined(seen(own_nodes=Unknown("which?")), 0, others(handles=handles))
    assert isinstance(gpu.holders, Unknown) if expected is Unknown else gpu.holders == expected


def test_the_kernel_is_believed_against_the_catalogue_and_the_difference_is_told():
    mine = next(each for each in L40S.types if each.name == "L40S-8Q")
    other = named_type(raw_name="NVIDIA L40S-8Q", type_id=4242, fb_mib=mine.fb_mib + 1, source="here")
    view = FrameworkView(types=(other,), creatable=frozenset({4242}), vgpus=())
    gpu = joined(seen(framework=FrameworkKind.SRIOV_MDEV, view=view), 0, others())
    assert gpu.type_named("L40S-8Q").type_id == 4242
    assert any("4242 here" in note for note in gpu.notes)
    assert any("frame buffer" in note for note in gpu.notes)


def test_many_differences_are_counted():
    here = tuple(replace(each, type_id=(each.type_id or 0) + 5000) for each in L40S.types)
    notes = disagreements(here, tuple(replace(each, type_id=1) for each in L40S.types))
    assert len(notes) == 6
    assert notes[-1].startswith("and ")


def test_what_one_source_leaves_open_the_next_one_says():
    bare = named_type(raw_name="NVIDIA L40S-8Q", type_id=1, source="listing")
    told = replace(bare, heads=4, max_per_gpu=6)
    full = enriched(bare, None, told)
    assert (full.heads, full.max_per_gpu, full.source) == (4, 6, "listing")
    assert full.fb_mib is None
    assert sized(full).fb_mib == 8192


def test_names_outside_nvidias_grammar_stay_whole():
    odd = named_type(raw_name="Future 9000 X", type_id=7, source="here")
    assert (odd.name, odd.kind) == ("Future 9000 X", TypeKind.OTHER)
    assert sized(odd).fb_mib is None


def test_missing_vfs_of_a_model_that_has_them_are_noted():
    gpu = joined(seen(vfs_total=0), 0, others())
    assert any("firmware" in note for note in gpu.notes)


def test_what_has_no_device_node_is_held_by_nobody():
    assert holders_of((), Unknown("pid 7")) == ()
    assert holders_of(("/dev/vfio/7",), Unknown("pid 7")) == Unknown("pid 7")


def test_a_t4_without_an_mdev_tree_is_a_reported_state_and_not_one_with_its_vfs_off():
    """hardware.md 1.4.3, T19: kernel 6.8+ is said to show no tree; totalvfs, and never a VF."""
    path = f"sys/bus/pci/devices/{PF}"
    ids = {"vendor": "0x10de", "device": "0x1eb8", "subsystem_vendor": "0x10de", "subsystem_device": "0x12a2"}
    kernel = ScriptedKernel(
        files={f"{path}/{name}": text for name, text in (ids | {"sriov_totalvfs": "16"}).items()},
        links={f"{path}/driver": "sys/bus/pci/drivers/nvidia"},
    )
    every = frameworks(kernel, SteppingClock(), TypeMemory())
    catalog = Catalog()
    without = look(kernel, PF, every, lambda device: catalog.find(device).vfs > 0)
    assert (without.vfs_total, state_of(without)[0]) == (0, GpuState.NO_TYPES)
    assert state_of(look(kernel, PF, every, lambda _: True))[0] is GpuState.VFS_OFF

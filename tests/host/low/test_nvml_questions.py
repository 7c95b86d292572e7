"""What is asked of NVML, and what becomes of the answers that do not come."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace

import pynvml
import pytest
from nvml_stub import fails, stub, without

from vgpuctl.host.nvml import helper, questions
from vgpuctl.host.nvml.questions import KnownTypes, describe_host
from vgpuctl.model.fact import NOT_READ, Unknown
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.types import TypeKind, VgpuType
from vgpuctl.ports.nvml import NvmlGpu, NvmlHost, NvmlVgpu


def gpu_of(nvml, memory: KnownTypes | None = None) -> NvmlGpu:
    host = describe_host(nvml, memory, in_full=True)
    assert isinstance(host, NvmlHost)
    (gpu,) = host.gpus
    return gpu


def test_a_host():
    common = {
        "kind": TypeKind.TIME_SLICED,
        "heads": 4,
        "max_resolution": "5120x2880",
        "frl_fps": 60,
        "licence": "NVIDIA RTX Virtual Workstation,5.0",
    }
    assert describe_host(stub(), in_full=True) == NvmlHost(
        driver_version="550.54.16",
        gpus=(
            NvmlGpu(
                address=PciAddress.parse("0000:41:00.0"),
                uuid="GPU-1",
                name="NVIDIA L40S",
                fb_mib=46068,
                mig_current=False,
                mig_pending=True,
                virtualization_mode=3,
                host_vgpu_mode=1,
                mixed_size=False,
                types=(
                    VgpuType(
                        name="L40S-1Q", raw_name="NVIDIA L40S-1Q", type_id=1147, series="Q", fb_mib=1024,
                        max_per_gpu=48, **common,
                    ),
                    VgpuType(
                        name="L40S-4C", raw_name="NVIDIA L40S-4C", type_id=1149, series="C", fb_mib=4096,
                        max_per_gpu=12, **common,
                    ),
                ),
                active=(
                    NvmlVgpu(
                        type_id=1147,
                        mdev_uuid=Unknown("nvmlVgpuInstanceGetMdevUUID: Not Supported"),
                        vm_uuid="9b5d0b8c-1f6e-4d2b-8c1a-0d7a8a3f4b11",
                        fb_used_mib=5000,
                    ),
                ),
                gi_profiles=(),
                gpu_instances=(),
            ),
        ),
    )  # fmt: skip


FACTS = {
    "nvmlDeviceGetUUID": ("uuid",),
    "nvmlDeviceGetName": ("name",),
    "nvmlDeviceGetMemoryInfo": ("fb_mib",),
    "nvmlDeviceGetMigMode": ("mig_current", "mig_pending", "gi_profiles", "gpu_instances"),
    "nvmlDeviceGetVirtualizationMode": ("virtualization_mode",),
    "nvmlDeviceGetHostVgpuMode": ("host_vgpu_mode",),
    "nvmlDeviceGetVgpuHeterogeneousMode": ("mixed_size",),
    "nvmlDeviceGetSupportedVgpus": ("types",),
    "nvmlVgpuTypeGetName": ("types",),
    "nvmlDeviceGetActiveVgpus": ("active",),
}


@pytest.mark.parametrize("function", FACTS)
@pytest.mark.parametrize("words", ["Not Supported", "Insufficient Permissions", "Function Not Found"])
def test_a_call_that_fails_makes_its_own_facts_unknown_and_no_other(function, words):
    """A missing symbol in an old libnvidia-ml is NVMLError_FunctionNotFound; unsupported is not zero."""
    whole, gpu = gpu_of(stub()), gpu_of(stub(**{function: fails(words)}))
    for name in NvmlGpu.__slots__:
        expected = Unknown(f"{function}: {words}") if name in FACTS[function] else getattr(whole, name)
        assert getattr(gpu, name) == expected


@pytest.mark.parametrize("function", FACTS)
def test_a_binding_without_the_function(function):
    gpu = gpu_of(without(function))
    for name in FACTS[function]:
        assert getattr(gpu, name) == Unknown(f"{function}: not in this binding")


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlVgpuTypeGetFramebufferSize", "fb_mib"),
        ("nvmlVgpuTypeGetMaxInstances", "max_per_gpu"),
        ("nvmlVgpuTypeGetNumDisplayHeads", "heads"),
        ("nvmlVgpuTypeGetResolution", "max_resolution"),
        ("nvmlVgpuTypeGetFrameRateLimit", "frl_fps"),
        ("nvmlVgpuTypeGetLicense", "licence"),
    ],
)
def test_a_limit_that_nobody_said_is_none(function, field):
    types = gpu_of(stub(**{function: fails("Not Supported")})).types
    assert not isinstance(types, Unknown)
    assert [getattr(each, field) for each in types] == [None, None]


def test_what_is_known_of_types_is_asked_once():
    """A dozen questions for each of some forty types of a card, at every look."""
    asked: list[int] = []
    mode = [0]

    def framebuffer(type_id: int) -> int:
        asked.append(type_id)
        return 1 << 30

    nvml = stub(
        nvmlVgpuTypeGetFramebufferSize=framebuffer, nvmlDeviceGetVgpuHeterogeneousMode=lambda _handle: mode[0]
    )
    memory: KnownTypes = {}
    first = describe_host(nvml, memory)
    assert describe_host(nvml, memory) == first
    assert asked == [1147, 1149]
    mode[0] = 1
    describe_host(nvml, memory)
    assert asked == [1147, 1149] * 2, "the limits are others in mixed-size mode"
    nvml.nvmlSystemGetDriverVersion = lambda: "580.1"
    describe_host(nvml, memory)
    assert asked == [1147, 1149] * 3
    nvml.nvmlDeviceGetSupportedVgpus = lambda _handle: [1149]
    shorter = describe_host(nvml, memory)
    assert isinstance(shorter, NvmlHost)
    assert [each.type_id for each in shorter.gpus[0].types] == [1149]


@pytest.mark.parametrize(
    "function", ["nvmlVgpuTypeGetFramebufferSize", "nvmlVgpuTypeGetMaxInstances", "nvmlDeviceGetUUID"]
)
def test_what_was_left_open_is_asked_again(function):
    memory: KnownTypes = {}
    gpu_of(stub(**{function: fails("Unknown Error")}), memory)
    assert memory == {}
    (first, _) = gpu_of(stub(), memory).types
    assert (first.fb_mib, first.max_per_gpu) == (1024, 48)


def test_mig_backed_types():
    """hardware.md 5: 0xFFFFFFFF is no MIG profile, 0 is a real one; the profile's name is not its number."""
    profiles = {4: SimpleNamespace(id=0, name=b"MIG 7g.80gb"), 0: SimpleNamespace(id=19, name="MIG 1g.10gb")}

    def profile_info(handle, number):
        return profiles[number] if number in profiles else fails("Not Supported")()

    gpu = gpu_of(
        stub(
            NVML_GPU_INSTANCE_PROFILE_COUNT=18,
            nvmlDeviceGetGpuInstanceProfileInfo=profile_info,
            nvmlDeviceGetSupportedVgpus=lambda handle: [1, 2, 3],
            nvmlVgpuTypeGetName={1: "GRID A100D-7-80C", 2: "GRID A100D-1-10C", 3: "GRID A100D-80C"}.get,
            nvmlVgpuTypeGetGpuInstanceProfileId={1: 0, 2: 19, 3: 0xFFFFFFFF}.get,
            nvmlVgpuTypeGetFramebufferSize=lambda type_id: 1 << 30,
            nvmlVgpuTypeGetMaxInstances=lambda handle, type_id: 1,
            nvmlVgpuTypeGetMaxInstancesPerGpuInstance=lambda type_id: 1,
        )
    )
    assert not isinstance(gpu.types, Unknown)
    assert [(each.name, each.kind, each.gi_profile) for each in gpu.types] == [
        ("A100D-7-80C", TypeKind.MIG_BACKED, "7g.80gb"),
        ("A100D-1-10C", TypeKind.MIG_BACKED, "1g.10gb"),
        ("A100D-80C", TypeKind.TIME_SLICED, None),
    ]


def test_a_driver_that_does_not_know_gpu_instances_is_taken_by_the_name():
    names = {1147: "GRID A100D-1-10C", 1149: "GRID A100D-10C"}
    types = gpu_of(stub(nvmlVgpuTypeGetName=names.get, nvmlVgpuTypeGetGpuInstanceProfileId=fails("x"))).types
    assert not isinstance(types, Unknown)
    assert [each.kind for each in types] == [TypeKind.MIG_BACKED, TypeKind.TIME_SLICED]


def test_a_type_of_another_grammar_keeps_its_name():
    types = gpu_of(stub(nvmlVgpuTypeGetName=lambda type_id: "NVIDIA Next-Thing")).types
    assert not isinstance(types, Unknown)
    assert {(each.name, each.series) for each in types} == {("Next-Thing", "")}


def test_a_look_does_not_ask_what_only_a_capture_carries():
    asked = (
        "nvmlDeviceGetVirtualizationMode",
        "nvmlDeviceGetHostVgpuMode",
        "nvmlDeviceGetActiveVgpus",
        "nvmlVgpuInstanceGetType",
    )
    calls = dict.fromkeys(asked, lambda *_: pytest.fail("asked"))
    host = describe_host(stub(**calls))
    assert isinstance(host, NvmlHost)
    assert host.gpus[0].active == host.gpus[0].virtualization_mode == host.gpus[0].host_vgpu_mode == NOT_READ


def test_the_vm_of_another_hypervisor_is_not_a_uuid():
    active = gpu_of(stub(nvmlVgpuInstanceGetVmID=lambda vgpu: ("17", 0))).active
    assert not isinstance(active, Unknown)
    assert isinstance(active[0].vm_uuid, Unknown)


def test_the_pci_id_of_a_vgpu_is_not_asked():
    """NVIDIA's header: "the PCI Id of the GPU as seen inside the VM"; it would pass for the VF's."""
    nvml = stub(nvmlVgpuInstanceGetGpuPciId=lambda vgpu: nvml.calls.append("asked"))
    describe_host(nvml, in_full=True)
    assert "asked" not in nvml.calls


def test_more_than_4_gib_of_frame_buffer_in_use():
    """nvidia-ml-py 13.615.71 takes the answer as 32 bits; asked past its wrapper it is whole."""
    active = gpu_of(stub(nvmlVgpuInstanceGetFbUsage=lambda vgpu: (5000 << 20) & 0xFFFFFFFF)).active
    assert not isinstance(active, Unknown)
    assert active[0].fb_used_mib == 5000


def test_a_lost_gpu_does_not_hide_the_others():
    def handle(index):
        return fails("GPU is lost")() if index == 0 else f"handle {index}"

    host = describe_host(stub(nvmlDeviceGetCount=lambda: 2, nvmlDeviceGetHandleByIndex=handle))
    assert isinstance(host, NvmlHost)
    assert [str(gpu.address) for gpu in host.gpus] == ["0000:41:00.0"]


def test_nvml_is_shut_down_again():
    """hardware.md 5: an initialised client keeps the GPU open, and sriov-manage fails."""
    nvml = stub()
    describe_host(nvml)
    assert nvml.calls == ["nvmlInit", "nvmlShutdown"]


def test_nvml_is_shut_down_when_the_count_fails():
    nvml = stub(nvmlDeviceGetCount=fails("Unknown Error"))
    assert describe_host(nvml) == Unknown("nvmlDeviceGetCount: Unknown Error")
    assert nvml.calls == ["nvmlInit", "nvmlShutdown"]


@pytest.mark.parametrize("words", ["Driver Not Loaded", "NVML Shared Library Not Found"])
def test_a_host_where_nvml_does_not_begin(words):
    nvml = stub(nvmlInit=fails(words))
    assert describe_host(nvml) == Unknown(f"nvmlInit: {words}")
    assert nvml.calls == []


def test_the_wrong_pynvml_is_named():
    """ecosystem.md B0.4: old pynvml and nvidia-ml-py3 overwrite the module of the same name."""
    answer = describe_host(SimpleNamespace(__file__="/usr/lib/python3/pynvml.py"))
    assert isinstance(answer, Unknown)
    assert "/usr/lib/python3/pynvml.py" in answer.reason


def test_no_binding_at_all():
    def load():
        raise ImportError("No module named 'pynvml'")

    answer = helper.answer(load)
    assert isinstance(answer, Unknown)
    assert "nvidia-ml-py" in answer.reason


def test_the_real_binding_is_the_right_one():
    assert questions.wrong_binding(pynvml) is None


NAMES = set(re.findall(r'"(nvml\w+)"', inspect.getsource(questions)))


def test_every_function_that_we_ask_for_is_in_the_real_binding():
    assert len(NAMES) > 20
    assert {name for name in NAMES if not hasattr(pynvml, name)} == set()


def test_nothing_that_changes_a_gpu_is_called():
    assert {name for name in NAMES if re.search("Set|Create(?!able)|Destroy|Clear|Reset", name)} == set()

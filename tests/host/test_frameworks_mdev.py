from __future__ import annotations

import errno
from uuid import UUID

import pytest
from scripted_kernel import ScriptedKernel, SteppingClock, failure

from vgpuctl.errors import InvalidGpuState, KernelRefused, ReadBackMismatch, RemovalBlocked, VgpuBusy
from vgpuctl.host.frameworks.mdev import MdevFramework
from vgpuctl.host.frameworks.mdev_types import TypeMemory, described_type
from vgpuctl.host.frameworks.parents import type_number
from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import DeviceId, FrameworkKind
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.step import CreateVgpu, RemoveVgpu
from vgpuctl.model.types import TypeKind

PF = PciAddress.parse("0000:41:00.0")
UUID_ = UUID("d5a3c9a2-1f7e-4a62-9b0f-6c1b9a3e7f10")
DEVICE = f"sys/bus/pci/devices/{PF}"
TYPES = f"{DEVICE}/mdev_supported_types"
MDEV = f"sys/bus/mdev/devices/{UUID_}"
COMMON = {
    "vgpu": UUID_,
    "name": "desk",
    "gpu": GpuIdentity(PF, DeviceId(0x10DE, 0x1EB8, 0x10DE, 0x12A2), None),
    "framework": FrameworkKind.MDEV,
    "parent": PF,
    "type_id": 232,
    "type_name": "T4-4Q",
}


@pytest.fixture
def kernel():
    return ScriptedKernel(
        files={
            f"{TYPES}/nvidia-232/name": "GRID T4-4Q",
            f"{TYPES}/nvidia-232/description": (
                "num_heads=4, frl_config=60, framebuffer=4096M, max_resolution=7680x4320, max_instance=4"
            ),
            f"{TYPES}/nvidia-232/available_instances": "4",
            f"{TYPES}/nvidia-232/create": "",
        }
    )


@pytest.fixture
def framework(kernel):
    return MdevFramework(kernel, SteppingClock(), TypeMemory())


def present(kernel, directory="nvidia-232", parent=PF):
    kernel.links[MDEV] = f"sys/devices/pci0000:40/{parent}/{UUID_}"
    kernel.links[f"{MDEV}/mdev_type"] = f"sys/x/{directory}"
    kernel.files[f"{DEVICE}/{UUID_}/remove"] = ""
    kernel.files[f"{MDEV}/remove"] = ""


def absent(kernel):
    for each in (*kernel.links,):
        if str(UUID_) in each:
            del kernel.links[each]
    for each in (*kernel.files,):
        if str(UUID_) in each:
            del kernel.files[each]


def test_a_description_is_read_verbatim(kernel):
    """hardware.md 1.1.5: the format, verbatim."""
    seen = described_type(kernel, TYPES, "nvidia-232")
    assert (seen.name, seen.type_id, seen.kind, seen.series) == ("T4-4Q", 232, TypeKind.TIME_SLICED, "Q")
    assert (seen.heads, seen.frl_fps, seen.fb_mib, seen.max_resolution, seen.max_per_gpu) == (
        4,
        60,
        4096,
        "7680x4320",
        4,
    )


def test_names_without_a_number_have_one_of_their_own():
    """i915 GVT-g calls its types i915-GVTg_V5_4."""
    assert type_number("nvidia-558") == 558
    assert type_number("i915-GVTg_V5_4") != type_number("i915-GVTg_V5_8")
    assert type_number("i915-GVTg_V5_4") > 1_000_000


def test_gvt_g_types_are_described_without_a_framebuffer():
    kernel = ScriptedKernel(
        files={
            f"{TYPES}/i915-GVTg_V5_4/name": "GVTg_V5_4",
            f"{TYPES}/i915-GVTg_V5_4/description": "low_gm_size: 128MB\nhigh_gm_size: 512MB\nfence: 4\n",
        }
    )
    seen = described_type(kernel, TYPES, "i915-GVTg_V5_4")
    assert (seen.name, seen.kind, seen.fb_mib) == ("i915-GVTg_V5_4", TypeKind.OTHER, None)


def test_names_and_descriptions_are_read_once_per_driver_load(kernel, framework):
    framework.view(PF, ())
    kernel.files[f"{TYPES}/nvidia-232/name"] = failure(errno.EIO)
    assert framework.view(PF, ()).types[0].name == "T4-4Q"
    kernel.files["proc/driver/nvidia/version"] = "another one"
    with pytest.raises(OSError):
        framework.view(PF, ())


def test_one_unreadable_availability_makes_all_unknown(kernel, framework):
    """UNKNOWN is not 0."""
    kernel.files[f"{TYPES}/nvidia-232/available_instances"] = failure(errno.EACCES)
    assert isinstance(framework.view(PF, ()).creatable, Unknown)


def test_types_named_after_the_bus_are_not_ready(kernel):
    """hardware.md T18: `pci-NNN` while the driver is still probing."""
    kernel.files = {path.replace("nvidia-", "pci-"): text for path, text in kernel.files.items()}
    framework = MdevFramework(kernel, SteppingClock(), TypeMemory())
    assert not framework.serves(PF, ())
    with pytest.raises(InvalidGpuState):
        framework.create(CreateVgpu(**COMMON))
    assert kernel.writes == []


def test_a_create_that_makes_nothing_is_said(kernel, framework):
    with pytest.raises(ReadBackMismatch):
        framework.create(CreateVgpu(**COMMON))


def test_a_create_of_another_type_than_asked_is_said(kernel, framework):
    kernel.on_write[f"{TYPES}/nvidia-232/create"] = lambda _: present(kernel, "nvidia-233")
    with pytest.raises(ReadBackMismatch):
        framework.create(CreateVgpu(**COMMON))


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.ENODEV, errno.EPERM, errno.ENOSPC])
def test_a_refused_create_says_what_and_why(kernel, framework, number):
    """hardware.md 1.6.5, 6.3: ENODEV where the parent is going away, EIO for most else."""

    def answer(_):
        raise failure(number)

    kernel.on_write[f"{TYPES}/nvidia-232/create"] = answer
    with pytest.raises(KernelRefused) as caught:
        framework.create(CreateVgpu(**COMMON))
    error = caught.value
    assert error.facts["errno"] == errno.errorcode[number]
    assert error.facts["path"] == f"{TYPES}/nvidia-232/create"
    for word in ("desk", "T4-4Q", "nvidia-232", str(PF), errno.errorcode[number]):
        assert word in error.message


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EAGAIN, errno.ENODEV])
def test_somebody_else_removing_it_at_the_same_time_is_done(kernel, framework, number):
    """hardware.md 1.6.2: the `remove` file deletes itself first."""
    present(kernel)

    def answer(_):
        absent(kernel)
        raise failure(number)

    kernel.on_write[f"{MDEV}/remove"] = answer
    framework.remove(RemoveVgpu(**COMMON))


def test_an_old_kernel_answers_ebusy(kernel, framework):
    """hardware.md 1.6.3: EBUSY, and not a wait without end."""
    present(kernel)

    def answer(_):
        raise failure(errno.EBUSY)

    kernel.on_write[f"{MDEV}/remove"] = answer
    with pytest.raises(VgpuBusy):
        framework.remove(RemoveVgpu(**COMMON))


def test_an_mdev_that_stays_below_its_parent_is_not_gone(kernel, framework):
    present(kernel)

    def answer(_):
        for each in (MDEV, f"{MDEV}/mdev_type"):
            del kernel.links[each]
        del kernel.files[f"{MDEV}/remove"]

    kernel.on_write[f"{MDEV}/remove"] = answer
    with pytest.raises(RemovalBlocked):
        framework.remove(RemoveVgpu(**COMMON))

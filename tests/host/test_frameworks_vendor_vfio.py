from __future__ import annotations

import errno
from dataclasses import replace
from uuid import uuid4

import pytest
from scripted_kernel import ScriptedKernel, SteppingClock, failure

from vgpuctl.errors import (
    Conflict,
    DeadlineExceeded,
    KernelRefused,
    ReadBackMismatch,
    RemovalBlocked,
    UnsupportedHere,
    VgpuBusy,
)
from vgpuctl.host.frameworks.mdev_types import TypeMemory
from vgpuctl.host.frameworks.vendor_vfio import VendorVfioFramework, parse_creatable
from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import DeviceId, FrameworkKind, Vf
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.step import CreateVgpu, RemoveVgpu, SetParams

PF = PciAddress.parse("0000:41:00.0")
VF = PciAddress.parse("0000:41:00.4")
BASE = f"sys/bus/pci/devices/{VF}/nvidia"
CURRENT = f"{BASE}/current_vgpu_type"
COMMON = {
    "vgpu": uuid4(),
    "name": "desk",
    "gpu": GpuIdentity(PF, DeviceId(0x10DE, 0x26B9, 0x10DE, 0x1851), None),
    "framework": FrameworkKind.VENDOR_VFIO,
    "parent": VF,
    "type_id": 1155,
    "type_name": "L40S-8Q",
}


@pytest.fixture
def kernel():
    return ScriptedKernel(files={CURRENT: "0", f"{BASE}/creatable_vgpu_types": "", f"{BASE}/vgpu_params": ""})


@pytest.fixture
def clock():
    return SteppingClock()


@pytest.fixture
def framework(kernel, clock):
    return VendorVfioFramework(kernel, clock, TypeMemory())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ID    : vGPU Name\n1147  : NVIDIA L40S-1Q\n", {1147: "L40S-1Q"}),
        ("1428 : NVIDIA H200X-141C", {1428: "H200X-141C"}),
        ("  1530: NVIDIA RTX Pro 6000 Blackwell DC-1-24Q  ", {1530: "DC-1-24Q"}),
        ("ID    : vGPU Name\n", {}),
        ("", {}),
        ("NVIDIA L40S-1Q           1147", {}),
    ],
)
def test_both_forms_of_the_listing_are_read(text, expected):
    """hardware.md 1.4.5, T13: with and without a header; other lines are skipped."""
    assert {each.type_id: each.name for each in parse_creatable(text, "here")} == expected


def test_a_type_that_shows_late_is_waited_for(kernel, framework):
    answers = iter(["0", "0", "0", "1155"])
    kernel.files[CURRENT] = lambda: next(answers)
    kernel.on_write[CURRENT] = lambda _: None
    framework.create(CreateVgpu(**COMMON))
    assert kernel.writes == [(CURRENT, "1155")]


def test_a_type_that_never_shows_is_said(kernel, framework, clock):
    kernel.on_write[CURRENT] = lambda _: None
    with pytest.raises(ReadBackMismatch):
        framework.create(CreateVgpu(**COMMON))
    assert clock.seconds < 5


def test_a_gpu_that_is_not_initialised_is_asked_again(kernel, framework):
    """hardware.md 1.4.10: 0x66 = GPU not initialised, retry."""
    refusals = iter([True, True, False])

    def answer(text):
        if next(refusals):
            kernel.lines.append("NVRM: Failed to add vgpu create request: 0x66")
            raise failure(errno.EIO)
        kernel.files[CURRENT] = text

    kernel.on_write[CURRENT] = answer
    framework.create(CreateVgpu(**COMMON))
    assert len(kernel.writes) == 3


def test_an_old_line_in_the_log_explains_nothing(kernel, framework):
    """Only lines newer than the write are about it."""
    kernel.lines.append("NVRM: Failed to add vgpu create request: 0x56")

    def answer(_):
        raise failure(errno.EIO)

    kernel.on_write[CURRENT] = answer
    with pytest.raises(KernelRefused) as caught:
        framework.create(CreateVgpu(**COMMON))
    assert "nvrm" not in caught.value.facts
    assert caught.value.hint is not None


def test_a_driver_that_does_not_return_holds_up_no_thread_of_ours(kernel, framework):
    """A thread in D state would make the daemon unkillable; whether it happened, a look will tell."""

    def hang(path, text, timeout_s):
        raise TimeoutError(errno.ETIMEDOUT, f"not done within {timeout_s:g} s", path)

    kernel.write_abandonable = hang
    with pytest.raises(DeadlineExceeded) as caught:
        framework.create(CreateVgpu(**COMMON))
    assert caught.value.facts["path"] == CURRENT
    assert kernel.writes == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBUSY])
def test_a_refused_clear_is_benign_when_the_vf_is_cleared_soon_after(kernel, framework, number):
    """hardware.md 1.4.11: `Operation not permitted` where the VM's stop tears the device down."""
    shown = iter(["1155", "1155", "1155", "0"])
    kernel.files[CURRENT] = lambda: next(shown)

    def answer(_):
        raise failure(number)

    kernel.on_write[CURRENT] = answer
    framework.remove(RemoveVgpu(**COMMON))


def test_a_refused_clear_is_busy_when_the_type_stays(kernel, framework):
    kernel.files[CURRENT] = "1155"

    def answer(_):
        raise failure(errno.EPERM)

    kernel.on_write[CURRENT] = answer
    with pytest.raises(VgpuBusy):
        framework.remove(RemoveVgpu(**COMMON))


def test_a_clear_that_blocks_is_abandoned(kernel, framework):
    kernel.files[CURRENT] = "1155"

    def answer(_):
        raise TimeoutError

    kernel.on_write[CURRENT] = answer
    with pytest.raises(RemovalBlocked):
        framework.remove(RemoveVgpu(**COMMON))


def test_a_clear_of_an_unreadable_vf_is_not_written(kernel, framework):
    """What cannot be read is never acted on."""
    kernel.files[CURRENT] = failure(errno.EACCES)
    with pytest.raises(KernelRefused):
        framework.remove(RemoveVgpu(**COMMON))
    assert kernel.writes == []


def test_an_odd_text_is_unknown_and_not_none(kernel, framework):
    kernel.files[CURRENT] = "something new"
    (seen,) = framework.view(PF, (Vf(VF, 0, "nvidia", ready=True),)).vgpus
    assert isinstance(seen.type_id, Unknown)
    assert "something new" in seen.type_id.reason


def params_step(params):
    common = {key: value for key, value in COMMON.items() if key != "type_name"}
    return SetParams(**common, params=params)


@pytest.mark.parametrize(
    ("present", "wanted", "written"),
    [("", "frame_rate_limiter=0", "frame_rate_limiter=0\n"), ("disable_vnc=1", "", " \n")],
)
def test_params_are_written_as_echo_writes_them(kernel, framework, present, wanted, written):
    """hardware.md 1.2.2: the guide's `echo "..." >` and `echo " " >`; no other form is documented."""
    kernel.files |= {CURRENT: "1155", f"{BASE}/vgpu_params": present}
    framework.set_params(params_step(wanted))
    assert kernel.writes == [(f"{BASE}/vgpu_params", written)]


@pytest.mark.parametrize(("there", "wanted"), [("0", 1155), ("1157", 1155), ("0", 0)])
def test_params_are_not_written_to_what_is_not_ours(kernel, framework, there, wanted):
    """hardware.md T11: a VF is reused, also between a plan and its step, or around a crash."""
    kernel.files |= {CURRENT: there, f"{BASE}/vgpu_params": "disable_vnc=1"}
    with pytest.raises(Conflict):
        framework.set_params(replace(params_step("frame_rate_limiter=0"), type_id=wanted))
    assert kernel.writes == []


def test_params_that_do_not_take_are_said(kernel, framework):
    kernel.files[CURRENT] = "1155"
    kernel.on_write[f"{BASE}/vgpu_params"] = lambda _: None
    with pytest.raises(ReadBackMismatch):
        framework.set_params(params_step("frame_rate_limiter=0"))


def test_the_order_of_params_is_the_drivers_business(kernel, framework):
    kernel.files[CURRENT] = "1155"
    kernel.files[f"{BASE}/vgpu_params"] = "disable_vnc=1, frame_rate_limiter=0"
    framework.set_params(params_step("frame_rate_limiter=0,disable_vnc=1"))
    assert kernel.writes == []


def test_a_driver_without_params_refuses_params_only(kernel, framework):
    kernel.files[CURRENT] = "1155"
    del kernel.files[f"{BASE}/vgpu_params"]
    framework.set_params(params_step(""))
    with pytest.raises(UnsupportedHere):
        framework.set_params(params_step("frame_rate_limiter=0"))

"""The resource manager's words in the kernel log."""

from __future__ import annotations

import errno

import pytest

from vgpuctl.model.nvrm import explain

REQUEST = "NVRM: Failed to add vgpu create request: 0x56"
CREATION = "vGPU creation failed on device 0x400. -5"
PROBE = "nvidia-vgpu-vfio: probe failed with error -12"


def test_the_three_lines_of_one_refusal():
    """hardware.md 1.1.8: what R535 prints when a 2Q is forced beside a 1Q."""
    refusal = explain(["usb 1-1: new device", REQUEST, "NVRM: something else", CREATION, PROBE])
    assert refusal is not None
    assert (refusal.code, refusal.errno, refusal.device) == (0x56, errno.EIO, 0x400)
    assert refusal.lines == (REQUEST, CREATION, PROBE)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("0x38", "invalid operation"),
        ("0x56", "another frame-buffer size"),
        ("0x1A", "as many vGPUs as it can"),
        ("0x1a", "as many vGPUs as it can"),
        ("0x40", "no matching free GPU instance"),
        ("0x57", "does not know this vGPU type"),
        ("0x66", "not initialised"),
    ],
)
def test_the_codes(code, word):
    """hardware.md 1.4.10: user space sees EIO for all of these, the code is the only detail."""
    refusal = explain([f"NVRM: Failed to add vgpu create request: {code}"])
    assert refusal is not None
    assert word in refusal.meaning
    assert refusal.is_transient is (code == "0x66")


def test_an_unknown_code_keeps_its_number():
    refusal = explain(["NVRM: Failed to add vgpu create request: 0x7e"])
    assert refusal is not None
    assert "0x7e" in refusal.meaning


def test_the_last_refusal_counts_and_does_not_mix_with_the_one_before():
    refusal = explain([REQUEST, CREATION, "NVRM: Failed to add vgpu create request: 0x38"])
    assert refusal is not None
    assert (refusal.code, refusal.errno) == (0x38, None)


def test_a_prefix_of_the_log_does_not_matter():
    refusal = explain([f"[ 1234.5] {REQUEST}"])
    assert refusal is not None
    assert refusal.code == 0x56


def test_a_refusal_without_a_code():
    refusal = explain([CREATION])
    assert refusal is not None
    assert (refusal.code, refusal.errno) == (None, errno.EIO)
    assert "without a code" in refusal.meaning


def test_no_refusal():
    assert explain(["NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.16"]) is None

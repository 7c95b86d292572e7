"""The kernel log: the real /dev/kmsg, and its record format."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vgpuctl.host import klog
from vgpuctl.host.kernel import LocalKernel
from vgpuctl.ports.kernel import KernelLogLine

RECORDS = """\
6,160,424069,-;pci_bus 0000:00: root bus resource [io  0x0000-0x0cf7] (ignored)
 SUBSYSTEM=acpi
 4,161,1,-;a property that looks like a record
 DEVICE=+acpi:PNP0A03:00
4,339,5140900,-,caller=T1;NVRM: Failed to add vgpu create request: 0x56
14,340,5140910,-;NVRM: forged by user space
3,341,5140920,c;half; with a semicolon
"""


@pytest.fixture
def kernel(tmp_path: Path) -> LocalKernel:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kmsg").write_text(RECORDS)
    return LocalKernel(tmp_path)


def test_kernel_messages_only(kernel):
    """Facility 1 is what user space wrote; it must not explain an EIO."""
    assert [line.sequence for line in kernel.log()] == [160, 339, 341]


def test_the_text_is_what_follows_the_first_semicolon(kernel):
    assert kernel.log(339) == (KernelLogLine(341, "half; with a semicolon"),)


def test_an_overwritten_record_is_passed_over(monkeypatch, kernel):
    """EPIPE: the next record was overwritten before it was read (dev-kmsg)."""
    answers = [BrokenPipeError(), b"4,9,1,-;after the gap\n", BlockingIOError()]

    def read(descriptor: int, size: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(klog.os, "read", read)
    assert kernel.log() == (KernelLogLine(9, "after the gap"),)


def test_from_now_on_is_only_what_comes_later(kernel, tmp_path):
    with kernel.log_from_now() as said:
        with (tmp_path / "dev/kmsg").open("a") as log:
            log.write("4,342,5140930,-;NVRM: later\n14,343,5140931,-;NVRM: forged later\n")
        assert said() == (KernelLogLine(342, "NVRM: later"),)


def test_no_log_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        LocalKernel(tmp_path).log()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="/dev/kmsg is root's")
def test_the_real_log():
    lines = LocalKernel().log()
    assert lines
    assert [line.sequence for line in lines] == sorted({line.sequence for line in lines})
    assert LocalKernel().log(lines[-1].sequence) == ()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="/dev/kmsg is root's")
def test_what_user_space_writes_into_the_real_log_does_not_come_back():
    mark = "vgpuctl test: a line from user space"
    with Path("/dev/kmsg").open("wb", buffering=0) as log:
        log.write(mark.encode())
    assert not [line for line in LocalKernel().log() if mark in line.text]

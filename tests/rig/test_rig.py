"""The rig itself: a kernel, libvirt, QEMU and systemd of Debian's own, and vgpuctl installed beside them."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from uuid import uuid4

import libvirt
import pytest

from tests.rig.guests import BOOKWORM, TRIXIE
from tests.rig.plugin import INSIDE

EXPECTED = {TRIXIE: ("6.12.", 11, "3.13."), BOOKWORM: ("6.1.", 9, "3.11.")}


@pytest.mark.rig(TRIXIE, BOOKWORM)
def test_a_guest_is_the_debian_that_it_says():
    kernel, of_libvirt, python = EXPECTED[INSIDE]
    assert platform.release().startswith(kernel)
    assert platform.python_version().startswith(python)
    assert libvirt.getVersion() // 1_000_000 == of_libvirt
    assert os.geteuid() == 0
    assert Path("/proc/1/comm").read_text() == "systemd\n"


@pytest.mark.rig(TRIXIE, BOOKWORM)
def test_vgpuctl_is_installed_as_on_a_host():
    answer = subprocess.run(["vgpuctl", "--version"], capture_output=True, text=True, check=True, cwd="/")
    assert answer.stdout.startswith("vgpuctl")


@pytest.mark.rig(TRIXIE, BOOKWORM)
@pytest.mark.parametrize("module", ["mtty", "mdpy", "mbochs"])
def test_the_kernels_own_sample_parents_make_mediated_devices(module):
    subprocess.run(["modprobe", module], check=True)
    try:
        parent = Path("/sys/class/mdev_bus") / module
        kind = min((parent / "mdev_supported_types").iterdir())
        uuid = str(uuid4())
        (kind / "create").write_text(uuid)
        device = Path("/sys/bus/mdev/devices") / uuid
        assert (device / "mdev_type").resolve() == kind.resolve()
        (device / "remove").write_text("1")
        assert not device.exists()
    finally:
        subprocess.run(["modprobe", "-r", module], check=True)

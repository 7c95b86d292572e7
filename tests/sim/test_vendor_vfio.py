"""vGPUs as types of VFs."""

from __future__ import annotations

import errno
import threading
from itertools import pairwise

import pytest

from tests.sim.hosts import (
    DEVICES,
    FIRST,
    creatable,
    current_type,
    log_of,
    refused,
    set_type,
    turn,
    type_id,
    vf,
    with_vfs,
)
from vgpuctl.sim.host import MemoryHost, SimHost


@pytest.fixture
def host() -> MemoryHost:
    return with_vfs("l40s")


def file(number: int, name: str) -> str:
    return f"{DEVICES}/{vf(number)}/nvidia/{name}"


def test_the_pf_has_no_nvidia_directory(host):
    """hardware.md 1.4.4, 1.4.9: files on the VF only; the VF keeps the driver nvidia and has a VFIO cdev."""
    assert not host.kernel.exists(f"{DEVICES}/{FIRST}/nvidia")
    assert host.kernel.link(f"{DEVICES}/{vf(0)}/driver") == "nvidia"
    assert len(host.kernel.list(f"{DEVICES}/{vf(0)}/vfio-dev")) == 1


def test_the_list_shrinks_for_all_after_the_first_write(host):
    """hardware.md T16, 0.5: the first write collapses the siblings' lists; the VF's own is empty."""
    everything = creatable(host, 1)
    assert {"L40S-1Q", "L40S-8Q", "L40S-48C"} <= set(everything)
    set_type(host, 0, "L40S-8Q")
    assert set(creatable(host, 1)) == {"L40S-8Q", "L40S-8A", "L40S-8C"}
    assert creatable(host, 0) == []
    host.kernel.write(file(0, "current_vgpu_type"), "0")
    assert creatable(host, 1) == everything


def test_capacity_used_up_empties_every_list(host):
    """hardware.md 0.5, 1.4.5: creatable is empty when capacity is gone, and a write is 0x1A."""
    for number in range(6):
        set_type(host, number, "L40S-8Q")
    assert creatable(host, 6) == []
    with refused(errno.EIO):
        set_type(host, 6, "L40S-8Q")
    assert log_of(host)[-1] == "NVRM: Failed to add vgpu create request: 0x1a"


def test_another_size_is_0x56(host):
    """hardware.md T17, 1.4.10: a bigger one fails with EIO until frame-buffer is free; 0x56."""
    set_type(host, 0, "L40S-1Q")
    with refused(errno.EIO):
        set_type(host, 1, "L40S-2Q")
    assert log_of(host)[-1] == "NVRM: Failed to add vgpu create request: 0x56"


@pytest.mark.parametrize("again", ["L40S-8Q", "L40S-8A", 424242])
def test_a_vf_in_use_refuses_every_type(host, again):
    """hardware.md T17, 6.2: EPERM until 0 is written, even for the same id."""
    set_type(host, 0, "L40S-8Q")
    with refused(errno.EPERM):
        set_type(host, 0, again)


def test_what_is_no_number_is_einval_and_an_unknown_id_is_0x57(host):
    """hardware.md 6.3, 1.4.10."""
    for text in ("\n", "L40S-8Q", "-1", "0x47b", "1 2"):
        with refused(errno.EINVAL):
            host.kernel.write(file(0, "current_vgpu_type"), text)
    with refused(errno.EIO):
        set_type(host, 0, 424242)
    assert log_of(host)[-1] == "NVRM: Failed to add vgpu create request: 0x57"


def test_clearing_an_empty_vf_is_fine(host):
    """hardware.md 1.4.6: 0 = none."""
    host.kernel.write(file(0, "current_vgpu_type"), "0")
    assert current_type(host, 0) == "0"


def test_files_of_a_vgpu_are_enxio_without_one(host):
    """hardware.md 1.2.3, 1.4.7, 1.4.8: reading gives ENXIO while no vGPU exists."""
    for name in ("gpu_instance_id", "placement_id"):
        with refused(errno.ENXIO):
            host.kernel.read(file(0, name))
    set_type(host, 0, "L40S-8Q")
    assert host.kernel.read(file(0, "placement_id")) == "Not Applicable"
    host.kernel.write(file(0, "vgpu_params"), "enable_uvm=1")
    host.kernel.write(file(0, "current_vgpu_type"), "0")
    set_type(host, 0, "L40S-8Q")
    assert host.kernel.read(file(0, "vgpu_params")) == ""


@pytest.mark.parametrize("answer", ["EPERM", "EBUSY"])
def test_clearing_a_held_one_is_refused(host, answer):
    """hardware.md 8.3: EPERM and EBUSY were both reported; nothing is cleared."""
    set_type(host, 0, "L40S-8Q")
    host.control("busy", {"errno": answer})
    host.control("hold", {"vgpu": vf(0)})
    with refused(getattr(errno, answer)):
        host.kernel.write(file(0, "current_vgpu_type"), "0")
    assert current_type(host, 0) == str(type_id(host, "L40S-8Q"))


def test_clearing_a_held_one_may_block(host):
    """hardware.md 1.4.12: a busy QEMU's teardown outlives its kill; the write goes on by itself."""
    set_type(host, 0, "L40S-8Q")
    host.control("busy", {"errno": "block"})
    host.control("hold", {"vgpu": vf(0)})
    with pytest.raises(TimeoutError):
        host.kernel.write_abandonable(file(0, "current_vgpu_type"), "0", 0.01)
    writer = threading.Thread(target=host.kernel.write, args=(file(0, "current_vgpu_type"), "0"))
    writer.start()
    host.control("release", {"vgpu": vf(0)})
    writer.join(timeout=10)
    assert not writer.is_alive()
    assert current_type(host, 0) == "0"


def test_mixed_sizes_get_places_of_their_own():
    """hardware.md 3.4.4: sizes differ, placements follow the driver's table; 12 GB no longer fits twice."""
    host = with_vfs("a100-40")
    host.control("mixed-size", {"gpu": FIRST})
    set_type(host, 0, "A100-20C")
    set_type(host, 1, "A100-10C")
    set_type(host, 2, "A100-5C")
    places = [int(host.kernel.read(file(number, "placement_id"))) for number in range(3)]
    spans = sorted(zip(places, (20, 10, 5), strict=True))
    assert all(begin + size <= after for (begin, size), (after, _) in pairwise(spans))
    assert "A100-20C" not in creatable(host, 3)
    assert "A100-5C" in creatable(host, 3)


def test_with_mig_on_and_no_gpu_instance_nothing_is_creatable():
    """hardware.md 1.4.5, 1.4.10, 3.3.4: empty list, 0x38."""
    host = SimHost.in_memory("a100-40")
    host.control("mig", {"gpu": FIRST})
    turn(host, FIRST, on=True)
    assert creatable(host, 0) == []
    with refused(errno.EIO):
        set_type(host, 0, "A100-10C")
    assert log_of(host)[-1] == "NVRM: Failed to add vgpu create request: 0x38"


def test_mig_types_are_not_creatable_with_mig_off():
    """hardware.md 1.4.10, 3.3.4: a MIG type with MIG off is 0x38."""
    host = with_vfs("a100-40")
    assert not [name for name in creatable(host, 0) if name.startswith("A100-1-")]
    with refused(errno.EIO):
        set_type(host, 0, "A100-1-5C")
    assert log_of(host)[-1] == "NVRM: Failed to add vgpu create request: 0x38"

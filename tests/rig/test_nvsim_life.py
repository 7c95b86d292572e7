"""What a simulated GPU goes through, by files and system calls alone."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from pathlib import Path
from uuid import uuid4

import pytest

from tests.rig.guests import BOOKWORM, TRIXIE
from tests.rig.hands import (
    BAR0,
    BAR1,
    CONFIG,
    MDEVS,
    PCI,
    PF,
    SRIOV_MANAGE,
    Vfio,
    creatable,
    ids,
    kernel_log,
    manage,
    read,
    refusal,
    set_type,
    types,
    until,
    vf,
    written,
)
from tests.rig.nvsim.nodes import NONE, ON_GPU, ask, opened

IN_AND_OUT = """
for turn in $(seq 9); do
    modprobe nvsim_cards gpus="$1"
    modprobe nvsim
    for kind in /sys/class/mdev_bus/0000:41:00.0/mdev_supported_types/*; do
        cat /proc/sys/kernel/random/uuid >"$kind/create"
        break
    done
    ls /sys/bus/mdev/devices | wc -l
    rmmod nvsim
    rmmod nvsim_cards
done
"""


@pytest.mark.rig
def test_files_of_a_vgpu(nvsim):
    nvsim.load("t4:mdev@41,a16:vendor-vfio@81", numvfs_errno="EIO")
    manage("-e", PF)
    uuid = uuid4()
    written(types(PCI / "0000:41:00.0")["T4-4Q"] / "create", uuid)
    vendor, mediated = vf(0) / "nvidia", MDEVS / str(uuid) / "nvidia"
    assert {each: read(vendor / each) for each in ("current_vgpu_type", "vgpu_params", "placement_id")} == {
        "current_vgpu_type": "0",
        "vgpu_params": "!ENXIO",
        "placement_id": "!ENXIO",
    }
    assert set_type(0, ids("a16")["A16-2Q"]) is None
    assert (read(vendor / "gpu_instance_id"), read(vendor / "placement_id")) == ("Not Applicable",) * 2
    for directory in (vendor, mediated):
        params = directory / "vgpu_params"
        assert written(params, "frame_rate_limiter=0,disable_vnc=1") is None
        assert written(params, "enable_uvm=1") is None
        assert read(params) == "enable_uvm=1"
        assert written(params, "enable_uvm") == "EINVAL"
        assert written(params, " ") is None
        assert read(params) == ""
        assert written(directory / "placement_id", 0) == "EACCES"
    assert written(PCI / PF / "sriov_numvfs", 0) == "EIO"
    assert written(vendor / "vgpu_params", "a=1") is None
    assert set_type(0, 0) is None
    assert set_type(0, ids("a16")["A16-4Q"]) is None
    assert read(vendor / "vgpu_params") == ""
    assert written(MDEVS / str(uuid) / "remove", 1) is None
    assert not mediated.exists()
    Path("/sys/module/nvsim/parameters/creatable_header").write_text("0")
    assert read(vf(1) / "nvidia/creatable_vgpu_types").split(" ", 1)[0].isdecimal()


@pytest.mark.rig
def test_sriov_manage(nvsim):
    nvsim.load("a2:vendor-vfio@81,t4:mdev@41")
    with opened(0):
        status, output = manage("-e", PF)
        assert status != 0
        assert f"Cannot obtain unbindLock for {PF}" in output
        assert (PCI / PF / "driver").resolve().name == "nvidia"
        assert manage("-e", "0000:41:00.0")[0] == 0
    assert manage("-e", "0000:42:00.0")[0] != 0

    pause = Path("/run/sriov-manage.pause")
    pause.touch()
    try:
        with subprocess.Popen([SRIOV_MANAGE, "-e", PF], start_new_session=True) as process:
            until(lambda: (PCI / PF / "driver").resolve().name == "pci-pf-stub")
            process.kill()
    finally:
        pause.unlink()
    assert ask(None, "host").count == 1
    assert not Path("/proc/driver/nvidia/gpus", PF).exists()

    assert manage("-e", PF) == (0, f"Enabling VFs on {PF}\n")
    assert ask(0, "gpu").vfs == 16
    assert set_type(0, ids("a2")["A2-2Q"]) is None
    with opened(0):
        assert manage("-e", PF)[0] == 0
    assert read(vf(0) / "nvidia/current_vgpu_type") != "0"
    assert manage("-d", PF)[0] == 0
    assert not list((PCI / PF).glob("virtfn*"))
    assert ask(0, "vgpus", gi=NONE).count == 0


@pytest.mark.rig(TRIXIE, BOOKWORM)
def test_vfs_that_are_filled_late(nvsim):
    nvsim.load("a2:sriov-mdev@81", ready_delay_ms=3_600_000)
    kernel_log()
    assert manage("-e", PF)[0] == 0
    early = [each.name for each in (vf(5) / "mdev_supported_types").iterdir()]
    assert early
    assert all(each.startswith("pci-") for each in early)
    assert not (vf(5) / "driver").exists()
    assert written(vf(5) / "mdev_supported_types" / early[0] / "create", uuid4()) == "EIO"
    assert refusal() == 0x66
    manage("-d", PF)
    Path("/sys/module/nvsim/parameters/ready_delay_ms").write_text("1")
    manage("-e", PF)
    until((vf(15) / "driver").exists)
    assert all(each.name.startswith("nvidia-") for each in (vf(5) / "mdev_supported_types").iterdir())


@pytest.mark.rig(TRIXIE, BOOKWORM)
def test_an_open_vgpu(nvsim):
    nvsim.load("a2:vendor-vfio@81,t4:mdev@41")
    manage("-e", PF)
    with pytest.raises(OSError) as refused:
        Vfio(vf(0))
    assert refused.value.errno == errno.EIO
    number = ids("a2")["A2-2Q"]
    set_type(0, number)
    set_type(1, number)
    held = Vfio(vf(0))
    try:
        assert held.read(CONFIG, 0, 4) == bytes.fromhex("de10b625")
        assert held.read(CONFIG, 0x2C, 4) == b"\xde\x10" + number.to_bytes(2, "little")
        assert [held.region(each)[0] for each in (BAR0, BAR1)] == [64 << 10, 256 << 20]
        held.write(CONFIG, 0x14, b"\xff" * 8)
        assert held.read(CONFIG, 0x14, 8) == bytes.fromhex("0c0000f0ffffffff")
        far = (200 << 20) - 3
        held.write(BAR1, far, b"across a page")
        assert held.read(BAR1, far - 1, 15) == b"\0across a page\0"
        vgpu = ask(0, "vgpus", gi=NONE).list[0]
        assert (vgpu.pid, vgpu.fb_used_bytes) == (os.getpid(), 2 << 30)
        assert written(vf(0) / "nvidia/vgpu_params", "a=1") == "EBUSY"
        for answer in ("EPERM", "EBUSY"):
            Path("/sys/module/nvsim/parameters/clear_held").write_text(answer)
            assert set_type(0, 0) == answer
        assert "unbindLock" in manage("-d", PF)[1]
        with pytest.raises(subprocess.CalledProcessError):
            nvsim.unload_driver()

        # the scheduler's log has who is open, and nobody else
        log = ask(0, "log", gi=ON_GPU, engine=1)
        until(lambda: ask(0, "log", gi=ON_GPU, engine=1).count > 10)
        log = ask(0, "log", gi=ON_GPU, engine=1)
        assert {each.sw_runlist for each in log.list[: log.count]} == {vgpu.handle}

        Path("/sys/module/nvsim/parameters/clear_held").write_text("block")
        blocked = threading.Thread(target=set_type, args=(0, 0))
        blocked.start()
        assert read(vf(0) / "nvidia/current_vgpu_type") == str(number)
        assert "A2-2Q" in creatable(2)
        assert set_type(2, number) is None
    finally:
        held.close()
    blocked.join(30)
    assert read(vf(0) / "nvidia/current_vgpu_type") == "0"

    # the kernel's own wait, for an mdev
    uuid = uuid4()
    t4 = types(PCI / "0000:41:00.0")
    written(t4["T4-8Q"] / "create", uuid)
    held = Vfio(MDEVS / str(uuid))
    try:
        blocked = threading.Thread(target=written, args=(MDEVS / str(uuid) / "remove", 1))
        blocked.start()
        until(lambda: not (MDEVS / str(uuid)).exists())
        assert read(t4["T4-8Q"] / "available_instances") == "1"
        assert written(t4["T4-8Q"] / "create", uuid) == "EEXIST"
        assert (PCI / "0000:41:00.0" / str(uuid)).exists()
    finally:
        held.close()
    blocked.join(30)
    until(lambda: read(t4["T4-8Q"] / "available_instances") == "2")


@pytest.mark.rig
def test_an_unbind_waits_for_whoever_has_the_gpu_open(nvsim):
    gpu = "0000:41:00.0"
    nvsim.load("t4:mdev@41")
    with opened(0):
        kernel_log()
        leaving = threading.Thread(target=written, args=(PCI / gpu / "driver/unbind", gpu))
        leaving.start()
        until(lambda: any("non-zero usage count" in each for each in kernel_log()))
        assert leaving.is_alive()
    leaving.join(30)
    assert not leaving.is_alive()
    assert not (PCI / gpu / "driver").exists()


@pytest.mark.rig
def test_what_goes_wrong_when_asked_to(nvsim):
    nvsim.load("a2:vendor-vfio@81,a2:vendor-vfio@61,t4:mdev@41")
    manage("-e", "ALL")
    number, other = ids("a2")["A2-2Q"], "0000:61:00.0"
    nvsim.fail("type", "EBUSY", 2, other)
    kernel_log()
    assert [set_type(0, number), set_type(0, number, other), set_type(0, number, other)] == [
        None,
        "EBUSY",
        "EBUSY",
    ]
    assert refusal() is None
    nvsim.fail("type", "0x66", 1)
    assert set_type(1, number) == "EIO"
    assert refusal() == 0x66
    nvsim.fail("type", "EIO", 5)
    nvsim.fail("type", "EIO", 0)
    assert set_type(1, number) is None

    nvsim.set("hang", f"gpu {other}")
    hung = [
        threading.Thread(target=set_type, args=(1, number, other)),
        threading.Thread(target=read, args=(vf(1, other) / "nvidia/creatable_vgpu_types",)),
    ]
    for each in hung:
        each.start()
    assert set_type(2, number) is None
    with pytest.raises(subprocess.CalledProcessError):
        nvsim.unload_driver()
    assert [each.is_alive() for each in hung] == [True, True]
    nvsim.set("hang", "none")
    for each in hung:
        each.join(30)
    assert read(vf(1, other) / "nvidia/current_vgpu_type") == str(number)

    # off the bus, with somebody at it
    held = Vfio(vf(0))
    nvsim.set("lost", 1, PF)
    until(lambda: "Xid (PCI:0000:81:00): 79" in subprocess.check_output(["dmesg"], text=True))
    assert held.read(CONFIG, 0, 4) == b"\xff\xff\xff\xff"
    held.close()
    until(lambda: not (PCI / PF).exists())
    assert ask(None, "host").count == 2
    assert read(vf(1, other) / "nvidia/current_vgpu_type") == str(number)
    nvsim.set("lost", 0, PF)
    before = ask(0, "gpu").uuid
    nvsim.set("swap", "GPU-00000000-1111-2222-3333-444444444444", PF)
    assert before != ask(0, "gpu").uuid == b"GPU-00000000-1111-2222-3333-444444444444"
    assert ask(0, "gpu").vfs == 0


@pytest.mark.thorough
@pytest.mark.rig(TRIXIE, BOOKWORM)
def test_ten_times_in_and_out_with_vgpus_there(nvsim):
    nvsim.load("t4:mdev@41,a2:sriov-mdev@61,a16:vendor-vfio@81")
    manage("-e", "ALL")
    assert set_type(3, ids("a16")["A16-4Q"]) is None
    for parent in (PCI / "0000:41:00.0", vf(2, "0000:61:00.0")):
        kind = min((parent / "mdev_supported_types").iterdir())
        assert written(kind / "create", uuid4()) is None
    nvsim.unload()
    done = subprocess.run(
        ["sh", "-ec", IN_AND_OUT, "sh", "t4:mdev@41"],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1"] * 9
    assert not (PCI / PF).exists()
    assert not MDEVS.exists() or not list(MDEVS.iterdir())

"""The simulated cards and their driver, by files and system calls alone."""

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
    SRIOV_MANAGE,
    Vfio,
    kernel_log,
    manage,
    read,
    until,
    written,
)
from tests.rig.nvsim.nodes import NONE, ON_GPU, ask, opened
from vgpuctl.host.kernel import LocalKernel
from vgpuctl.host.sighting import driver_words
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.nvrm import explain

PF = "0000:81:00.0"
CARDS = {"0000:41:00.0": "t4", "0000:61:00.0": "a2", PF: "l4"}
NVML_IN_USE = 19


def vf(number: int, pf: str = PF) -> Path:
    """A VF's directory: offset 4, stride 1."""
    return PCI / f"{pf[:8]}{(4 + number) // 8:02x}.{(4 + number) % 8}"


def types(parent: Path) -> dict[str, Path]:
    """The type directories of an mdev parent, by short name."""
    return {
        read(each / "name").rpartition(" ")[2]: each for each in (parent / "mdev_supported_types").iterdir()
    }


def ids(key: str) -> dict[str, int]:
    """Type ids by short name."""
    return {each.name: each.type_id for each in Catalog().keyed(key).types if each.type_id is not None}


def set_type(number: int, type_id: int, pf: str = PF) -> str | None:
    return written(vf(number, pf) / "nvidia/current_vgpu_type", type_id)


def creatable(number: int, pf: str = PF) -> set[str]:
    lines = read(vf(number, pf) / "nvidia/creatable_vgpu_types").splitlines()
    assert lines[0] == "ID    : vGPU Name"
    return {each.rpartition(" ")[2] for each in lines[1:]}


def refusal() -> int | None:
    """The code in the kernel log."""
    found = explain(kernel_log())
    return None if found is None else found.code


@pytest.mark.rig(TRIXIE, BOOKWORM)
def test_three_frameworks_offer_what_the_catalogue_says(nvsim):
    nvsim.load("t4:mdev@41,a2:sriov-mdev@61,l4:vendor-vfio@81")
    for index, (address, key) in enumerate(CARDS.items()):
        model = Catalog().keyed(key)
        assert read(PCI / address / "device") == f"0x{model.device:04x}"
        if model.subsystem is not None:
            assert read(PCI / address / "subsystem_device") == f"0x{model.subsystem:04x}"
        assert not (PCI / address / "nvidia").exists()
        gpu = ask(index, "gpu")
        words = driver_words(LocalKernel(Path("/")), address)
        assert (gpu.key.decode(), gpu.name.decode()) == (key, model.name)
        assert (words.model, words.uuid, words.minor) == (model.name, gpu.uuid.decode(), index)
        assert set(ask(index, "types", gi=NONE).ids[: len(model.types)]) >= {
            each.type_id for each in model.types if each.type_id is not None
        }
        assert Path(f"/dev/nvidia{index}").stat().st_mode & 0o777 == 0o666
    assert list(ask(None, "host").minors[:3]) == [0, 1, 2]
    assert "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.90.05" in read(
        Path("/proc/driver/nvidia/version")
    )

    assert manage("-e", "ALL")[0] == 0
    assert sorted(each.name for each in Path("/sys/class/mdev_bus").iterdir()) == [
        "0000:41:00.0",
        *sorted(vf(each, "0000:61:00.0").name for each in range(16)),
    ]
    made = {key: len(list((PCI / address).glob("virtfn*"))) for address, key in CARDS.items()}
    assert made == {"t4": 0, "a2": 16, "l4": 32}
    assert read(PCI / "0000:41:00.0/sriov_totalvfs") == "16"
    assert (PCI / vf(0).name / "driver").resolve().name == "nvidia"

    legacy, virtual = types(PCI / "0000:41:00.0"), types(vf(3, "0000:61:00.0"))
    for offered, key in ((legacy, "t4"), (virtual, "a2")):
        for each in Catalog().keyed(key).types:
            assert offered[each.name].name == f"nvidia-{each.type_id}"
            words = read(offered[each.name] / "description")
            assert f"framebuffer={each.fb_mib}M" in words
            assert words.endswith(f"max_instance={each.max_per_gpu}")
    assert creatable(0) == {each.name for each in Catalog().keyed("l4").types}
    assert read(legacy["T4-1Q"] / "available_instances") == "16"
    assert read(virtual["A2-2Q"] / "available_instances") == "1"

    # after the first one only its size, in any series
    kernel_log()
    assert written(legacy["T4-4Q"] / "create", uuid4()) is None
    assert {name: int(read(each / "available_instances")) for name, each in legacy.items()} == {
        name: 3 if name in ("T4-4Q", "T4-4C", "T4-4A") else 0 for name in legacy
    }
    assert written(legacy["T4-8Q"] / "create", uuid4()) == "EIO"
    assert refusal() == 0x56
    assert written(virtual["A2-2Q"] / "create", uuid4()) is None
    assert written(virtual["A2-2Q"] / "create", uuid4()) == "EIO"
    assert refusal() == 0x38
    assert written(types(vf(4, "0000:61:00.0"))["A2-4Q"] / "create", uuid4()) == "EIO"
    assert refusal() == 0x56
    assert set_type(0, ids("l4")["L4-6Q"]) is None
    assert creatable(0) == set()
    assert creatable(1) == {"L4-6Q", "L4-6C", "L4-6A"}
    assert set_type(1, ids("l4")["L4-8Q"]) == "EIO"
    assert refusal() == 0x56
    assert set_type(0, ids("l4")["L4-6Q"]) == "EPERM"
    assert set_type(1, 4711) == "EIO"
    assert refusal() == 0x57
    assert written(vf(1) / "nvidia/current_vgpu_type", "L4-6Q") == "EINVAL"
    assert [set_type(each, ids("l4")["L4-6A"]) for each in (1, 2, 3, 4)] == [None, None, None, "EIO"]
    assert refusal() == 0x1A
    assert [each.type for each in ask(2, "vgpus", gi=NONE).list[:4]] == [
        int(read(vf(each) / "nvidia/current_vgpu_type")) for each in range(4)
    ]
    assert nvsim.writes() | {"create": 5, "type": 8, "remove": 0, "params": 0} == nvsim.writes()

    # the driver forgets, the cards stay
    uuids = [ask(each, "gpu").uuid for each in range(3)]
    nvsim.unload_driver()
    assert not Path("/dev/nvidiactl").exists()
    nvsim.load_driver()
    assert [ask(each, "gpu").uuid for each in range(3)] == uuids
    assert [ask(each, "gpu").vfs for each in range(3)] == [0, 0, 0]
    assert list(MDEVS.iterdir()) == []


@pytest.mark.rig
def test_files_of_a_vgpu(nvsim):
    nvsim.load("a2:sriov-mdev@61,a16:vendor-vfio@81", numvfs_errno="EIO", creatable_header=True)
    manage("-e", "ALL")
    uuid = uuid4()
    written(types(vf(0, "0000:61:00.0"))["A2-4Q"] / "create", uuid)
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


@pytest.mark.rig
def test_mixed_sizes_have_placements(nvsim):
    nvsim.load("l4:vendor-vfio@81", placement_writable=True)
    ask(0, "mixed", gi=ON_GPU, enable=1)
    assert ask(0, "gpu").mixed == 1
    manage("-e", PF)
    assert ask(0, "gpu").mixed == 0
    number = ids("l4")
    set_type(9, number["L4-1Q"])
    with pytest.raises(OSError) as refused:
        ask(0, "mixed", gi=ON_GPU, enable=1)
    assert refused.value.errno == errno.EBUSY
    set_type(9, 0)
    ask(0, "mixed", gi=ON_GPU, enable=1)
    with pytest.raises(OSError) as refused:
        ask(0, "set_scheduler", gi=ON_GPU, engine=1, policy=3)
    assert refused.value.errno == errno.EOPNOTSUPP

    # of three that fit by their size, two have a place
    starts = {each: [] for each in ("L4-8Q", "L4-2Q")}
    for each in starts:
        found = ask(0, "placements", type=number[each], gi=ON_GPU, creatable=1)
        starts[each] = list(found.starts[: found.count])
    assert starts == {"L4-8Q": [0, 16], "L4-2Q": [0, 4, 6, 10, 12, 16, 18, 22]}
    kernel_log()
    assert [set_type(each, number["L4-8Q"]) for each in range(3)] == [None, None, "EIO"]
    assert refusal() == 0x1A
    assert set_type(2, number["L4-6Q"]) == "EIO"
    assert refusal() == 0x40
    assert set_type(2, number["L4-2Q"]) is None
    placement = vf(2) / "nvidia/placement_id"
    assert [read(vf(each) / "nvidia/placement_id") for each in range(3)] == ["0", "16", "10"]
    assert written(placement, 12) is None
    assert read(placement) == "12"
    assert [written(placement, each) for each in (16, 11, "x")] == ["EIO", "EIO", "EINVAL"]
    # the other way: a parameter that the start of the VM obeys
    params = vf(2) / "nvidia/vgpu_params"
    written(params, "vgpu-placement-id=18")
    with pytest.raises(OSError) as refused:
        Vfio(vf(2))
    assert refused.value.errno == errno.EIO
    written(params, "vgpu-placement-id=10")
    Vfio(vf(2)).close()
    assert read(placement) == "10"


@pytest.mark.rig
def test_mig_of_a_card_that_keeps_it(nvsim):
    nvsim.load("a100-40:vendor-vfio@81,a30:sriov-mdev@61+mig", gi_writable=True)
    assert [ask(each, "gpu").mig_current for each in (0, 1)] == [0, 1]
    kernel_log()
    with opened(0), opened(0) as client:
        assert client.ask("mig", enable=1).status == NVML_IN_USE
        gpu = client.ask("gpu")
        assert (gpu.mig_current, gpu.mig_pending) == (0, 1)
    manage("-e", PF)
    assert ask(0, "gpu").mig_current == 1
    number = ids("a100-40")
    assert creatable(0) == set()
    assert set_type(0, number["A100-1-5C"]) == "EIO"
    assert refusal() == 0x38

    made = [ask(0, "create_instance", profile=9, start=NONE) for _ in range(2)]
    assert [(each.start, each.id) for each in made] == [(4, 2), (0, 1)]
    assert ask(0, "room", profile=19).remaining == 0
    ask(0, "destroy_instance", value=1)
    assert [ask(0, "room", profile=each).remaining for each in (19, 14, 9, 5, 0)] == [4, 2, 1, 1, 0]
    with pytest.raises(OSError) as refused:
        ask(0, "create_instance", profile=14, start=4)
    assert refused.value.errno == errno.ENOSPC
    for start in (2, 0):
        ask(0, "create_instance", profile=14, start=start)
    assert creatable(0) == {"A100-3-20C", "A100-2-10C"}
    assert set_type(0, number["A100-2-10C"]) is None
    assert read(vf(0) / "nvidia/gpu_instance_id") == "3"
    assert written(vf(0) / "nvidia/gpu_instance_id", 4) is None
    assert set_type(1, number["A100-2-10C"]) is None
    assert read(vf(1) / "nvidia/gpu_instance_id") == "3"
    assert set_type(2, number["A100-2-10C"]) == "EIO"
    assert refusal() == 0x40
    assert set_type(2, number["A100-4C"]) == "EIO"
    assert refusal() == 0x38
    with pytest.raises(OSError) as refused:
        ask(0, "destroy_instance", value=3)
    assert refused.value.errno == errno.EBUSY
    ci = ask(0, "create_ci", gi=2, slices=2)
    with pytest.raises(OSError) as refused:
        ask(0, "create_ci", gi=2, slices=2)
    assert refused.value.errno == errno.ENOSPC
    with pytest.raises(OSError) as refused:
        ask(0, "destroy_instance", value=2)
    assert refused.value.errno == errno.EBUSY
    ask(0, "destroy_ci", gi=2, id=ci.id)
    with pytest.raises(OSError) as refused:
        ask(0, "mig", enable=0)
    assert refused.value.errno == errno.EBUSY

    manage("-d", PF)
    assert ask(0, "instances").count == 0
    nvsim.unload_driver()
    nvsim.load_driver()
    assert ask(0, "gpu").mig_current == 1
    assert ask(0, "mig", enable=0).status == 0
    assert ask(0, "gpu").mig_current == 0


@pytest.mark.rig
def test_mig_that_the_driver_keeps_and_several_vgpus_on_one_instance(nvsim):
    nvsim.load("rtx-pro-4500:vendor-vfio@61,rtx-pro-6000:vendor-vfio@81")
    assert ask(1, "mig", enable=1).status == 0
    manage("-e", PF)
    assert ask(1, "gpu").mig_current == 1
    number = ids("rtx-pro-6000")
    made = [ask(1, "create_instance", profile=47, start=each) for each in (0, 1)]
    assert [each.id for each in made] == [3, 4]
    kernel_log()
    # one size on an instance, in any series; another size takes the next
    assert [set_type(0, number["DC-1-3Q"]), set_type(1, number["DC-1-3A"])] == [None, None]
    assert set_type(2, number["DC-1-6Q"]) is None
    assert [read(vf(each) / "nvidia/gpu_instance_id") for each in range(3)] == ["3", "3", "4"]
    assert set_type(3, number["DC-1-4Q"]) == "EIO"
    assert refusal() == 0x40
    assert [set_type(each, number["DC-1-6A"]) for each in (3, 4, 5, 6)] == [None, None, None, "EIO"]
    assert ask(1, "types", creatable=1, gi=4).count == 0
    assert ask(1, "vgpus", gi=4).count == 4
    for each in range(6):
        set_type(each, 0)
    ask(1, "mixed", gi=3, enable=1)
    assert [set_type(0, number["DC-1-12Q"]), set_type(1, number["DC-1-6Q"])] == [None, None]
    assert [read(vf(each) / "nvidia/placement_id") for each in range(2)] == ["0", "12"]
    nvsim.unload_driver()
    nvsim.load_driver()
    assert ask(1, "gpu").mig_current == 0


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
def test_schedulers(nvsim):
    nvsim.load("a2:vendor-vfio@81,m60:mdev@41")
    manage("-e", PF)
    state = ask(0, "scheduler", gi=ON_GPU, engine=1)
    assert (state.policy, state.timeslice_ns) == (1, 2_000_000)
    ask(0, "set_scheduler", gi=ON_GPU, engine=1, policy=2)
    state = ask(0, "scheduler", gi=ON_GPU, engine=1)
    assert (state.policy, state.avg_factor, state.frequency) == (2, 33, 480)
    for arguments, code in (
        ({"policy": 2, "frequency": 62}, errno.EINVAL),
        ({"policy": 3, "arr": 1, "timeslice_ns": 31_000_000}, errno.EINVAL),
        ({"policy": 4}, errno.EINVAL),
    ):
        with pytest.raises(OSError) as refused:
            ask(0, "set_scheduler", gi=ON_GPU, engine=1, **arguments)
        assert refused.value.errno == code
    ask(0, "set_scheduler", gi=ON_GPU, engine=1, policy=3, arr=1, timeslice_ns=4_000_000)
    set_type(0, ids("a2")["A2-2Q"])
    for minor in (0, 1):
        with pytest.raises(OSError) as refused:
            ask(minor, "set_scheduler", gi=ON_GPU, engine=1, policy=1)
        assert refused.value.errno == errno.EOPNOTSUPP


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


@pytest.mark.rig(TRIXIE, BOOKWORM)
def test_vfs_that_are_filled_late(nvsim):
    nvsim.load("a2:sriov-mdev@81,a16:vendor-vfio@61", ready_delay_ms=3_600_000)
    kernel_log()
    assert manage("-e", "ALL")[0] == 0
    early = [each.name for each in (vf(5) / "mdev_supported_types").iterdir()]
    assert early
    assert all(each.startswith("pci-") for each in early)
    assert not (vf(5) / "driver").exists()
    assert written(vf(5) / "mdev_supported_types" / early[0] / "create", uuid4()) == "EIO"
    assert refusal() == 0x66
    assert not (vf(5, "0000:61:00.0") / "nvidia").exists()
    manage("-d", "ALL")
    Path("/sys/module/nvsim/parameters/ready_delay_ms").write_text("1")
    manage("-e", "ALL")
    until(lambda: (vf(15, "0000:61:00.0") / "nvidia").exists() and (vf(15) / "driver").exists())
    assert all(each.name.startswith("nvidia-") for each in (vf(5) / "mdev_supported_types").iterdir())


@pytest.mark.rig(TRIXIE, BOOKWORM)
def test_twenty_times_in_and_out_with_vgpus_there(nvsim):
    for number in range(20):
        nvsim.load("t4:mdev@41,a2:sriov-mdev@61,a16:vendor-vfio@81")
        assert written(types(PCI / "0000:41:00.0")["T4-4Q"] / "create", uuid4()) is None
        if number == 0:
            manage("-e", "ALL")
            assert set_type(3, ids("a16")["A16-4Q"]) is None
            assert written(types(vf(2, "0000:61:00.0"))["A2-4Q"] / "create", uuid4()) is None
        nvsim.unload()
    assert not (PCI / PF).exists()
    assert not MDEVS.exists() or not list(MDEVS.iterdir())


@pytest.mark.rig
def test_a_card_with_plain_vfs(nvsim):
    nvsim.load("mxgpu:passthrough@81")
    assert read(PCI / PF / "vendor") == "0x1002"
    assert written(PCI / PF / "sriov_numvfs", 4) is None
    assert len(list((PCI / PF).glob("virtfn*"))) == 4
    assert read(vf(0) / "device") == "0x692f"
    assert written(PCI / PF / "sriov_numvfs", 0) is None

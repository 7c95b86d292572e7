"""What the simulated driver offers and what it refuses, by files and system calls alone."""

from __future__ import annotations

import errno
from pathlib import Path
from uuid import uuid4

import pytest

from tests.rig.guests import BOOKWORM, TRIXIE
from tests.rig.hands import (
    MDEVS,
    PCI,
    PF,
    Vfio,
    creatable,
    ids,
    kernel_log,
    manage,
    read,
    refusal,
    set_type,
    types,
    vf,
    written,
)
from tests.rig.nvsim.nodes import NONE, ON_GPU, ask, opened
from vgpuctl.host.kernel import LocalKernel
from vgpuctl.host.sighting import driver_words
from vgpuctl.model.catalog import Catalog

CARDS = {"0000:41:00.0": "t4", "0000:61:00.0": "a2", PF: "l4"}
NVML_IN_USE = 19


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
def test_a_card_with_plain_vfs(nvsim):
    nvsim.load("mxgpu:passthrough@81")
    assert read(PCI / PF / "vendor") == "0x1002"
    assert written(PCI / PF / "sriov_numvfs", 4) is None
    assert len(list((PCI / PF).glob("virtfn*"))) == 4
    assert read(vf(0) / "device") == "0x692f"
    assert written(PCI / PF / "sriov_numvfs", 0) is None

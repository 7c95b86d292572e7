"""Mediated devices, on the PF and on VFs (hardware.md 1.1 to 1.3 and 1.6)."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from uuid import uuid4

import pytest

from tests.conformance.bench import create_step, eventually, identity, removal
from vgpuctl.errors import Conflict, RemovalBlocked, UnsupportedHere
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.gpu import FrameworkKind, GpuState
from vgpuctl.model.step import SetVfs


@pytest.fixture
def t4(host):
    return host("t4")


@pytest.fixture
def a2(host):
    return host("a2:sriov-mdev", vfs=True)


def types_of(bench):
    return f"sys/class/mdev_bus/{bench.gpu().address}/mdev_supported_types"


def a_create(bench):
    return f"{types_of(bench)}/nvidia-{bench.gpu().type_named('T4-4Q').type_id}/create"


def fails_with(number, call, *arguments):
    with pytest.raises(OSError) as caught:
        call(*arguments)
    assert caught.value.errno == number


@pytest.mark.read_only
def test_the_files_of_a_type(t4):
    """hardware.md 1.1.1, 1.1.3, 1.1.5: description verbatim, device_api vfio-pci; the same tree twice."""
    types = types_of(t4)
    assert t4.kernel.list(types) == t4.kernel.list(f"{t4.pf()}/mdev_supported_types")
    for directory in t4.kernel.list(types):
        assert re.fullmatch(r"nvidia-\d+", directory)
        assert t4.kernel.read(f"{types}/{directory}/device_api") == "vfio-pci"
        assert re.fullmatch(
            r"num_heads=\d+, frl_config=\d+, framebuffer=\d+M, max_resolution=\d+x\d+, max_instance=\d+",
            t4.kernel.read(f"{types}/{directory}/description"),
        )


@pytest.mark.read_only
def test_the_short_name_is_the_last_word(t4):
    """hardware.md 1.1.4: `GRID T4-4Q`."""
    found = t4.gpu().type_named("T4-4Q")
    assert found.raw_name == "GRID T4-4Q"
    assert (found.fb_mib, found.max_per_gpu, found.heads) == (4096, 4, 4)


def test_create_wants_36_characters(t4):
    """hardware.md 1.1.2: a 36-character UUID and one byte more, whatever it is, else EINVAL."""
    create = a_create(t4)
    for text in ("desk", str(uuid4())[:-1], str(uuid4()) + "\n\n", "g" + str(uuid4())[1:]):
        fails_with(errno.EINVAL, t4.kernel.write, create, text)
    t4.kernel.write(create, "")  # reaches no driver
    assert t4.gpu().vgpus == ()
    t4.kernel.write(create, f"{uuid4()}\n")
    t4.kernel.write(create, f"{uuid4()}0")
    assert len(t4.gpu().vgpus) == 2


@pytest.mark.read_only
def test_create_is_write_only(t4):
    """hardware.md 1.1.2: `create` is write-only."""
    with pytest.raises(OSError):
        t4.kernel.read(a_create(t4))


def test_a_uuid_exists_once_per_host(host):
    """hardware.md 1.6.4: EEXIST, also on another GPU."""
    bench = host("2xt4")
    step = bench.create(bench.gpu(0), "T4-4Q")
    other = bench.gpu(1)
    fails_with(
        errno.EEXIST,
        bench.kernel.write,
        f"sys/class/mdev_bus/{other.address}/mdev_supported_types/nvidia-{step.type_id}/create",
        str(step.vgpu),
    )
    with pytest.raises(Conflict) as caught:
        bench.create(other, "T4-4Q", vgpu=step.vgpu)
    assert str(step.parent) in caught.value.message
    assert bench.gpu(1).vgpus == ()


def test_available_is_maximum_less_created_for_the_size_and_zero_for_others(t4):
    """hardware.md 0.3, 1.1.7: after one 1Q of 16: 1Q 15, 2Q 0."""

    def available(name):
        number = t4.gpu().type_named(name).type_id
        return int(t4.kernel.read(f"{types_of(t4)}/nvidia-{number}/available_instances"))

    assert (available("T4-1Q"), available("T4-2Q")) == (16, 8)
    t4.create(t4.gpu(), "T4-1Q")
    assert (available("T4-1Q"), available("T4-2Q")) == (15, 0)


def test_forcing_another_size_says_so_in_three_lines(t4):
    """hardware.md 1.1.8: EIO, and the kernel log has NVRM's code, the device and the probe that failed."""
    gpu = t4.gpu()
    t4.create(gpu, "T4-1Q")
    mark = t4.newest_line()
    other = f"{types_of(t4)}/nvidia-{gpu.type_named('T4-2Q').type_id}/create"
    fails_with(errno.EIO, t4.kernel.write, other, str(uuid4()))
    said = t4.said_since(mark)
    assert "NVRM: Failed to add vgpu create request: 0x56" in said
    assert "vGPU creation failed on device 0x4100. -5" in said
    assert "probe failed with error -12" in said


def test_an_mdev_links_to_its_type_below_its_parent(t4):
    """hardware.md 1.2.1: a link to its place below its parent."""
    step = t4.create(t4.gpu(), "T4-4Q")
    path = f"sys/bus/mdev/devices/{step.vgpu}"
    assert t4.kernel.resolve(path).split("/")[-2:] == [str(step.parent), str(step.vgpu)]
    assert t4.kernel.link(f"{path}/mdev_type") == f"nvidia-{step.type_id}"
    assert t4.kernel.list(f"{path}/mdev_type/devices") == (str(step.vgpu),)


@pytest.mark.read_only
def test_a_t4_shows_totalvfs_and_has_its_types_on_the_pf(t4):
    """hardware.md T19: T4 shows totalvfs but has no VFs."""
    gpu = t4.gpu()
    assert t4.kernel.read(f"{t4.pf()}/sriov_totalvfs") == "16"
    assert (gpu.framework, gpu.state, gpu.vfs_max, gpu.vfs) == (FrameworkKind.MDEV, GpuState.READY, 0, ())


def test_a_removal_waits_for_whoever_holds_it_and_still_occupies_its_place(t4):
    """hardware.md 1.6.1, 1.6.2: it waits without limit; the mdev has left the bus, not its parent."""
    step = t4.create(t4.gpu(), "T4-16Q")
    t4.control("hold", vgpu=str(step.vgpu), domain="desk")
    with pytest.raises(TimeoutError):
        t4.kernel.write_abandonable(f"sys/bus/mdev/devices/{step.vgpu}/remove", "1", 0.1)
    assert eventually(lambda: str(step.vgpu) not in t4.kernel.list("sys/bus/mdev/devices"))
    fails_with(errno.ENOENT, t4.kernel.write, f"{t4.pf()}/{step.vgpu}/remove", "1")
    fails_with(errno.EEXIST, t4.kernel.write, f"{types_of(t4)}/nvidia-{step.type_id}/create", str(step.vgpu))
    assert t4.kernel.list(f"{types_of(t4)}/nvidia-{step.type_id}/devices") == ()
    (leaving,) = t4.gpu().vgpus
    assert leaving.mdev_uuid == step.vgpu
    assert leaving.type_id == Unknown("it is being removed")
    assert isinstance(leaving.holders, Unknown)
    assert t4.creatable() == set()
    with pytest.raises(RemovalBlocked):
        t4.host.run(step)
    with pytest.raises(RemovalBlocked):
        t4.host.run(removal(step))
    t4.control("release", vgpu=str(step.vgpu))
    t4.host.run(removal(step))
    assert t4.gpu().vgpus == ()


def test_the_same_uuid_of_another_type_is_left_alone(t4):
    step = t4.create(t4.gpu(), "T4-4Q")
    t4.host.run(removal(step))
    t4.create(t4.gpu(), "T4-4C", vgpu=step.vgpu)
    with pytest.raises(Conflict):
        t4.host.run(removal(step))
    assert len(t4.gpu().vgpus) == 1


def test_a_parent_without_that_type_refuses_before_anything_is_written(t4):
    gpu = t4.gpu()
    step = create_step(gpu, "T4-4Q")
    wrong = type(step)(**{name: getattr(step, name) for name in step.__slots__} | {"type_id": 558})
    before = t4.writes()
    with pytest.raises(UnsupportedHere):
        t4.host.run(wrong)
    assert t4.writes() == before


def test_vfs_start_at_function_4_and_the_pf_then_lists_no_types(a2):
    """hardware.md 0.3, 1.3.1, 1.3.2, 1.3.4: from .4 on, types on VFs only."""
    gpu = a2.gpu()
    assert gpu.vfs[0].address == replace(gpu.address, function=4)
    assert gpu.framework is FrameworkKind.SRIOV_MDEV
    assert not a2.kernel.exists(f"{a2.pf()}/mdev_supported_types")
    assert len(gpu.vfs) == gpu.vfs_max == 16


def test_one_mdev_per_vf_ever(a2):
    """hardware.md 0.3, 1.3.3, 1.3.5: available_instances of a VF is 0 or 1; a second create is 0x38."""
    step = a2.create(a2.gpu(), "A2-4Q")
    types = f"sys/bus/pci/devices/{step.parent}/mdev_supported_types"
    assert {a2.kernel.read(f"{types}/{each}/available_instances") for each in a2.kernel.list(types)} == {"0"}
    fails_with(errno.EIO, a2.kernel.write, f"{types}/nvidia-{step.type_id}/create", str(uuid4()))
    assert any("0x38" in line.text for line in a2.kernel.log())
    with pytest.raises(Conflict) as caught:
        a2.create(a2.gpu(), "A2-4Q", parent=step.parent)
    assert caught.value.facts["mdev"] == str(step.vgpu)


def test_a_free_vf_offers_at_most_one_of_each_type(a2):
    """hardware.md 0.3: 0 or 1."""
    types = f"sys/bus/pci/devices/{a2.gpu().vfs[0].address}/mdev_supported_types"
    shown = {a2.kernel.read(f"{types}/{each}/available_instances") for each in a2.kernel.list(types)}
    assert shown == {"1"}


@pytest.mark.read_only
def test_with_vfs_off_nothing_is_known_of_what_can_be_created(host):
    """hardware.md 1.5.2: types and framework show only once VFs are on."""
    gpu = host("a2:sriov-mdev").gpu()
    assert gpu.state is GpuState.VFS_OFF
    assert gpu.framework is None
    assert isinstance(gpu.creatable, Unknown)


def test_vfs_appear_late_and_their_types_are_first_named_after_the_bus(host):
    """hardware.md T18: VFs appear late and may show `pci-NNN` type dirs first."""
    bench = host("a2:sriov-mdev", ready_delay_s=15)
    gpu = bench.gpu()
    bench.kernel.sriov_manage(str(gpu.address), enable=True, timeout_s=60)
    early = bench.gpu()
    assert early.vfs
    assert not any(vf.ready for vf in early.vfs)
    assert early.state is GpuState.NO_TYPES
    bench.host.run(SetVfs(gpu=identity(gpu), enabled=True))
    late = bench.gpu()
    assert all(vf.ready for vf in late.vfs)
    assert late.state is GpuState.READY
    assert known(late.creatable)

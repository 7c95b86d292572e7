"""The tree as files, links and directories."""

from __future__ import annotations

import errno

import pytest

from tests.sim.hosts import DEVICES, FIRST, refused, vf, with_vfs
from vgpuctl.ports.handles import VfioHandles
from vgpuctl.ports.host import Simulator
from vgpuctl.ports.kernel import Kernel
from vgpuctl.ports.nvml import Nvml
from vgpuctl.sim.host import SimHost
from vgpuctl.sim.node import Link, folder, walk


def test_it_serves_the_ports() -> None:
    host = SimHost.in_memory("t4")
    kernel: Kernel = host.kernel
    nvml: Nvml = host.nvml
    handles: VfioHandles = host.handles
    simulator: Simulator = host
    assert all((kernel, nvml, handles, simulator))


@pytest.mark.parametrize(
    ("verb", "path", "number"),
    [
        ("read", "sys/nowhere", errno.ENOENT),
        ("read", DEVICES, errno.EISDIR),
        ("list", f"{DEVICES}/{FIRST}/vendor", errno.ENOTDIR),
        ("read", f"{DEVICES}/{FIRST}/vendor/x", errno.ENOTDIR),
        ("link", f"{DEVICES}/{FIRST}/vendor", errno.EINVAL),
        ("link", f"{DEVICES}/{FIRST}/physfn", errno.ENOENT),
        ("resolve", "sys/nowhere", errno.ENOENT),
    ],
)
def test_errors_are_the_kernels(verb, path, number):
    host = SimHost.in_memory("l40s")
    with refused(number):
        getattr(host.kernel, verb)(path)


@pytest.mark.parametrize(
    ("path", "number"),
    [("sys/x", errno.ENOENT), (DEVICES, errno.EISDIR), (f"{DEVICES}/{FIRST}/vendor", errno.EACCES)],
)
def test_only_attributes_are_written(path, number):
    host = SimHost.in_memory("l40s")
    with refused(number):
        host.kernel.write(path, "1")


def test_everything_that_is_listed_is_there():
    """Every name of every directory leads somewhere, and every link to something."""
    kernel = with_vfs("t4,l40s,a2:sriov-mdev,mtty,mxgpu").kernel
    todo, links = ["sys", "proc", "dev", "usr"], 0
    while todo:
        path = todo.pop()
        try:
            names = kernel.list(path)
        except NotADirectoryError:
            continue
        for name in names:
            below = f"{path}/{name}"
            assert kernel.exists(below), below
            try:
                kernel.link(below)
            except OSError:
                todo.append(below)
            else:
                links += 1
    assert links > 200


def test_links_may_stand_in_the_middle_and_dots_climb():
    host = with_vfs("l40s")
    real = host.kernel.resolve(f"{DEVICES}/{vf(0)}/physfn/virtfn1/../{vf(2)}/nvidia")
    assert real == f"sys/devices/pci0000:40/0000:40:01.0/{vf(2)}/nvidia"


def test_a_loop_of_links_is_eloop():
    root = folder({"a": Link("b"), "b": Link("a")})
    with refused(errno.ELOOP):
        walk(root, "a")


def test_reads_and_writes_are_counted():
    host = SimHost.in_memory("l40s")
    host.kernel.read("proc/sys/kernel/hostname")
    host.kernel.list(DEVICES)
    host.kernel.exists("sys")
    assert host.kernel.operations == {"read": 1, "list": 1, "exists": 1}


def test_uevents_tell_of_vfs_and_vgpus():
    host = SimHost.in_memory("mxgpu")
    uevents = host.kernel.uevents()
    host.kernel.write(f"{DEVICES}/{FIRST}/sriov_numvfs", "2")
    seen = [next(uevents), next(uevents)]
    assert [(each.action, each.subsystem) for each in seen] == [("add", "pci")] * 2
    assert seen[0].devpath == f"/devices/pci0000:40/0000:40:01.0/{vf(0)}"
    host.kernel.close()
    assert list(uevents) == []

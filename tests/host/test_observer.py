from __future__ import annotations

import threading
import time
from uuid import UUID, uuid4

import pytest

from vgpuctl.errors import LibvirtUnreachable
from vgpuctl.host.local import LocalHost
from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.domain import Hypervisor
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.gpu import GpuState
from vgpuctl.model.step import CreateVgpu, SetVfs
from vgpuctl.sim.host import SimHost

CATALOG = Catalog()
HANGS_S = 2.0
"""After so long a GPU hangs: the others have to be read by then, on a busy machine too."""


class Libvirt:
    """A libvirt that answers what a test says."""

    def __init__(self, domains=(), error=None, hang=None):
        self.answer, self.error, self.hang = domains, error, hang
        self.calls = 0

    def info(self):
        self.calls += 1
        if self.hang is not None:
            self.hang.wait()
        if self.error is not None:
            raise self.error
        return Hypervisor(
            uri="test:///default", version="9.0.0", can_attach_config=True, can_attach_live=True
        )

    def domains(self):
        if self.error is not None:
            raise self.error
        return self.answer


class HangingKernel:
    """Hangs below one path until it is let go."""

    def __init__(self, kernel, below):
        self._kernel, self._below = kernel, below
        self.gate = threading.Event()
        self.hung = 0

    def __getattr__(self, name):
        real = getattr(self._kernel, name)
        if name not in {"read", "list", "link", "resolve", "exists"}:
            return real

        def call(path):
            if self._below in path and not self.gate.is_set():
                self.hung += 1
                self.gate.wait()
            return real(path)

        return call


def local(sim, **changes):
    ports = {
        "kernel": sim.kernel,
        "nvml": sim.nvml,
        "handles": sim.handles,
        "hypervisor": None,
        "catalog": CATALOG,
        "clock": sim.clock,
        "simulated": True,
    }
    return LocalHost(**(ports | changes))


def vfs_on(host):
    for gpu in host.observe().gpus:
        if gpu.state is GpuState.VFS_OFF:
            host.run(SetVfs(gpu=GpuIdentity(gpu.address, gpu.device, known(gpu.uuid)), enabled=True))


def test_gpus_are_numbered_by_address_and_the_host_names_itself():
    sim = SimHost.in_memory("l40s,t4,mtty", CATALOG)
    seen = local(sim).observe()
    assert [str(each.address) for each in seen.gpus] == ["0000:41:00.0", "0000:61:00.0", "mtty"]
    assert [each.index for each in seen.gpus] == [0, 1, 2]
    assert (seen.hostname, seen.kernel) == ("simulated", "6.8.0-60-generic")
    assert known(seen.driver_version) == "580.65.06"
    assert UUID(seen.boot_id)
    assert seen.simulated


@pytest.mark.parametrize("framework", ["vendor-vfio", "sriov-mdev"])
def test_reads_grow_by_three_per_vf_and_by_nothing_per_vf_and_type(framework):
    """The bound in the module's docstring."""

    def reads(count):
        host = local(SimHost.in_memory(f"{count}xl40s:{framework}", CATALOG))
        vfs_on(host)
        host.observe()
        seen = host.observe()
        return seen.reads, sum(len(each.vfs) for each in seen.gpus), len(seen.gpus[0].types)

    (one, vfs, types), (three, all_vfs, _) = reads(1), reads(3)
    per_gpu = 16 + (types if framework == "sriov-mdev" else 0)
    assert all_vfs == 3 * vfs
    assert three - one <= 2 * (per_gpu + 3 * vfs)
    assert one <= 9 + 1 + 2 + 2 + per_gpu + 3 * vfs


def test_a_vgpu_costs_at_most_six_reads():
    sim = SimHost.in_memory("l40s", CATALOG)
    host = local(sim)
    vfs_on(host)
    gpu = host.observe().gpus[0]
    before = host.observe().reads
    for vf in gpu.vfs[:6]:
        host.run(
            CreateVgpu(
                vgpu=uuid4(),
                name="desk",
                gpu=GpuIdentity(gpu.address, gpu.device, known(gpu.uuid)),
                framework=gpu.framework,
                parent=vf.address,
                type_id=gpu.type_named("L40S-8Q").type_id,
                type_name="L40S-8Q",
            )
        )
    assert len(host.observe().vgpus()) == 6
    assert host.observe().reads - before <= 6 * 6


def test_a_gpu_that_hangs_is_unreadable_and_holds_up_no_other():
    """It is not asked again while it hangs, and is itself again when it answers."""
    sim = SimHost.in_memory("2xt4", CATALOG)
    kernel = HangingKernel(sim.kernel, "0000:61:00.0/mdev_supported_types/nvidia-232/available")
    host = local(sim, kernel=kernel, gpu_timeout_s=HANGS_S)
    first, second = host.observe().gpus
    assert first.state is GpuState.READY
    assert second.state is GpuState.UNREADABLE
    assert isinstance(second.creatable, Unknown)
    asked = kernel.hung
    host.observe()
    assert kernel.hung == asked
    kernel.gate.set()
    for thread in threading.enumerate():
        if thread.name == "reader":
            thread.join(30)
    assert host.observe().gpus[1].state is GpuState.READY


def test_a_start_does_not_hang_with_a_gpu_that_does_not_even_say_that_it_is_there(monkeypatch):
    """And the other one, which takes some time to be read, is left some."""
    sim = SimHost.in_memory("t4,t4", CATALOG)
    host = local(sim, gpu_timeout_s=HANGS_S)
    addresses = [each.address for each in host.observe().gpus]
    read = sim.kernel.read
    monkeypatch.setattr(sim.kernel, "read", lambda path: time.sleep(0.01) or read(path))
    sim.control("fail", {"what": "gpu", "gpu": str(addresses[0]), "hang": True})
    seen = []
    glimpse = threading.Thread(target=lambda: seen.append(host.glimpse(addresses)), daemon=True)
    glimpse.start()
    glimpse.join(20.0)
    sim.control("heal")
    (snapshot,) = seen
    assert [each.state for each in snapshot.gpus] == [GpuState.UNREADABLE, GpuState.READY]


def test_a_bus_that_hangs_at_first_sight_hides_no_other():
    sim = SimHost.in_memory("2xt4", CATALOG)
    kernel = HangingKernel(sim.kernel, "0000:41:00.0")
    first, second = local(sim, kernel=kernel, gpu_timeout_s=HANGS_S).observe().gpus
    assert (str(first.address), first.state) == ("0000:41:00.0", GpuState.UNREADABLE)
    assert second.state is GpuState.READY
    kernel.gate.set()


def test_an_unreadable_gpu_keeps_who_it_was():
    """DESIGN: a card whose UUID cannot be read now is known by its last record."""
    sim = SimHost.in_memory("t4", CATALOG)
    host = local(sim)
    before = host.observe().gpus[0]
    sim.control("fail", {"what": "gpu", "gpu": 0, "errno": "EIO"})
    after = host.observe().gpus[0]
    assert after.state is GpuState.UNREADABLE
    assert (after.uuid, after.device, after.model) == (before.uuid, before.device, before.model)
    assert after.types == ()
    sim.control("heal")
    assert host.observe().gpus[0].state is GpuState.READY


def test_without_nvml_facts_are_unknown_and_the_gpu_is_usable():
    sim = SimHost.in_memory("l40s", CATALOG)
    host = local(sim)
    vfs_on(host)
    sim.control("fail", {"what": "nvml"})
    gpu = host.observe().gpus[0]
    assert gpu.state is GpuState.READY
    assert isinstance(gpu.fb_mib, Unknown)
    assert isinstance(gpu.mixed_size, Unknown)
    assert gpu.mig is False, "an L40S has no MIG, whoever is asked"
    assert gpu.creatable


def test_nvml_that_hangs_is_unknown():
    sim = SimHost.in_memory("t4", CATALOG)
    gate = threading.Event()

    class Nvml:
        def host(self, timeout_s, **_more):
            gate.wait()

    seen = local(sim, nvml=Nvml(), nvml_timeout_s=0.05).observe()
    assert isinstance(seen.gpus[0].fb_mib, Unknown)
    assert "in time" in seen.gpus[0].fb_mib.reason
    assert seen.gpus[0].state is GpuState.READY
    gate.set()


def test_libvirt_away_makes_its_own_facts_unknown_and_nothing_else():
    sim = SimHost.in_memory("t4", CATALOG)
    seen = local(sim, hypervisor=Libvirt(error=LibvirtUnreachable("libvirtd is down"))).observe()
    assert isinstance(seen.hypervisor, Unknown)
    assert "libvirtd is down" in seen.domains.reason
    assert seen.gpus[0].state is GpuState.READY


def test_libvirt_that_hangs_is_not_asked_again():
    sim = SimHost.in_memory("t4", CATALOG)
    libvirt = Libvirt(hang=threading.Event())
    host = local(sim, hypervisor=libvirt, libvirt_timeout_s=0.05)
    assert isinstance(host.observe().domains, Unknown)
    assert isinstance(host.observe().domains, Unknown)
    assert libvirt.calls == 1
    libvirt.hang.set()


def test_libvirts_answer_is_part_of_the_snapshot():
    seen = local(SimHost.in_memory("t4", CATALOG), hypervisor=Libvirt()).observe()
    assert seen.hypervisor.uri == "test:///default"
    assert seen.domains == ()


def test_unreadable_handles_make_holders_unknown_and_never_none():
    """DESIGN: an unreadable /proc/PID/fd counts as busy."""
    sim = SimHost.in_memory("mtty", CATALOG)
    sim.control("foreign", {"gpu": "mtty", "type": "mtty-1"})
    sim.control("fail", {"what": "holders"})
    (vgpu,) = local(sim).observe().vgpus()
    assert isinstance(vgpu.holders, Unknown)


def test_a_host_without_pci_and_without_a_driver_is_an_empty_host():
    class Nothing:
        def __getattr__(self, name):
            def call(*_):
                raise FileNotFoundError(2, "No such file or directory")

            return call

    sim = SimHost.in_memory("t4", CATALOG)
    seen = local(sim, kernel=Nothing()).observe()
    assert seen.gpus == ()
    assert seen.boot_id == ""


def test_a_gpu_that_cannot_be_read_from_the_start_is_one_gpu_and_not_hidden():
    """Its VFs cannot be read either, and are no GPUs."""
    sim = SimHost.in_memory("l40s,t4", CATALOG)
    vfs_on(local(sim))
    sim.control("fail", {"what": "gpu", "gpu": 0, "errno": "EIO"})
    states = [(str(each.address), each.state) for each in local(sim).observe().gpus]
    assert states == [("0000:41:00.0", GpuState.UNREADABLE), ("0000:61:00.0", GpuState.READY)]

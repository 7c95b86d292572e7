from __future__ import annotations

import errno
import threading
from uuid import uuid4

import pytest
from test_observer import CATALOG, Libvirt, local

from vgpuctl.errors import (
    CardChanged,
    FactUnknown,
    InvalidGpuState,
    KernelRefused,
    LibvirtUnreachable,
    UnsupportedHere,
    VgpuBusy,
)
from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.document import Affect
from vgpuctl.model.domain import Domain, DomainState, Hostdev, MdevSource, PciSource, alias_for
from vgpuctl.model.fact import known
from vgpuctl.model.gpu import DeviceId, FrameworkKind, Holder
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.step import AttachHostdev, CreateVgpu, DetachHostdev, RemoveVgpu, SetVfs
from vgpuctl.ports.kernel import CommandResult
from vgpuctl.sim.host import SimHost

OTHER = uuid4()


@pytest.fixture
def sim():
    return SimHost.in_memory("t4", CATALOG)


def made(sim):
    """A vGPU on the T4, and the step that takes it away."""
    host = local(sim)
    gpu = host.observe().gpus[0]
    common = {
        "vgpu": uuid4(),
        "name": "desk",
        "gpu": GpuIdentity(gpu.address, gpu.device, known(gpu.uuid)),
        "framework": gpu.framework,
        "parent": gpu.address,
        "type_id": gpu.type_named("T4-4Q").type_id,
        "type_name": "T4-4Q",
    }
    host.run(CreateVgpu(**common))
    return RemoveVgpu(**common)


def domain(state, live):
    return Domain(name="win11", uuid=uuid4(), state=state, live=live, config=live)


@pytest.mark.parametrize("state", [DomainState.RUNNING, DomainState.PAUSED, DomainState.OTHER])
@pytest.mark.parametrize("by", ["source", "alias"])
def test_a_running_domain_that_names_it_keeps_it(sim, state, by):
    """It may be starting: it does not hold a handle yet."""
    step = made(sim)
    source = MdevSource(step.vgpu if by == "source" else OTHER)
    alias = alias_for(step.vgpu) if by == "alias" else None
    host = local(sim, hypervisor=Libvirt((domain(state, (Hostdev(source, alias),)),)))
    with pytest.raises(VgpuBusy) as caught:
        host.run(step)
    assert caught.value.facts["domain"] == "win11"
    assert len(host.observe().vgpus()) == 1


def test_a_stopped_domain_and_other_hostdevs_do_not(sim):
    step = made(sim)
    libvirt = Libvirt(
        (
            domain(DomainState.SHUT_OFF, (Hostdev(MdevSource(step.vgpu)),)),
            domain(DomainState.RUNNING, (Hostdev(MdevSource(OTHER)),)),
            domain(DomainState.RUNNING, (Hostdev(PciSource(PciAddress(0, 9, 0, 0))),)),
        )
    )
    host = local(sim, hypervisor=libvirt)
    host.run(step)
    assert host.observe().vgpus() == ()


def test_what_libvirt_does_not_say_is_unknown_and_nothing_is_removed(sim):
    step = made(sim)
    for libvirt in (
        Libvirt(error=LibvirtUnreachable("down")),
        Libvirt((domain(DomainState.RUNNING, None),)),
    ):
        host = local(sim, hypervisor=libvirt)
        with pytest.raises(FactUnknown):
            host.run(step)
        assert len(host.observe().vgpus()) == 1


def test_unreadable_handles_count_as_held(sim):
    step = made(sim)
    sim.control("fail", {"what": "holders"})
    before = sim.kernel.operations["write"]
    with pytest.raises(FactUnknown):
        local(sim).run(step)
    assert sim.kernel.operations["write"] == before


def test_other_pci_ids_are_another_card_even_without_a_uuid(sim):
    step = made(sim)
    gpu = GpuIdentity(step.gpu.address, DeviceId(0x10DE, 0x26B9, 0x10DE, 0x1851), None)
    fields = {name: getattr(step, name) for name in step.__slots__}
    with pytest.raises(CardChanged):
        local(sim).run(RemoveVgpu(**(fields | {"gpu": gpu})))


def test_hostdevs_go_to_libvirt_and_need_it(sim):
    done = []

    class Recording(Libvirt):
        def attach(self, *arguments):
            done.append(("attach", *arguments))

        def detach(self, *arguments):
            done.append(("detach", *arguments))

        def xml(self, name, *, live):
            return f"<domain live={live}/>"

    common = {
        "vgpu": OTHER,
        "name": "desk",
        "domain": "win11",
        "hostdev": Hostdev(MdevSource(OTHER)),
        "affect": frozenset({Affect.CONFIG}),
    }
    host = local(sim, hypervisor=Recording())
    host.run(AttachHostdev(**common))
    host.run(DetachHostdev(**common))
    arguments = ("win11", common["hostdev"], common["affect"])
    assert done == [("attach", *arguments), ("detach", *arguments)]
    assert host.domain_xml("win11", live=True) == "<domain live=True/>"
    with pytest.raises(LibvirtUnreachable):
        local(sim).run(AttachHostdev(**common))


def test_a_parent_that_is_no_pci_device_has_no_vfs():
    host = local(SimHost.in_memory("mtty", CATALOG))
    gpu = host.observe().gpus[0]
    with pytest.raises(UnsupportedHere):
        host.run(SetVfs(gpu=GpuIdentity(gpu.address, gpu.device, None), enabled=True))


def passthrough(gpu, parent):
    return {
        "vgpu": uuid4(),
        "name": "desk",
        "gpu": GpuIdentity(gpu.address, gpu.device, None),
        "framework": FrameworkKind.PASSTHROUGH,
        "parent": parent,
        "type_id": 0,
        "type_name": "plain-vf",
    }


def test_passthrough_changes_nothing_and_verifies_that_the_function_is_there():
    sim = SimHost.in_memory("mxgpu", CATALOG)
    host = local(sim)
    gpu = host.observe().gpus[0]
    host.run(SetVfs(gpu=GpuIdentity(gpu.address, gpu.device, None), enabled=True))
    gpu = host.observe().gpus[0]
    before = sim.kernel.operations["write"]
    host.run(CreateVgpu(**passthrough(gpu, gpu.vfs[0].address)))
    host.run(RemoveVgpu(**passthrough(gpu, gpu.vfs[0].address)))
    with pytest.raises(InvalidGpuState):
        host.run(CreateVgpu(**passthrough(gpu, PciAddress(0, 0x41, 0x1F, 7))))
    with pytest.raises(InvalidGpuState):
        host.run(CreateVgpu(**passthrough(gpu, gpu.address)))
    assert sim.kernel.operations["write"] == before


def test_a_vf_in_a_guest_is_not_released():
    sim = SimHost.in_memory("mxgpu", CATALOG)
    host = local(sim)
    gpu = host.observe().gpus[0]
    host.run(SetVfs(gpu=GpuIdentity(gpu.address, gpu.device, None), enabled=True))
    gpu = host.observe().gpus[0]
    vf = gpu.vfs[0].address
    sim.control("hold", {"vgpu": str(vf), "domain": "win11"})
    with pytest.raises(VgpuBusy):
        host.run(RemoveVgpu(**passthrough(gpu, vf)))
    with pytest.raises(VgpuBusy):
        host.run(SetVfs(gpu=GpuIdentity(gpu.address, gpu.device, None), enabled=False))
    assert host.observe().gpus[0].vfs


def test_a_capture_names_the_card_and_not_the_host(sim):
    document = local(sim).capture()
    assert document["format"] == "vgpuctl-capture/1"
    assert {each["virtualization_mode"] for each in document["nvml"]["gpus"]} == {3}
    assert any("0000:41:00.0" in path for path in document["files"])
    assert "without libvirt" in str(document["domains"])


def test_nvml_lets_go_before_sriov_manage_runs():
    """hardware.md 1.5.6, 5: an initialised NVML client of our own makes it fail."""
    sim = SimHost.in_memory("l40s", CATALOG)
    order = []

    class Nvml:
        host = staticmethod(sim.nvml.host)

        def release(self):
            order.append(sim.kernel.operations["sriov_manage"])

    host = local(sim, nvml=Nvml())
    gpu = host.observe().gpus[0]
    host.run(SetVfs(gpu=GpuIdentity(gpu.address, gpu.device, known(gpu.uuid)), enabled=True))
    assert order == [0]
    assert sim.kernel.operations["sriov_manage"] == 1


def test_nvml_stays_away_while_sriov_manage_runs():
    """hardware.md 1.5.6: what looks at the host meanwhile would open the GPU again."""
    sim = SimHost.in_memory("l40s", CATALOG)
    asked = []

    class Nvml:
        def host(self, timeout_s, **more):
            asked.append(timeout_s)
            return sim.nvml.host(timeout_s, **more)

        def release(self):
            asked.clear()

    host = local(sim, nvml=Nvml())
    gpu = host.observe().gpus[0]
    run = sim.kernel.sriov_manage
    seen = []

    def sriov_manage(*arguments, **more):
        seen.append(host.observe().gpus[0].uuid)
        assert asked == []
        return run(*arguments, **more)

    sim.kernel.sriov_manage = sriov_manage
    host.run(SetVfs(gpu=GpuIdentity(gpu.address, gpu.device, known(gpu.uuid)), enabled=True))
    assert len(seen) == 1
    host.observe()
    assert asked


def sriov(sim, answer, **more):
    """A host whose sriov-manage gives that answer, and the step that turns VFs on."""
    host = local(sim, **more)
    gpu = host.observe().gpus[0]
    sim.kernel.sriov_manage = lambda *_, **__: answer
    return host, SetVfs(gpu=GpuIdentity(gpu.address, gpu.device, known(gpu.uuid)), enabled=True)


@pytest.mark.parametrize("status", [0, 1])
def test_a_gpu_that_sriov_manage_cannot_have_is_said_with_who_has_it(status):
    """hardware.md 1.5.6, whatever the exit status of the installed version is."""
    sim = SimHost.in_memory("l40s", CATALOG)
    answer = CommandResult(status, "Cannot obtain unbindLock for 0000:41:00.0")
    holder = Holder(812, "nvidia-persiste")

    class Handles:
        def holders(self):
            return {"/dev/nvidia0": (holder,)}

    host, step = sriov(sim, answer, handles=Handles())
    with pytest.raises(InvalidGpuState) as caught:
        host.run(step)
    assert "nvidia-persiste (pid 812)" in caught.value.message
    assert caught.value.facts["holders"] == [{"pid": 812, "command": "nvidia-persiste", "domain": None}]


def test_a_parked_gpu_is_not_written_to_without_sriov_manage():
    """hardware.md 1.5.5: pci-pf-stub would take the number, and the NVIDIA driver know nothing of it."""
    sim = SimHost.in_memory("l40s", CATALOG)
    host, step = sriov(sim, None)
    link = sim.kernel.link
    sim.kernel.link = lambda path: (
        "pci-pf-stub" if path == f"sys/bus/pci/devices/{step.gpu.address}/driver" else link(path)
    )
    before = sim.kernel.operations["write"]
    with pytest.raises(InvalidGpuState):
        host.run(step)
    assert sim.kernel.operations["write"] == before


def made_on_a_vf(sim):
    """A vGPU on an L40S's first VF, and the step that takes it away."""
    host = local(sim)
    gpu = host.observe().gpus[0]
    host.run(SetVfs(gpu=GpuIdentity(gpu.address, gpu.device, known(gpu.uuid)), enabled=True))
    gpu = host.observe().gpus[0]
    common = {
        "vgpu": uuid4(),
        "name": "desk",
        "gpu": GpuIdentity(gpu.address, gpu.device, known(gpu.uuid)),
        "framework": gpu.framework,
        "parent": gpu.vfs[0].address,
        "type_id": 1147,
        "type_name": "L40S-1Q",
    }
    host.run(CreateVgpu(**common))
    return common


def test_a_vf_that_is_anothers_now_is_not_touched():
    """A VF's address may be another GPU's after a boot: the GPU's own identity does not tell."""
    sim = SimHost.in_memory("l40s", CATALOG)
    common = made_on_a_vf(sim)
    link = sim.kernel.link
    sim.kernel.link = lambda path: "0000:61:00.0" if path.endswith("/physfn") else link(path)
    before = sim.kernel.operations["write"]
    for step in (CreateVgpu(**common), RemoveVgpu(**common)):
        with pytest.raises(InvalidGpuState, match=r"0000:61:00\.0"):
            local(sim).run(step)
    assert sim.kernel.operations["write"] == before


def test_a_vgpu_whose_vfs_are_off_is_removed_already():
    sim = SimHost.in_memory("l40s", CATALOG)
    common = made_on_a_vf(sim)
    sim.control("reboot", {})
    before = sim.kernel.operations["write"]
    local(sim).run(RemoveVgpu(**common))
    assert sim.kernel.operations["write"] == before


def test_vfs_whose_types_cannot_be_read_are_not_turned_off():
    """UNKNOWN is not none: each of them may carry a desktop."""
    sim = SimHost.in_memory("l40s", CATALOG)
    common = made_on_a_vf(sim)
    read = sim.kernel.read

    def unreadable(path):
        if path.endswith("/current_vgpu_type"):
            raise OSError(errno.EIO, "Input/output error", path)
        return read(path)

    sim.kernel.read = unreadable
    with pytest.raises(VgpuBusy):
        local(sim).run(SetVfs(gpu=common["gpu"], enabled=False))
    assert sim.kernel.operations["sriov_manage"] == 1


@pytest.mark.parametrize("libvirt", ["names it", "is down"])
def test_a_vf_of_a_domain_that_starts_is_not_taken_away(libvirt):
    """It holds no handle yet; libvirt knows."""
    sim = SimHost.in_memory("mxgpu", CATALOG)
    gpu = local(sim).observe().gpus[0]
    step = {"gpu": GpuIdentity(gpu.address, gpu.device, None)}
    local(sim).run(SetVfs(**step, enabled=True))
    vf = local(sim).observe().gpus[0].vfs[0].address
    domains = (domain(DomainState.OTHER, (Hostdev(PciSource(vf)),)),)
    there = Libvirt(domains) if libvirt == "names it" else Libvirt(error=LibvirtUnreachable("down"))
    with pytest.raises(VgpuBusy if libvirt == "names it" else FactUnknown):
        local(sim, hypervisor=there).run(SetVfs(**step, enabled=False))
    assert local(sim).observe().gpus[0].vfs
    local(sim, hypervisor=Libvirt()).run(SetVfs(**step, enabled=False))


def test_a_pass_over_the_handles_that_hangs_is_unknown(sim, monkeypatch):
    """/proc/PID/cmdline of a QEMU that hangs in the kernel hangs as well; the lane must not."""
    monkeypatch.setattr("vgpuctl.host.guard.HANDLES_S", 0.05)
    step = made(sim)
    go = threading.Event()

    class Handles:
        asked = 0

        def holders(self):
            self.asked += 1
            go.wait()
            return {}

    handles = Handles()
    host = local(sim, handles=handles)
    for _ in range(2):
        with pytest.raises(FactUnknown):
            host.run(step)
    go.set()
    assert handles.asked == 1


def test_a_card_that_is_gone_when_its_vfs_are_looked_at_is_the_kernels_refusal():
    """Found by a history in which a card falls off the bus right after sriov-manage."""
    sim = SimHost.in_memory("l40s", CATALOG)
    host, step = sriov(sim, CommandResult(0, "Enabling VFs"))
    answer = sim.kernel.sriov_manage

    def falls_off(*arguments, **more):
        sim.control("remove-gpu", {"gpu": "0"})
        return answer(*arguments, **more)

    sim.kernel.sriov_manage = falls_off
    with pytest.raises(KernelRefused, match="turn on the VFs of GPU"):
        host.run(step)

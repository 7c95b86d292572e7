"""MIG on the host: what the executor refuses at the last moment, what it reads back, and NVML's errors."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.support.cards import CATALOG
from vgpuctl import errors
from vgpuctl.host.local import LocalHost
from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import FrameworkKind, Holder
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.step import (
    CreateComputeInstance,
    CreateGpuInstance,
    CreateVgpu,
    DestroyComputeInstance,
    DestroyGpuInstance,
    SetMigMode,
    SetVfs,
)
from vgpuctl.ports.nvml import NvmlDone
from vgpuctl.sim.host import SimHost
from vgpuctl.sim.spec import Spec, parse
from vgpuctl.sim.state import Disputed

PF = PciAddress.parse("0000:41:00.0")
VF = PciAddress.parse("0000:41:00.4")
TYPE = 700
"""A100D-2-20C."""


class Rig:
    """A host with one simulated card."""

    def __init__(self, cards: Spec | str = "a100-80:vendor-vfio") -> None:
        self.sim = SimHost.in_memory(cards)
        self.nvml = self.sim.nvml
        self.host = LocalHost(
            kernel=self.sim.kernel,
            nvml=self.nvml,
            handles=self.sim.handles,
            hypervisor=None,
            catalog=CATALOG,
            clock=self.sim.clock,
            simulated=True,
        )
        gpu = self.gpu
        self.identity = GpuIdentity(address=gpu.address, device=gpu.device, uuid=known(gpu.uuid))

    @property
    def gpu(self):
        return self.host.observe().gpus[0]

    def mode(self, *, enabled: bool = True, **more) -> None:
        self.host.run(SetMigMode(gpu=self.identity, enabled=enabled, **more))

    def vfs(self) -> None:
        self.host.run(SetVfs(gpu=self.identity, enabled=True))

    def create(self, profile: str = "2g.20gb", start: int = 0) -> None:
        found = next(each for each in self.gpu.gi_profiles if each.name == profile)
        self.host.run(
            CreateGpuInstance(
                gpu=self.identity,
                profile=profile,
                profile_id=found.gi_profile_id,
                start=start,
                size=found.size,
            )
        )

    def destroy(self, instance: int, start: int = 0, profile: str = "2g.20gb") -> None:
        ids = {"2g.20gb": 14, "1g.10gb": 19}
        self.host.run(
            DestroyGpuInstance(
                gpu=self.identity,
                instance=instance,
                profile=profile,
                profile_id=ids[profile],
                start=start,
                size=2,
            )
        )

    def vgpu(self, framework: FrameworkKind = FrameworkKind.VENDOR_VFIO, name: int = 1, **more: Any) -> None:
        self.host.run(
            CreateVgpu(
                vgpu=UUID(int=name, version=4),
                name="cad",
                gpu=self.identity,
                framework=framework,
                parent=VF,
                type_id=TYPE,
                type_name="A100D-2-20C",
                **more,
            )
        )

    def cut(self):
        return sorted(str(each.place) for each in self.gpu.gpu_instances)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_every_effect_is_idempotent(rig):
    for _ in range(2):
        rig.mode()
    rig.vfs()
    for _ in range(2):
        rig.create()
    assert rig.cut() == ["2g.20gb@0"]
    for _ in range(2):
        rig.destroy(3)
    assert rig.cut() == []


def test_an_instance_under_a_vgpu_is_not_destroyed_though_its_vm_does_not_run(rig):
    rig.mode()
    rig.vfs()
    rig.create()
    rig.create(start=2)
    rig.vgpu()
    with pytest.raises(errors.VgpuBusy, match="carries vGPU"):
        rig.destroy(3)
    rig.destroy(4, start=2)
    assert rig.cut() == ["2g.20gb@0"]


def test_where_nobody_tells_on_which_instance_a_vgpu_is_none_of_its_profile_is_destroyed():
    rig = Rig("a100-80:sriov-mdev")
    rig.mode()
    rig.vfs()
    rig.create()
    rig.create(start=2)
    rig.create("1g.10gb", 6)
    rig.vgpu(FrameworkKind.SRIOV_MDEV)
    for instance, start in ((3, 0), (4, 2)):
        with pytest.raises(errors.FactUnknown, match="the driver does not say"):
            rig.destroy(instance, start=start)
    rig.destroy(13, start=6, profile="1g.10gb")
    assert rig.cut() == ["2g.20gb@0", "2g.20gb@2"]


def test_an_instance_that_is_another_by_now_is_not_destroyed(rig):
    rig.mode()
    rig.create("1g.20gb")
    with pytest.raises(errors.Conflict, match=r"1g\.20gb@0\) now"):
        rig.destroy(3)


def test_compute_instances_of_somebodys_are_left_alone(rig):
    rig.mode()
    rig.sim.control("mig-cut", {"gpu": str(PF), "profile": "2g.20gb", "compute": True})
    with pytest.raises(errors.VgpuBusy, match="compute instances"):
        rig.destroy(3)


def share(rig, number: int = 1, **more) -> CreateComputeInstance:
    return CreateComputeInstance(
        gpu=rig.identity,
        profile="2g.20gb",
        profile_id=14,
        start=0,
        compute="1c.2g.20gb",
        number=number,
        **more,
    )


def unshare(rig, number: int) -> DestroyComputeInstance:
    return DestroyComputeInstance(
        gpu=rig.identity,
        instance=3,
        profile="2g.20gb",
        profile_id=14,
        start=0,
        compute="1c.2g.20gb",
        compute_id=number,
    )


def shares(rig) -> list[int]:
    return [each.id for each in rig.gpu.gpu_instances[0].compute_instances]


def test_compute_instances_are_made_and_destroyed_once(rig):
    rig.mode()
    with pytest.raises(errors.Conflict, match="has no GPU instance"):
        rig.host.run(share(rig))
    rig.create()
    for number in (1, 1, 2):
        rig.host.run(share(rig, number))
    assert shares(rig) == [0, 1]
    with pytest.raises(errors.NoCapacity):
        rig.host.run(share(rig, 3))
    with pytest.raises(errors.VgpuBusy, match="compute instances"):
        rig.destroy(3)
    for number in (0, 0, 1):
        rig.host.run(unshare(rig, number))
    rig.destroy(3)
    assert rig.cut() == []


@pytest.mark.parametrize("framework", [FrameworkKind.VENDOR_VFIO, FrameworkKind.SRIOV_MDEV])
def test_compute_instances_are_left_alone_under_a_running_guest(framework):
    """hardware.md 3.3.2; an idle vGPU is no guest."""
    rig = Rig(f"a100-80:{framework}")
    rig.mode()
    rig.vfs()
    rig.create()
    rig.vgpu(framework)
    rig.host.run(share(rig))
    held = {"vgpu": str(UUID(int=1, version=4))} if framework is FrameworkKind.SRIOV_MDEV else {}
    rig.sim.control("hold", {**(held or {"parent": str(VF)}), "domain": "win1"})
    for effect in (share(rig, 2), unshare(rig, 0)):
        with pytest.raises(errors.VgpuBusy, match=r"win1|qemu"):
            rig.host.run(effect)
    assert shares(rig) == [0]


def test_a_guest_that_is_not_known_counts_as_one(rig):
    rig.mode()
    rig.vfs()
    rig.create()
    rig.vgpu()
    rig.sim.control("fail", {"what": "holders"})
    with pytest.raises(errors.FactUnknown):
        rig.host.run(share(rig))


def test_a_share_that_was_made_and_is_not_there_is_said(rig, monkeypatch):
    rig.mode()
    rig.create()
    monkeypatch.setattr(rig.nvml, "order", lambda _order, _timeout_s: NvmlDone(code=0, text="Success"))
    with pytest.raises(errors.ReadBackMismatch):
        rig.host.run(share(rig))


def test_the_mode_of_a_card_that_is_in_use_is_left_alone(rig):
    rig.vfs()
    with pytest.raises(errors.InvalidGpuState, match=r"VFs .* are on"):
        rig.mode()
    rig.sim.kernel.sriov_manage(str(PF), enable=False, timeout_s=1)
    rig.sim.control("hold", {"parent": str(PF)})
    with pytest.raises(errors.VgpuBusy, match="nv-hostengine"):
        rig.mode()
    assert rig.gpu.mig_pending is False


def test_our_own_nvml_helper_is_nobody_who_has_the_gpu_open(rig, monkeypatch):
    """It is one for as long as an observation asks it."""
    asked, release = rig.nvml.host, rig.nvml.release
    node = {"/dev/nvidia0": (Holder(pid=474, command="python3"),)}
    opened = []
    monkeypatch.setattr(rig.nvml, "host", lambda *limits, **more: opened.append(1) or asked(*limits, **more))
    monkeypatch.setattr(rig.nvml, "release", lambda: opened.clear() or release())
    monkeypatch.setattr(rig.sim.handles, "holders", lambda: node if opened else {})
    rig.nvml.host(1)
    rig.mode()
    assert rig.gpu.mig is True


def test_who_cannot_be_asked_counts_as_busy(rig):
    rig.sim.control("fail", {"what": "holders"})
    with pytest.raises(errors.FactUnknown):
        rig.mode()
    assert rig.gpu.mig is False


def test_a_reset_on_nvswitch_waits_until_the_whole_host_is_drained():
    rig = Rig("2xa100-80-sxm")
    other = rig.host.observe().gpus[1]
    rig.sim.control("hold", {"parent": str(other.address)})
    with pytest.raises(errors.VgpuBusy, match="NVSwitch"):
        rig.mode(resets=True, nvswitch=True)
    rig.sim.control("release", {"parent": str(other.address)})
    rig.mode(resets=True, nvswitch=True)
    assert rig.gpu.mig is True


def test_a_mode_that_stays_pending_is_said(rig, monkeypatch):
    """Somebody opened the GPU between our look and the order."""

    def order(order, timeout_s):
        rig.sim.control("hold", {"parent": str(PF)})
        return type(rig.nvml).order(rig.nvml, order, timeout_s)

    monkeypatch.setattr(rig.nvml, "order", order)
    with pytest.raises(errors.InvalidGpuState, match="pending") as caught:
        rig.mode()
    assert "reset" in caught.value.hint
    assert (rig.gpu.mig, rig.gpu.mig_pending) == (False, True)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (19, errors.InvalidGpuState),
        (23, errors.NoCapacity),
        (3, errors.UnsupportedHere),
        (4, errors.HostFailure),
        (999, errors.HostFailure),
    ],
)
def test_nvmls_refusals(rig, monkeypatch, code, kind):
    rig.mode()
    monkeypatch.setattr(rig.nvml, "order", lambda _order, _timeout_s: NvmlDone(code=code, text="its words"))
    with pytest.raises(kind, match="its words") as caught:
        rig.create()
    assert caught.value.facts["nvml"] == code


def test_an_order_that_is_not_answered_is_not_known_to_have_failed(rig, monkeypatch):
    rig.mode()
    monkeypatch.setattr(rig.nvml, "order", lambda _order, _timeout_s: Unknown("NVML did not answer"))
    with pytest.raises(errors.DeadlineExceeded, match="NVML did not answer"):
        rig.create()


def test_what_was_made_and_is_not_there_is_said(rig, monkeypatch):
    rig.mode()
    monkeypatch.setattr(rig.nvml, "order", lambda _order, _timeout_s: NvmlDone(code=0, text="Success"))
    with pytest.raises(errors.ReadBackMismatch):
        rig.create()


def test_a_step_waits_while_the_vfs_of_another_gpu_are_turned(rig):
    """NVML stays away from all GPUs then, and what cannot be asked for a moment is no failure."""
    rig.mode()
    gate = rig.host._nvml
    opened = threading.Event()

    def turn() -> None:
        with gate.closed():
            closed.set()
            opened.wait(30)

    closed = threading.Event()
    other = threading.Thread(target=turn)
    other.start()
    closed.wait(30)
    assert isinstance(gate.host(1), Unknown), "an observation does not wait"
    profile = next(each for each in rig.sim.nvml.host(1).gpus[0].gi_profiles if each.name == "2g.20gb")
    effect = CreateGpuInstance(
        gpu=rig.identity, profile="2g.20gb", profile_id=profile.gi_profile_id, start=0, size=2
    )
    step = threading.Thread(target=rig.host.run, args=(effect,))
    step.start()
    step.join(0.2)
    assert step.is_alive()
    opened.set()
    step.join(30)
    other.join(30)
    assert rig.cut() == ["2g.20gb@0"]


@pytest.mark.parametrize("is_writable", [False, True])
def test_nothing_is_tried_on_a_file_that_is_not_for_writing(is_writable):
    """hardware.md 1.2.4"""
    rig = Rig(replace(parse("a100-80:vendor-vfio"), disputed=Disputed(gi_writable=is_writable)))
    rig.mode()
    rig.vfs()
    rig.create()
    rig.create(start=2)
    before = rig.sim.kernel.operations["write"]
    rig.vgpu(instance=GiPlace(2, "2g.20gb"))
    assert rig.sim.kernel.operations["write"] - before == (2 if is_writable else 1)
    assert rig.gpu.vgpus[0].gpu_instance_id == (4 if is_writable else 3)

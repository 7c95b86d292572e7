"""Decisions in an exact order: what comes late, what comes from before, who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.stage import Daemon, Stage, faults_of
from tests.support.world import WHO
from vgpuctl import errors
from vgpuctl.model.document import GpuDocument, VgpuDocument
from vgpuctl.model.edit import AdoptVgpus, ApplyDocuments, AttachVgpu, CreateVgpus, DeleteVgpu
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import GpuState
from vgpuctl.model.record import DAEMON, OperationState, PauseSet
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import CreateVgpu
from vgpuctl.service.messages import (
    CancelRequested,
    Draining,
    LookRequested,
    Observe,
    PauseRequested,
    RunStep,
    SweepDue,
    Withdrawn,
)

A2 = "0000:41:00.0"


def staged(directory: Path, cards: str) -> Iterator[Daemon]:
    stage = Stage(directory, cards)
    daemon = Daemon(stage)
    try:
        yield daemon
    finally:
        daemon.close()
        stage.close()


@pytest.fixture
def t4(tmp_path: Path) -> Iterator[Daemon]:
    yield from staged(tmp_path, "t4:mdev,t4:mdev")


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Daemon]:
    yield from staged(tmp_path, "a2:vendor-vfio")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Daemon]:
    yield from staged(tmp_path, "a2:vendor-vfio,a2:vendor-vfio")


def up_to_step(daemon: Daemon) -> RunStep:
    """Let things happen until a step is about to run."""
    while True:
        effect = daemon.effects.pop(0)
        if isinstance(effect, RunStep):
            return effect
        daemon.turn(daemon.perform(effect))


def only_observe(daemon: Daemon) -> Any:
    """Carry out the observation that was asked for; its answer, untold."""
    (effect,) = [each for each in daemon.effects if isinstance(each, Observe)]
    daemon.effects.remove(effect)
    return daemon.perform(effect)


def dark(snapshot: Snapshot) -> Snapshot:
    gpus = [
        replace(each, state=GpuState.UNREADABLE, vgpus=(), vfs=(), framework=None) for each in snapshot.gpus
    ]
    return replace(snapshot, gpus=tuple(gpus))


def without_libvirt(snapshot: Snapshot) -> Snapshot:
    away = Unknown("not up yet")
    return replace(snapshot, domains=away, hypervisor=away)


def test_a_gpu_that_cannot_be_read_may_have_what_was_written(vendor: Daemon):
    """The write went through, its answer was an error, and then the GPU hangs: the VF is still ours."""
    stage = vendor.stage
    vendor.do(CreateVgpus(type="A2-4Q", name="first"))

    def half(effect: Any) -> None:
        stage.host.run(effect)
        raise errors.KernelRefused("EIO")

    vendor.run = half
    ticket = vendor.submit(CreateVgpus(type="A2-4Q", name="a"))
    step = up_to_step(vendor)
    vendor.observe = lambda: dark(stage.observe())
    vendor.turn(vendor.perform(step))
    vendor.until_idle()
    assert vendor.operation(ticket).state is OperationState.RUNNING
    vendor.run = vendor.observe = None
    vendor.settle()
    assert vendor.operation(ticket).state is OperationState.SUCCEEDED
    assert faults_of(vendor) == []


def test_what_was_observed_for_an_engine_given_up_decides_nothing(vendor: Daemon):
    """Its numbers are behind, however far it had come: what it saw is from before its last steps."""
    vendor.do(CreateVgpus(type="A2-4Q", name="first"))
    vendor.turn(SweepDue())
    late = only_observe(vendor)
    vendor.open(vendor.engine)
    ticket = vendor.submit(CreateVgpus(type="A2-4Q", name="a"))
    vendor.turn(late)
    assert ticket not in vendor.answers
    vendor.until_idle()
    assert vendor.operation(ticket).state is OperationState.SUCCEEDED


def test_what_is_gone_is_not_adopted(t4: Daemon):
    """The observation began before our own removal ended: what it shows belongs to nobody any more."""
    t4.do(CreateVgpus(type="T4-4Q", name="a"))
    t4.submit(DeleteVgpu(vgpu="a"))
    step = up_to_step(t4)
    ticket = t4.submit(AdoptVgpus())
    late = only_observe(t4)
    t4.turn(t4.perform(step))
    t4.turn(late)
    t4.until_idle()
    assert t4.operation(ticket).state is OperationState.SUCCEEDED
    assert t4.documents() == ()
    assert faults_of(t4) == []


def test_what_is_being_made_is_not_adopted(vendor: Daemon):
    """Between the write and its answer the VF shows a vGPU that no allocation has yet."""
    vendor.do(CreateVgpus(type="A2-4Q", name="first"))
    vendor.submit(CreateVgpus(type="A2-4Q", name="a"))
    step = up_to_step(vendor)
    done = vendor.perform(step)
    ticket = vendor.submit(AdoptVgpus())
    vendor.until_idle()
    vendor.turn(done)
    vendor.until_idle()
    assert vendor.operation(ticket).started.subject == "0 vGPUs"
    assert faults_of(vendor) == []


def test_what_others_made_where_ours_was_is_not_undone_with_ours(two: Daemon):
    """hardware.md 1.4: on that VF, of that type; ours was seen to be gone while its operation went on."""
    daemon = two
    others = "0000:61:00.0"
    daemon.do(ApplyDocuments(documents=(GpuDocument(name=A2), GpuDocument(name=others))))
    ticket = daemon.submit(CreateVgpus(type="A2-8Q", name="a", count=3))
    left = None
    while ticket not in daemon.answers or any(
        isinstance(each, RunStep) and each.step.lane == f"gpu/{A2}" for each in daemon.effects
    ):
        effect = daemon.effects.pop(0)
        if isinstance(effect, RunStep) and effect.step.lane == f"gpu/{others}":
            left = effect
        else:
            daemon.turn(daemon.perform(effect))
    assert left is not None
    ours = daemon.stage.observe().vgpus()[0]
    vf = f"sys/bus/pci/devices/{ours.parent}/nvidia/current_vgpu_type"
    daemon.stage.sim.kernel.write(vf, "0")
    daemon.turn(LookRequested(next(daemon.tickets)))
    daemon.until_idle()
    daemon.stage.sim.kernel.write(vf, str(ours.type_id))
    daemon.stage.foreign.add((str(ours.parent), "None"))
    daemon.turn(CancelRequested(next(daemon.tickets), daemon.answers[ticket].value, WHO))
    daemon.turn(daemon.perform(left))
    daemon.until_idle()
    assert [each.parent for each in daemon.stage.observe().vgpus()] == [ours.parent]
    assert faults_of(daemon) == []


def test_a_creation_under_way_takes_one_place_and_not_two(vendor: Daemon):
    """A request for the last place is not refused because of what is just being made."""
    vendor.do(CreateVgpus(type="A2-8Q", name="first"))
    vendor.do(DeleteVgpu(vgpu="first"))
    vendor.submit(CreateVgpus(type="A2-8Q", name="a"))
    step = up_to_step(vendor)
    done = vendor.perform(step)
    ticket = vendor.submit(CreateVgpus(type="A2-8Q", name="b"))
    vendor.until_idle()
    vendor.turn(done)
    vendor.until_idle()
    assert vendor.operation(ticket).state is OperationState.SUCCEEDED


def test_turns_are_kept_and_given_up(t4: Daemon):
    """Who waits for a and b is not overtaken by who wants b; and gives the turn away when it leaves."""
    a, b = VgpuDocument(name="a", type="T4-4Q"), VgpuDocument(name="b", type="T4-4Q")
    first = t4.submit(CreateVgpus(type="T4-4Q", name="a"))
    step = up_to_step(t4)
    second = t4.submit(ApplyDocuments(documents=(a, b)))
    t4.until_idle()
    third = t4.submit(ApplyDocuments(documents=(b,)))
    t4.until_idle()
    assert first in t4.answers
    assert {second, third}.isdisjoint(t4.answers)
    t4.turn(Withdrawn(second))
    t4.until_idle()
    with pytest.raises(errors.DeadlineExceeded):
        t4.operation(second)
    assert t4.operation(third).started.scope == ("Vgpu/b", "b")
    t4.turn(t4.perform(step))
    t4.until_idle()
    assert t4.operation(first).state is OperationState.SUCCEEDED
    assert len(t4.operations()) == 2


def test_a_power_cut_in_an_attach_waits_for_libvirt(tmp_path: Path):
    """At boot libvirt comes later: nothing is given up, and no operator is needed, in the meantime."""
    stage = Stage(tmp_path, "t4:mdev")
    daemon = Daemon(stage)
    ticket = daemon.submit(AttachVgpu(domain="win1", type="T4-4Q"))
    up_to_step(daemon)
    operation = daemon.answers[ticket].value
    daemon.close()
    stage.sim.control("reboot", {})
    daemon = Daemon(stage, observe=lambda: without_libvirt(stage.observe()))
    daemon.turn(SweepDue())
    daemon.until_idle()
    assert daemon.engine.ledger.operations[operation].state is OperationState.RUNNING
    daemon.observe = None
    daemon.turn(SweepDue())
    daemon.until_idle()
    assert daemon.engine.ledger.operations[operation].state is OperationState.SUCCEEDED
    assert faults_of(daemon) == []
    daemon.close()
    stage.close()


def test_patience_ends(t4: Daemon):
    """Libvirt that does not come back: forwards it is undone, backwards somebody has to look."""
    stage = t4.stage
    ticket = t4.submit(AttachVgpu(domain="win1", type="T4-4Q"))
    step = up_to_step(t4)
    t4.observe = lambda: without_libvirt(stage.observe())
    t4.turn(CancelRequested(999, t4.answers[ticket].value, WHO), t4.perform(step))
    for _ in range(3):
        t4.turn(SweepDue())
        t4.until_idle()
        stage.sim.clock.advance(100)
    assert t4.operation(ticket).state is OperationState.ROLLING_BACK
    t4.settle()
    assert t4.operation(ticket).state is OperationState.NEEDS_OPERATOR
    t4.observe = None
    t4.do(DeleteVgpu(vgpu="win1"))
    assert faults_of(t4) == []


def lost(daemon: Daemon) -> Daemon:
    """The next daemon, after a reboot."""
    daemon.close()
    daemon.stage.sim.control("reboot", {})
    daemon.__post_init__()
    daemon.effects.clear()
    return daemon


def test_a_gpu_that_fails_holds_up_only_its_own(t4: Daemon):
    """One operation per GPU; of the one that fails, only what failed is backed off; ids stay."""
    t4.do(ApplyDocuments(documents=tuple(VgpuDocument(name=n, type="T4-8Q") for n in "abcd")))
    ids = {each.name: each.id for each in t4.engine.ledger.allocations.values()}
    lost(t4)
    refused: list[str] = []

    def refuse(effect: Any) -> None:
        if isinstance(effect, CreateVgpu) and effect.name == "a":
            refused.append(effect.name)
            raise errors.KernelRefused("EIO")
        t4.stage.host.run(effect)

    t4.run = refuse
    t4.turn(SweepDue())
    t4.until_idle()
    restored = [each for each in t4.operations() if each.started.requester == DAEMON]
    assert sorted(each.state for each in restored) == [OperationState.FAILED, OperationState.SUCCEEDED]
    assert {each.name for each in t4.engine.ledger.allocations.values() if each.created_boot} >= {*"bcd"}
    tries = len(refused)
    t4.turn(SweepDue())
    t4.until_idle()
    assert len(refused) == tries
    t4.run = None
    t4.settle()
    assert {each.name: each.id for each in t4.engine.ledger.allocations.values()} == ids
    assert faults_of(t4) == []


def test_a_restore_is_held_by_a_pause_and_goes_on_after(t4: Daemon):
    t4.do(ApplyDocuments(documents=tuple(VgpuDocument(name=n, type="T4-8Q") for n in "ab")))
    lost(t4)
    t4.turn(SweepDue())
    step = up_to_step(t4)
    t4.turn(PauseRequested(999, paused=True, requester=WHO))
    t4.turn(t4.perform(step))
    t4.until_idle()
    assert len(t4.stage.observe().vgpus()) == 1
    t4.turn(PauseRequested(1000, paused=False, requester=WHO))
    t4.turn(SweepDue())
    t4.until_idle()
    assert len(t4.stage.observe().vgpus()) == 2
    assert faults_of(t4) == []


def test_a_restore_cut_off_by_a_kill_is_not_taken_up_while_paused(t4: Daemon):
    t4.do(ApplyDocuments(documents=tuple(VgpuDocument(name=n, type="T4-8Q") for n in "ab")))
    lost(t4)
    t4.turn(SweepDue())
    up_to_step(t4)
    t4.store.commit([PauseSet(paused=True)], t4.stage.sim.clock.now())
    t4.close()
    t4.__post_init__()
    t4.effects.clear()
    t4.turn(SweepDue())
    t4.until_idle()
    assert t4.stage.observe().vgpus() == ()
    assert t4.operations()[0].state is OperationState.CANCELLED


def test_gpu_documents_are_restored_too(vendor: Daemon):
    vendor.do(ApplyDocuments(documents=(GpuDocument(name=A2),)))
    lost(vendor)
    assert vendor.stage.observe().gpus[0].state is GpuState.VFS_OFF
    vendor.settle()
    assert vendor.stage.observe().gpus[0].state is GpuState.READY
    assert faults_of(vendor) == []


def test_vfs_are_not_turned_on_unasked_where_we_made_something_since_the_boot(vendor: Daemon):
    """DESIGN: sriov-manage is never part of repair; a driver reload is not a boot."""
    vendor.do(CreateVgpus(type="A2-4Q", name="a"))
    vendor.stage.sim.control("reload-driver", {})
    vendor.settle()
    assert vendor.stage.observe().gpus[0].state is GpuState.VFS_OFF
    vendor.do(ApplyDocuments(documents=vendor.documents()))
    assert faults_of(vendor) == []


def test_nothing_is_begun_while_draining(t4: Daemon):
    t4.submit(CreateVgpus(type="T4-4Q", name="a", count=2))
    step = up_to_step(t4)
    t4.turn(Draining(), t4.perform(step))
    t4.until_idle()
    (operation,) = t4.operations()
    assert [each.state for each in operation.runs] == ["done"]


def test_a_generation_never_comes_back(t4: Daemon):
    """Who has read the document in between must not be believed to know this one."""
    t4.do(ApplyDocuments(documents=(VgpuDocument(name="a", type="T4-4Q"),)))

    def refuse(effect: Any) -> None:
        raise errors.LibvirtRefused("no")

    t4.run = refuse
    assert t4.do(ApplyDocuments(documents=(VgpuDocument(name="a", type="T4-8Q"),))).state in (
        OperationState.FAILED,
        OperationState.NEEDS_OPERATOR,
    )
    (wish,) = t4.engine.ledger.wishes.values()
    assert (wish.document.type, wish.generation) == ("T4-4Q", 3)


def test_a_vf_that_lost_its_vgpu_may_become_somebody_elses(vendor: Daemon):
    """hardware.md 1.4, the traps: a VF path is reused; removing ours late must not hit the new owner."""
    stage = vendor.stage
    vendor.do(CreateVgpus(type="A2-4Q", name="a"))
    (vgpu,) = stage.observe().vgpus()
    vendor.turn(PauseRequested(999, paused=True, requester=WHO))
    stage.sim.kernel.write(f"sys/bus/pci/devices/{vgpu.parent}/nvidia/current_vgpu_type", "0")
    vendor.turn(SweepDue())
    vendor.until_idle()
    stage.make_foreign(A2, "A2-4Q")
    assert stage.foreign == {(str(vgpu.parent), "None")}
    assert vendor.do(DeleteVgpu(vgpu="a")).runs == []
    assert faults_of(vendor) == []
    assert [str(each.parent) for each in stage.observe().vgpus()] == [str(vgpu.parent)]


def test_a_vf_that_cannot_be_read_keeps_its_vgpu(vendor: Daemon):
    """UNKNOWN is not gone: made anew on another VF, the first would belong to nobody."""
    stage = vendor.stage
    vendor.do(CreateVgpus(type="A2-4Q", name="a"))

    def torn() -> Snapshot:
        snapshot = stage.observe()
        odd = Unknown("Input/output error")
        vgpus = tuple(replace(each, type_id=odd, type_name=odd) for each in snapshot.gpus[0].vgpus)
        return replace(snapshot, gpus=(replace(snapshot.gpus[0], vgpus=vgpus),))

    vendor.observe = torn
    vendor.settle()
    with pytest.raises(errors.FactUnknown):
        vendor.do(DeleteVgpu(vgpu="a"))
    vendor.observe = None
    vendor.settle()
    assert len(stage.observe().vgpus()) == 1
    assert faults_of(vendor) == []

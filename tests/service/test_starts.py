"""Starts of domains as libvirt's hook asks for them: while it waits, nothing that asks libvirt is waited for.

`decide` lets happen only what a start may need: a glimpse of the kernel, and its own steps.  Observations,
and steps that ask libvirt, stay undone, as they would with a libvirt that waits for its hook.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.service.test_engine import staged
from tests.support.builders import NOW
from tests.support.stage import Daemon, faults_of
from tests.support.world import WHO
from vgpuctl import errors
from vgpuctl.model.allocation import Allocation, Hold
from vgpuctl.model.document import DesktopDocument, DesktopVgpu, Wish, key_of
from vgpuctl.model.domain import Domain, DomainState, HostdevSource, MdevSource, PciSource
from vgpuctl.model.edit import AttachVgpu, CreateVgpus, DeleteVgpu, DetachVgpu
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.frameworks import hostdev
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.start import DomainRelease, DomainStart, NamedVgpu
from vgpuctl.model.step import CreateVgpu, RemoveVgpu, SetVfs
from vgpuctl.service.messages import (
    Glimpse,
    Glimpsed,
    LookRequested,
    Observe,
    Observed,
    PauseRequested,
    ReleaseTold,
    RunStep,
    StartAsked,
    Withdrawn,
)

NOTHING_NOTED = Unknown("the hook has not been asked")


@pytest.fixture
def t4(tmp_path: Path) -> Iterator[Daemon]:
    yield from staged(tmp_path, "t4:mdev,t4:mdev")


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Daemon]:
    yield from staged(tmp_path, "a2:vendor-vfio")


def place(daemon: Daemon, name: str) -> Allocation:
    (found,) = [each for each in daemon.engine.ledger.allocations.values() if each.name == name]
    return found


def hold(daemon: Daemon, name: str) -> Hold | None:
    """The hold, as it is on the disk."""
    (found,) = [each for each in daemon.store.load().allocations.values() if each.name == name]
    return found.hold


def uuid_of(daemon: Daemon, domain: str) -> UUID:
    snapshot = daemon.stage.observe()
    assert isinstance(snapshot.domains, tuple)
    return next(each.uuid for each in snapshot.domains if each.name == domain)


def named(daemon: Daemon, name: str, source: HostdevSource | None = None) -> NamedVgpu:
    there = place(daemon, name)
    assert there.framework is not None
    assert there.parent is not None
    return NamedVgpu(there.id, source or hostdev(there.framework, there.id, there.parent).source)


def ask(
    daemon: Daemon,
    domain: str,
    *vgpus: NamedVgpu | str,
    token: str = "one",
    starts: Fact[Mapping[UUID, str]] = NOTHING_NOTED,
    uuid: UUID | None = None,
) -> int:
    """libvirt's hook asks; the ticket."""
    ticket = next(daemon.tickets)
    found = tuple(named(daemon, each) if isinstance(each, str) else each for each in vgpus)
    start = DomainStart(domain=domain, uuid=uuid or uuid_of(daemon, domain), token=token, vgpus=found)
    daemon.turn(StartAsked(ticket, start, starts))
    return ticket


def may_happen(effect: Any) -> bool:
    return isinstance(effect, Glimpse) or (
        isinstance(effect, RunStep) and isinstance(effect.step.effect, CreateVgpu)
    )


def decide(daemon: Daemon, ticket: int) -> errors.VgpuctlError | None:
    """What stands against the start; None when it is allowed."""
    while ticket not in daemon.answers:
        effect = next((each for each in daemon.effects if may_happen(each)), None)
        assert effect is not None, f"it waits for {daemon.effects}"
        daemon.effects.remove(effect)
        daemon.turn(daemon.perform(effect))
    return daemon.answers[ticket].error


def start(daemon: Daemon, *arguments: Any, **more: Any) -> errors.VgpuctlError | None:
    return decide(daemon, ask(daemon, *arguments, **more))


def release(daemon: Daemon, domain: str, *vgpus: str, token: str = "one", saved: bool = False) -> None:
    ticket = next(daemon.tickets)
    ids = tuple(place(daemon, each).id for each in vgpus)
    told = DomainRelease(domain=domain, uuid=uuid_of(daemon, domain), token=token, vgpus=ids, saved=saved)
    daemon.turn(ReleaseTold(ticket, told))
    assert daemon.answers[ticket].error is None


def lose(daemon: Daemon, name: str) -> None:
    """Somebody removes the vGPU behind our back, and nobody has looked since."""
    there, kernel = place(daemon, name), daemon.stage.sim.kernel
    if there.framework == "vendor-vfio":
        kernel.write(f"sys/bus/pci/devices/{there.parent}/nvidia/current_vgpu_type", "0")
    else:
        kernel.write(f"sys/bus/mdev/devices/{there.id}/remove", "1")


def vf_type(daemon: Daemon, vf: Any) -> str:
    return daemon.stage.sim.kernel.read(current_type(vf))


def current_type(vf: Any) -> str:
    return f"sys/bus/pci/devices/{vf}/nvidia/current_vgpu_type"


def look(daemon: Daemon, change: Any = lambda snapshot: snapshot) -> None:
    """An observation from beginning to end, of a libvirt that shows the domains as `change` has them."""
    daemon.observe = lambda: change(daemon.stage.observe())
    daemon.turn(LookRequested(next(daemon.tickets)))
    daemon.until_idle()
    daemon.observe = None


def shown(daemon: Daemon, name: str, **fields: Any) -> Any:
    """That domain as it is, but for those fields."""

    def change(snapshot: Snapshot) -> Snapshot:
        assert isinstance(snapshot.domains, tuple)
        return replace(
            snapshot,
            domains=tuple(
                replace(each, **fields) if each.name == name else each for each in snapshot.domains
            ),
        )

    return change


def running(daemon: Daemon, name: str) -> Any:
    snapshot = daemon.stage.observe()
    assert isinstance(snapshot.domains, tuple)
    domain: Domain = next(each for each in snapshot.domains if each.name == name)
    return shown(daemon, name, state=DomainState.RUNNING, live=domain.config)


# -- what is there ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cards", ["t4", "vendor"])
def test_a_vgpu_that_is_there_and_free_is_held_from_its_start_to_its_end(request, cards):
    """hardware.md T11, 1.4.13: ownership is a lease, and releasing compares it."""
    daemon = request.getfixturevalue(cards)
    daemon.do(CreateVgpus(name="win1", type="T4-8Q" if cards == "t4" else "A2-8Q"))
    there = place(daemon, "win1")
    assert start(daemon, "win1", "win1") is None
    assert hold(daemon, "win1") == Hold(
        domain="win1",
        domain_uuid=uuid_of(daemon, "win1"),
        token="one",
        boot_id=daemon.stage.observe().boot_id,
        gpu=there.gpu.address,
        parent=there.parent,
        type_id=there.type_id,
    )
    release(daemon, "win1", "win1", token="one")
    assert hold(daemon, "win1") is None
    assert place(daemon, "win1") == there, "it keeps its place, and is there for the next start"


def test_a_domain_without_our_vgpus_starts_and_nothing_is_written(t4: Daemon):
    look(t4)
    revision = t4.store.load().revision
    assert start(t4, "win1") is None
    assert t4.store.load().revision == revision


def test_the_hook_called_twice_late_and_out_of_order(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    release(t4, "win1", "win1", token="never")
    assert start(t4, "win1", "win1", token="one") is None
    assert start(t4, "win1", "win1", token="two") is None, "the first start has ended, and nobody told"
    release(t4, "win1", "win1", token="one")
    held = hold(t4, "win1")
    assert held is not None
    assert held.token == "two", "a release that comes late does not end the start after it"
    release(t4, "win1", "win1", token="two")
    release(t4, "win1", "win1", token="two")
    assert hold(t4, "win1") is None


@pytest.mark.parametrize("change", ["gpu", "parent", "type_id", "boot_id", "domain_uuid"])
def test_a_release_compares_everything(t4: Daemon, change: str):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    start(t4, "win1", "win1")
    there = place(t4, "win1")
    assert there.hold is not None
    other: Any = {
        "gpu": PciAddress(9, 9, 9, 0),
        "parent": PciAddress(9, 9, 9, 0),
        "type_id": 1,
        "boot_id": "x",
    }
    kept = replace(there, hold=replace(there.hold, **{change: other.get(change, uuid4())}))
    t4.engine.ledger.allocations[there.id] = kept
    release(t4, "win1", "win1")
    assert place(t4, "win1") == kept


# -- who may not ------------------------------------------------------------------------------------


def test_one_vgpu_is_held_by_one_domain(t4: Daemon):
    t4.do(CreateVgpus(type="T4-8Q", name="seat"))
    assert start(t4, "win1", "seat") is None
    refusal = start(t4, "win2", "seat", token="two")
    assert isinstance(refusal, errors.VgpuBusy)
    assert "win1 has it" in refusal.message
    release(t4, "win1", "seat")
    assert start(t4, "win2", "seat", token="two") is None


def test_two_starts_at_once_with_one_vgpu(t4: Daemon):
    t4.do(CreateVgpus(type="T4-8Q", name="seat"))
    lose(t4, "seat")
    first = ask(t4, "win1", "seat")
    second = ask(t4, "win2", "seat", token="two")
    outcomes = [decide(t4, first), decide(t4, second)]
    assert [each is None for each in outcomes] == [True, False]


def test_a_process_that_has_it_open(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    t4.stage.sim.control("hold", {"vgpu": str(place(t4, "win1").id)})
    refusal = start(t4, "win1", "win1")
    assert isinstance(refusal, errors.VgpuBusy)
    assert "qemu-system-x86 (pid " in refusal.message
    assert hold(t4, "win1") is None


def test_a_copy_of_a_desktop_is_not_that_desktop(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    refusal = start(t4, "win2", "win1")
    assert isinstance(refusal, errors.VgpuAttached)
    assert start(t4, "renamed", "win1", uuid=uuid_of(t4, "win1")) is None


def test_an_alias_of_which_nothing_is_known(t4: Daemon):
    """After the loss of the store an mdev of exactly that UUID is still the one."""
    look(t4)
    stranger = uuid4()
    refusal = start(t4, "win1", NamedVgpu(stranger, MdevSource(stranger)))
    assert isinstance(refusal, errors.VgpuNotFound)
    made = UUID(t4.stage.sim.control("foreign", {"gpu": "0", "type": "T4-8Q"})["uuid"])
    look(t4)
    assert start(t4, "win1", NamedVgpu(made, MdevSource(made))) is None
    assert start(t4, "win1", NamedVgpu(stranger, MdevSource(made))) is not None


# -- what is missing --------------------------------------------------------------------------------


def test_a_missing_mdev_is_made_under_its_uuid(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    lose(t4, "win1")
    assert start(t4, "win1", "win1") is None
    assert t4.stage.observe().mdev(place(t4, "win1").id) is not None
    held = hold(t4, "win1")
    assert held is not None
    assert held.token == "one"
    t4.until_idle()
    newest = t4.operations()[0]
    assert (newest.started.kind, newest.state) == ("start", "succeeded")
    assert faults_of(t4) == []


def test_an_mdev_is_made_on_another_gpu_when_its_own_is_full(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    there = place(t4, "win1")
    lose(t4, "win1")
    for _ in range(2):
        t4.stage.make_foreign(str(there.gpu.address), "T4-8Q")
    assert start(t4, "win1", "win1") is None
    now = place(t4, "win1")
    assert (now.id, now.gpu.address != there.gpu.address) == (there.id, True)
    held = hold(t4, "win1")
    assert held is not None
    assert held.parent == now.parent
    t4.until_idle()
    assert faults_of(t4) == []


def test_a_gpu_that_was_asked_for_by_its_number_keeps_it(t4: Daemon):
    t4.do(CreateVgpus(type="T4-8Q", name="win1", gpu="1"))
    there = place(t4, "win1")
    lose(t4, "win1")
    assert start(t4, "win1", "win1") is None
    assert place(t4, "win1").gpu == there.gpu


def test_a_vendor_vgpu_comes_onto_the_vf_that_the_xml_names(vendor: Daemon):
    vendor.do(CreateVgpus(type="A2-8Q", name="win1"))
    there = place(vendor, "win1")
    lose(vendor, "win1")
    assert start(vendor, "win1", "win1") is None
    assert vf_type(vendor, there.parent) == str(there.type_id)
    assert place(vendor, "win1").parent == there.parent


def test_the_xml_may_name_another_free_vf(vendor: Daemon):
    """Somebody edited it: the hook cannot change XML, so the vGPU follows."""
    vendor.do(CreateVgpus(type="A2-8Q", name="win1"))
    there = place(vendor, "win1")
    lose(vendor, "win1")
    other = vendor.stage.observe().gpus[0].vfs[5].address
    assert start(vendor, "win1", named(vendor, "win1", PciSource(other))) is None
    assert (vf_type(vendor, there.parent), vf_type(vendor, other)) == ("0", str(there.type_id))
    vendor.until_idle()
    assert place(vendor, "win1").parent == other


def test_a_vf_that_carries_somebody_elses_vgpu_is_left_alone(vendor: Daemon):
    """hardware.md T16, 1.4.13: a VF is reused; what stands there now may be anybody's."""
    vendor.do(CreateVgpus(type="A2-8Q", name="win1"))
    there = place(vendor, "win1")
    vendor.turn(PauseRequested(next(vendor.tickets), paused=True, requester=WHO))
    lose(vendor, "win1")
    look(vendor)
    vendor.stage.sim.kernel.write(current_type(there.parent), str(there.type_id))
    refusal = start(vendor, "win1", "win1")
    assert refusal is not None
    assert f"VF {there.parent}, which its XML names" in refusal.message
    assert vf_type(vendor, there.parent) == str(there.type_id)
    assert hold(vendor, "win1") is None


def test_a_start_never_turns_vfs_on(vendor: Daemon):
    vendor.do(CreateVgpus(type="A2-8Q", name="win1"))
    source = named(vendor, "win1")
    vendor.stage.sim.control("reboot", {})
    refusal = start(vendor, "win1", source)
    assert isinstance(refusal, errors.InvalidGpuState)
    assert not [each for each in vendor.effects if isinstance(each, RunStep)]


def test_a_failure_is_told_at_once_and_leaves_nothing(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    lose(t4, "win1")
    t4.stage.sim.control("fail", {"what": "create", "errno": "EIO"})
    refusal = start(t4, "win1", "win1")
    assert isinstance(refusal, errors.KernelRefused)
    assert hold(t4, "win1") is None
    t4.stage.sim.control("heal", {})
    t4.until_idle()
    t4.settle()
    assert faults_of(t4) == []


def test_what_is_made_too_late_is_held_by_nobody(t4: Daemon):
    """The hook gave up: its start is over, and the next one finds the vGPU free."""
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    lose(t4, "win1")
    ticket = ask(t4, "win1", "win1", token="late")
    (glimpse,) = t4.effects
    t4.effects.clear()
    t4.turn(t4.perform(glimpse))
    (step,) = [each for each in t4.effects if isinstance(each, RunStep)]
    t4.turn(Withdrawn(ticket))
    assert isinstance(t4.answers[ticket].error, errors.DeadlineExceeded)
    t4.effects.remove(step)
    t4.turn(t4.perform(step))
    release(t4, "win1", "win1", token="late")
    t4.until_idle()
    assert hold(t4, "win1") is None
    assert start(t4, "win1", "win1", token="next") is None
    assert faults_of(t4) == []


def test_a_daemon_killed_while_it_makes_a_vgpu_for_a_start(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    lose(t4, "win1")
    ask(t4, "win1", "win1")
    t4.turn(t4.perform(t4.effects.pop(0)))
    (step,) = [each for each in t4.effects if isinstance(each, RunStep)]
    t4.stage.host.run(step.step.effect)
    t4.close()
    after = Daemon(t4.stage)
    try:
        after.until_idle()
        after.settle()
        assert faults_of(after) == []
        assert hold(after, "win1") is None
        assert start(after, "win1", "win1", token="next") is None
    finally:
        after.close()


# -- with libvirt mute ------------------------------------------------------------------------------


def test_a_start_does_not_wait_for_a_removal_that_asks_libvirt(t4: Daemon):
    """hardware.md T4, T15: libvirt answers nobody while its hook waits; nobody waits for whoever asks it."""
    t4.do(AttachVgpu(domain="win1", type="T4-4Q"))
    t4.do(CreateVgpus(type="T4-4Q", name="old", gpu=str(place(t4, "win1").gpu.address)))
    t4.submit(DeleteVgpu(vgpu="old"))
    t4.turn(t4.perform(t4.effects.pop(0)))
    (removal,) = t4.effects
    assert isinstance(removal, RunStep)
    assert isinstance(removal.step.effect, RemoveVgpu)
    lose(t4, "win1")
    assert start(t4, "win1", "win1") is None
    assert removal in t4.effects, "it still waits for libvirt"
    t4.submit(CreateVgpus(type="T4-4Q", name="new", gpu=str(place(t4, "win1").gpu.address)))
    while observations := [each for each in t4.effects if isinstance(each, Observe)]:
        t4.effects.remove(observations[0])
        t4.turn(t4.perform(observations[0]))
    assert [each for each in t4.effects if isinstance(each, RunStep)] == [removal], "and keeps its lane"
    t4.until_idle()
    assert faults_of(t4) == []


def test_a_start_with_an_observation_that_never_ends(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    t4.turn(LookRequested(next(t4.tickets)))
    (observation,) = t4.effects
    lose(t4, "win1")
    assert start(t4, "win1", "win1") is None
    assert observation in t4.effects
    assert isinstance(observation, Observe)


def test_what_an_operation_is_about_to_make_is_waited_for(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    lose(t4, "win1")
    t4.turn(LookRequested(next(t4.tickets)))
    t4.turn(t4.perform(t4.effects.pop(0)))
    (restoring,) = [each for each in t4.effects if isinstance(each, RunStep)]
    assert isinstance(restoring.step.effect, CreateVgpu)
    ticket = ask(t4, "win1", "win1")
    (glimpse,) = [each for each in t4.effects if isinstance(each, Glimpse)]
    t4.effects.remove(glimpse)
    t4.turn(t4.perform(glimpse))
    assert ticket not in t4.answers
    assert decide(t4, ticket) is None
    assert [each.started.kind for each in t4.operations()].count("start") == 0
    assert hold(t4, "win1") is not None


def test_a_vgpu_that_is_being_removed_is_not_started_with(t4: Daemon):
    t4.do(CreateVgpus(type="T4-8Q", name="seat"))
    source = named(t4, "seat")
    t4.submit(DeleteVgpu(vgpu="seat"))
    t4.turn(t4.perform(t4.effects.pop(0)))
    refusal = start(t4, "win1", source)
    assert isinstance(refusal, errors.Conflict)
    assert "being removed" in refusal.message


def test_no_vfs_are_turned_beside_the_steps_of_a_start(vendor: Daemon):
    vendor.do(CreateVgpus(type="A2-8Q", name="win1"))
    lose(vendor, "win1")
    ask(vendor, "win1", "win1")
    vendor.turn(vendor.perform(vendor.effects.pop(0)))
    (step,) = [each for each in vendor.effects if isinstance(each, RunStep)]
    assert step.step.lane.startswith("gpu/")
    vendor.submit(CreateVgpus(type="A2-8Q", name="other"))
    vendor.effects.remove(step)
    vendor.until_idle()
    assert [each.started.subject for each in vendor.operations() if not each.state.has_ended] == [
        "other",
        "win1",
    ]
    vendor.turn(vendor.perform(step))
    vendor.until_idle()
    assert faults_of(vendor) == []
    assert not isinstance(step.step.effect, SetVfs)


def test_a_store_that_fails_while_a_start_is_judged(t4: Daemon):
    """The engine is built anew: what the old one looked at does not pass for what the new one asks for."""
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    ask(t4, "win1", "win1", token="lost")
    (old,) = t4.effects
    late = t4.perform(old)
    t4.effects.clear()
    t4.open(t4.engine)
    ticket = ask(t4, "win1", "win1", token="again")
    lose(t4, "win1")
    t4.turn(late)
    assert ticket not in t4.answers
    assert decide(t4, ticket) is None
    held = hold(t4, "win1")
    assert held is not None
    assert held.token == "again"
    assert t4.stage.observe().mdev(place(t4, "win1").id) is not None


def test_a_vgpu_that_was_taken_while_another_one_was_made(t4: Daemon):
    t4.do(CreateVgpus(type="T4-8Q", name="there"))
    t4.do(CreateVgpus(type="T4-8Q", name="lost"))
    lose(t4, "lost")
    first = ask(t4, "win1", "there", "lost")
    t4.turn(t4.perform(t4.effects.pop(0)))
    (step,) = [each for each in t4.effects if isinstance(each, RunStep)]
    t4.effects.remove(step)
    assert start(t4, "win2", "there", token="two") is None
    t4.turn(t4.perform(step))
    refusal = decide(t4, first)
    assert isinstance(refusal, errors.VgpuBusy)
    assert (hold(t4, "there").domain, hold(t4, "lost")) == ("win2", None)  # type: ignore[union-attr]


# -- how a hold ends --------------------------------------------------------------------------------


def test_a_managed_save_image_keeps_its_vgpu(t4: Daemon):
    """hardware.md T4: there is no hook for managed save."""
    t4.do(CreateVgpus(type="T4-8Q", name="seat"))
    t4.do(AttachVgpu(domain="win1", vgpu="seat"))
    start(t4, "win1", "seat")
    release(t4, "win1", "seat", saved=True)
    held = hold(t4, "seat")
    assert held is not None
    assert held.saved
    refusal = start(t4, "win2", "seat", token="two", starts={})
    assert isinstance(refusal, errors.VgpuAttached | errors.VgpuBusy)
    saved = shown(t4, "win1", managed_save=True)
    look(t4, saved)
    assert hold(t4, "seat") == held
    assert start(t4, "win1", "seat", token="three") is None
    look(t4, shown(t4, "win1", managed_save=False))
    assert hold(t4, "seat") is None, "libvirt shows it stopped, and without an image"


def test_an_image_that_nobody_told_of_is_seen(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    start(t4, "win1", "win1")
    look(t4, shown(t4, "win1", managed_save=True))
    held = hold(t4, "win1")
    assert held is not None
    assert held.saved


def test_a_hold_lasts_while_libvirt_shows_the_guest(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    start(t4, "win1", "win1")
    look(t4, running(t4, "win1"))
    assert hold(t4, "win1") is not None
    look(t4, lambda snapshot: replace(snapshot, domains=Unknown("libvirt does not answer")))
    assert hold(t4, "win1") is not None, "UNKNOWN is not stopped"


def test_a_stop_without_a_daemon_is_seen_afterwards(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    start(t4, "win1", "win1")
    t4.close()
    after = Daemon(t4.stage)
    try:
        assert hold(after, "win1") is not None
        look(after)
        assert hold(after, "win1") is None
    finally:
        after.close()


def test_an_observation_from_before_a_start_does_not_end_its_hold(t4: Daemon):
    t4.do(AttachVgpu(domain="win1", type="T4-8Q"))
    t4.turn(LookRequested(next(t4.tickets)))
    (observation,) = t4.effects
    before = t4.perform(observation)
    assert isinstance(before, Observed)
    assert start(t4, "win1", "win1") is None
    t4.effects.remove(observation)
    t4.turn(before)
    assert hold(t4, "win1") is not None


def test_the_hooks_own_note_of_an_end_frees_a_vgpu_before_libvirt_is_asked(t4: Daemon):
    t4.do(CreateVgpus(type="T4-8Q", name="seat"))
    start(t4, "win1", "seat")
    noted = {uuid_of(t4, "win1"): "one"}
    assert start(t4, "win2", "seat", token="two", starts=noted) is not None
    assert start(t4, "win2", "seat", token="two", starts={}) is None


def test_what_a_domain_holds_is_not_removed(t4: Daemon):
    """Between the hook and QEMU's first handle nothing else shows that somebody has it."""
    t4.do(CreateVgpus(type="T4-8Q", name="seat"))
    look(t4)
    ticket = t4.submit(DeleteVgpu(vgpu="seat"))
    (observation,) = t4.effects
    before = t4.perform(observation)
    start(t4, "win1", "seat")
    t4.effects.remove(observation)
    t4.turn(before)
    assert isinstance(t4.answers[ticket].error, errors.VgpuBusy)
    release(t4, "win1", "seat")
    t4.do(DeleteVgpu(vgpu="seat"))
    assert t4.stage.observe().vgpus() == ()


def test_detaching_from_a_running_guest_ends_its_hold(t4: Daemon):
    t4.do(CreateVgpus(type="T4-8Q", name="seat"))
    t4.do(AttachVgpu(domain="win1", vgpu="seat"))
    start(t4, "win1", "seat")
    look(t4, running(t4, "win1"))
    assert hold(t4, "seat") is not None
    t4.do(DetachVgpu(domain="win1"))
    assert hold(t4, "seat") is None


def test_a_place_that_the_desktops_xml_names_is_not_exchanged(vendor: Daemon):
    """The VF of a desktop that libvirt knows of: another one would take a change of its XML."""
    vendor.do(CreateVgpus(type="A2-8Q", name="win1"))
    there = place(vendor, "win1")
    wish = DesktopDocument(name="win1", vgpus=(DesktopVgpu(name="win1", vgpu="win1"),))
    key = key_of(wish)
    vendor.engine.ledger.wishes[key] = Wish(document=wish, generation=1, created_at=NOW, changed_at=NOW)
    vendor.turn(PauseRequested(next(vendor.tickets), paused=True, requester=WHO))
    lose(vendor, "win1")
    look(vendor)
    vendor.stage.sim.kernel.write(current_type(there.parent), str(there.type_id))
    refusal = start(vendor, "win1", "win1")
    assert isinstance(refusal, errors.Conflict)
    assert f"on {there.parent}, which its XML names: it is not free" in refusal.message


def test_a_glimpse_that_nobody_asked_for_is_nothing(t4: Daemon):
    t4.turn(Glimpsed(7, t4.stage.observe()))
    assert t4.effects == []

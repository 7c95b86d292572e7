"""Drift on a simulated host: named, told once, mended as its policy says, and gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.stage import Daemon, Stage, faults_of, show
from tests.support.world import WHO
from vgpuctl import errors
from vgpuctl.api.edits import parse_edit
from vgpuctl.host.libvirt.hostdev_xml import text_of
from vgpuctl.model.document import (
    Affect,
    DesktopDocument,
    DesktopVgpu,
    GpuDocument,
    Repair,
    VgpuDocument,
)
from vgpuctl.model.domain import Hostdev, MdevSource, PciSource, alias_for
from vgpuctl.model.edit import (
    AdoptVgpus,
    ApplyDocuments,
    AttachVgpu,
    CreateVgpus,
    DetachVgpu,
    Edit,
    PruneVgpus,
    RepairDrift,
    ReplaceGpu,
)
from vgpuctl.model.fact import Unknown
from vgpuctl.model.finding import Drift
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.record import DAEMON, DriftFound, DriftGone, OperationState
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import CreateVgpu, DetachHostdev, DisableAutostart, Effect, RemoveVgpu, SetVfs
from vgpuctl.service.messages import CancelRequested, LookRequested

T4, L40S = "0000:41:00.0", "0000:61:00.0"
CARDS = "t4:mdev,l40s:sriov-mdev"
VENDOR = "t4:mdev,l40s:vendor-vfio"
CONFIG = frozenset({Affect.CONFIG})


@pytest.fixture
def make(tmp_path: Path):
    """Stages with a daemon each, closed at the end."""
    opened: list[tuple[Stage, Daemon]] = []

    def start(cards: str = CARDS) -> tuple[Stage, Daemon]:
        directory = tmp_path / str(len(opened))
        directory.mkdir()
        stage = Stage(directory, cards)
        daemon = Daemon(stage)
        opened.append((stage, daemon))
        return stage, daemon

    yield start
    for stage, daemon in opened:
        daemon.close()
        stage.close()


def look(daemon: Daemon) -> None:
    """Observe, without time for a sweep that repairs."""
    daemon.turn(LookRequested(next(daemon.tickets)))
    daemon.until_idle()


def steps_of(daemon: Daemon, edit: Edit) -> list[Effect]:
    """What an edit would do."""
    shown = show(daemon, edit)
    assert not isinstance(shown, errors.VgpuctlError), shown
    return [each.effect for each in shown.plan.steps]


def told(daemon: Daemon) -> dict[tuple[str, str], Any]:
    return dict(daemon.engine.ledger.findings)


def codes(daemon: Daemon) -> set[str]:
    return {str(code) for code, _ in told(daemon)}


def lines(daemon: Daemon, subject: str, code: Drift) -> list[str]:
    """Every line of the log about one state of one thing."""
    found = []
    for entry in daemon.store.entries(0, 10_000):
        match entry.record:
            case DriftFound(finding=finding) if finding.key == (code, subject):
                found.append("found")
            case DriftGone(code=gone, subject=who) if (gone, who) == (code, subject):
                found.append("gone")
    return found


def set_policy(daemon: Daemon, gpu: str, repair: Repair) -> None:
    daemon.do(ApplyDocuments(documents=(GpuDocument(name=gpu, vfs=None, repair=repair),)))


def restart(stage: Stage, daemon: Daemon) -> Daemon:
    daemon.close()
    again = Daemon(stage)
    look(again)
    return again


def remove(stage: Stage, daemon: Daemon, name: str) -> None:
    """Somebody removes a vGPU behind our back."""
    place = next(each for each in daemon.engine.ledger.allocations.values() if each.name == name)
    if place.framework == "vendor-vfio":
        stage.sim.kernel.write(f"sys/bus/pci/devices/{place.parent}/nvidia/current_vgpu_type", "0")
    else:
        stage.sim.kernel.write(f"sys/bus/mdev/devices/{place.id}/remove", "1")


def edit_xml(stage: Stage, change: Callable[[str], str], domain: str = "win1") -> None:
    """`virsh edit`."""

    def redefine(connection: Any) -> None:
        text = connection.lookupByName(domain).XMLDesc(2)
        changed = change(text)
        assert changed != text
        connection.lookupByName(domain).undefine()
        connection.defineXML(changed)

    stage.on_libvirt(redefine)
    stage._restored += 1


def undefine(stage: Stage, domain: str) -> None:
    stage.on_libvirt(lambda connection: connection.lookupByName(domain).undefine())
    stage._restored += 1


# -- appearing, told once, mended --------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What happens to a host with a desktop on each card, and the state that it comes to."""

    code: Drift
    happen: Callable[[Stage, Daemon], Any]
    subject: str
    repair: Repair
    cards: str = CARDS


def swap(stage: Stage, _daemon: Daemon) -> None:
    stage.sim.control("swap-gpu", {"gpu": L40S})


def turn_vfs_off(stage: Stage, _daemon: Daemon) -> None:
    stage.sim.kernel.sriov_manage(L40S, enable=False, timeout_s=5.0)


def take_the_vf(stage: Stage, daemon: Daemon) -> None:
    remove(stage, daemon, "win1")
    policy = daemon.engine._planning.repair
    daemon.engine.set_repair(Repair.NEVER)
    look(daemon)
    daemon.engine.set_repair(policy)
    place = next(each for each in daemon.engine.ledger.allocations.values() if each.name == "win1")
    vf = f"sys/bus/pci/devices/{place.parent}/nvidia"
    stage.sim.kernel.write(f"{vf}/current_vgpu_type", str(place.type_id))


def hostdev_elsewhere(stage: Stage, daemon: Daemon) -> None:
    place = next(each for each in daemon.engine.ledger.allocations.values() if each.name == "win1")
    stage.libvirt.attach("win3", Hostdev(MdevSource(place.id)), CONFIG)
    stage._restored += 1


def hostdev_strays(stage: Stage, daemon: Daemon) -> None:
    place = next(each for each in daemon.engine.ledger.allocations.values() if each.name == "win1")
    stage.libvirt.attach("win3", Hostdev(MdevSource(place.id), alias_for(place.id)), CONFIG)
    stage._restored += 1


CASES = [
    Case(Drift.VGPU_VANISHED, lambda s, d: remove(s, d, "win1"), "win1", Repair.AUTO),
    Case(Drift.VF_TAKEN, take_the_vf, "win1", Repair.AUTO, VENDOR),
    Case(Drift.DRIVER_RELOADED, turn_vfs_off, L40S, Repair.ASK),
    Case(Drift.DRIVER_RELOADED, lambda s, d: s.sim.control("reload-driver"), L40S, Repair.ASK),
    Case(
        Drift.CARD_MOVED,
        lambda s, d: (
            s.sim.control("reboot"),
            s.sim.control("move-gpu", {"gpu": L40S, "address": "0000:c1:00.0"}),
        ),
        "",
        Repair.AUTO,
    ),
    Case(Drift.CARD_CHANGED, swap, L40S, Repair.NEVER),
    Case(Drift.GPU_GONE, lambda s, d: s.sim.control("remove-gpu", {"gpu": L40S}), L40S, Repair.NEVER),
    Case(
        Drift.GPU_UNREADABLE,
        lambda s, d: s.sim.control("fail", {"what": "gpu", "gpu": L40S}),
        L40S,
        Repair.NEVER,
    ),
    Case(
        Drift.FOREIGN_VGPU,
        lambda s, d: s.make_foreign(L40S, "L40S-8Q"),
        "",
        Repair.NEVER,
    ),
    Case(Drift.DOMAIN_GONE, lambda s, d: undefine(s, "win1"), "win1", Repair.NEVER),
    Case(
        Drift.HOSTDEV_MISSING,
        lambda s, d: edit_xml(s, lambda text: text[: text.index("<hostdev")] + _after(text)),
        "win1",
        Repair.ASK,
    ),
    Case(
        Drift.HOSTDEV_CHANGED,
        lambda s, d: edit_xml(s, _with_another_uuid),
        "win1",
        Repair.ASK,
    ),
    Case(Drift.HOSTDEV_STRAY, hostdev_strays, "win1", Repair.ASK),
    Case(Drift.HOSTDEV_FOREIGN, hostdev_elsewhere, "win1", Repair.NEVER),
]


def _after(text: str) -> str:
    return text[text.index("</hostdev>") + len("</hostdev>") :]


def _with_another_uuid(text: str) -> str:
    start = text.index("uuid='", text.index("<hostdev")) + len("uuid='")
    return text[:start] + "9" * 8 + text[start + 8 :]


def with_desktops(make: Callable[..., tuple[Stage, Daemon]], cards: str) -> tuple[Stage, Daemon]:
    stage, daemon = make(cards)
    if "vendor" in cards:
        daemon.do(CreateVgpus(name="win1", type="L40S-8Q"))
        daemon.do(CreateVgpus(name="win2", type="T4-4Q"))
    else:
        daemon.do(AttachVgpu(domain="win1", type="L40S-8Q"))
        daemon.do(AttachVgpu(domain="win2", type="T4-4Q"))
    look(daemon)
    assert told(daemon) == {}
    return stage, daemon


@pytest.mark.parametrize("case", CASES, ids=lambda each: each.code)
def test_a_state_is_named_told_once_and_bounded_by_its_policy(case: Case, make):
    stage, daemon = with_desktops(make, case.cards)
    set_policy(daemon, L40S, Repair.NEVER)
    case.happen(stage, daemon)
    for _ in range(3):
        look(daemon)
    mine = [finding for (code, _), finding in told(daemon).items() if code == case.code]
    assert len(mine) == 1, told(daemon)
    (finding,) = mine
    if case.subject:
        assert finding.subject == case.subject
    assert finding.repair is Repair.NEVER
    assert finding.since is not None
    assert finding.hint
    assert lines(daemon, finding.subject, case.code) == ["found"]
    daemon = restart(stage, daemon)
    assert lines(daemon, finding.subject, case.code) == ["found"], "told once, also over a restart"
    if finding.gpu == L40S and case.code not in (Drift.CARD_CHANGED, Drift.GPU_GONE, Drift.CARD_MOVED):
        daemon.do(ApplyDocuments(documents=(GpuDocument(name=L40S, vfs=None),)))
        now = [each for each in daemon.engine.differing(stage.observe()) if each.key == finding.key]
        mended = [] if case.repair is Repair.AUTO else [(case.repair, finding.since)]
        assert [(each.repair, each.since) for each in now] == mended
    daemon.close()


AUTOMATIC = [each for each in CASES if each.repair is Repair.AUTO]


def test_what_libvirt_does_not_tell_now_is_not_over(make):
    stage, daemon = make()
    daemon.do(AttachVgpu(domain="win1", type="T4-4Q"))
    undefine(stage, "win1")
    look(daemon)
    daemon.observe = lambda: replace(stage.observe(), domains=Unknown("it is being restarted"))
    look(daemon)
    daemon.observe = None
    look(daemon)
    assert lines(daemon, "win1", Drift.DOMAIN_GONE) == ["found"]


@pytest.mark.parametrize("unread", ["mig", "gpu_instances"])
def test_what_nvml_does_not_tell_now_is_not_over(make, tmp_path: Path, unread: str):
    (tmp_path / "cards.yaml").write_text("cards: [{model: a100-80}]", encoding="utf-8")
    stage, daemon = make(str(tmp_path / "cards.yaml"))
    daemon.do(parse_edit({"action": "set-mig", "gpu": T4, "mig": {"profiles": {"1g.10gb": 2}}}))
    stage.sim.control("mig-cut", {"gpu": "0", "profile": "3g.40gb"})
    look(daemon)

    def without_nvml() -> Snapshot:
        seen = stage.observe()
        unknown: dict[str, Any] = {unread: Unknown("NVML is not asked while VFs are turned on or off")}
        return replace(seen, gpus=tuple(replace(each, **unknown) for each in seen.gpus))

    daemon.observe = without_nvml
    look(daemon)
    daemon.observe = None
    look(daemon)
    assert lines(daemon, T4, Drift.GPU_INSTANCES_DIFFER) == ["found"]


@pytest.mark.parametrize("case", AUTOMATIC, ids=lambda each: each.code)
def test_under_auto_what_can_hurt_nobody_is_mended_and_that_is_told(case: Case, make):
    stage, daemon = with_desktops(make, case.cards)
    ids = set(daemon.engine.ledger.allocations)
    case.happen(stage, daemon)
    if case.code is Drift.VF_TAKEN:
        stage.foreign = {(str(each.parent), "None") for each in stage.observe().vgpus() if each.gpu != T4}
    daemon.settle()
    look(daemon)
    assert str(case.code) not in codes(daemon)
    assert set(daemon.engine.ledger.allocations) == ids
    assert faults_of(daemon) == []
    assert daemon.operations()[0].started.requester == DAEMON


ASKED = [each for each in CASES if each.repair is Repair.ASK]


@pytest.mark.parametrize("case", ASKED, ids=lambda each: each.code)
def test_what_is_not_mended_unasked_is_mended_by_repair(case: Case, make):
    stage, daemon = with_desktops(make, case.cards)
    before = stage._xml()
    case.happen(stage, daemon)
    daemon.settle()
    assert str(case.code) in codes(daemon)
    assert steps_of(daemon, RepairDrift())
    operation = daemon.do(RepairDrift())
    assert (operation.state, operation.started.kind) == (OperationState.SUCCEEDED, "repair")
    look(daemon)
    assert told(daemon) == {}
    assert faults_of(daemon) == []
    if case.code is not Drift.DRIVER_RELOADED:
        assert sorted(stage._xml()) == sorted(before)
    assert steps_of(daemon, RepairDrift()) == []


@pytest.mark.parametrize("repair", [Repair.ASK, Repair.NEVER])
def test_the_policy_of_a_gpu_holds_unasked_repair_back(repair: Repair, make):
    stage, daemon = with_desktops(make, CARDS)
    set_policy(daemon, L40S, repair)
    for name in ("win1", "win2"):
        remove(stage, daemon, name)
    daemon.settle()
    assert [subject for _, subject in told(daemon)] == ["win1"], "the other GPU has the host's policy"
    assert told(daemon)[Drift.VGPU_VANISHED, "win1"].repair is repair
    whatever = steps_of(daemon, RepairDrift())
    assert bool(whatever) is (repair is Repair.ASK), "never means: not in `repair` without a name"
    daemon.do(RepairDrift(subject="win1"))
    look(daemon)
    assert told(daemon) == {}


def test_the_policy_of_the_host_and_what_a_boot_took(make):
    stage, daemon = with_desktops(make, CARDS)
    daemon.engine.set_repair(Repair.ASK)
    remove(stage, daemon, "win2")
    daemon.settle()
    assert (Drift.VGPU_VANISHED, "win2") in told(daemon)
    stage.sim.control("reboot")
    daemon.settle()
    assert told(daemon) == {}, "a boot takes it from everybody, and everybody gets it back"
    daemon.engine.set_repair(Repair.NEVER)
    stage.sim.control("reboot")
    daemon.settle()
    assert {(str(code), subject) for code, subject in told(daemon)} == {
        ("not-made", "win1"),
        ("not-made", "win2"),
    }
    assert len(stage.observe().vgpus()) == 0


def test_repair_of_a_gpu_by_its_address_and_of_what_is_not_there(make):
    stage, daemon = with_desktops(make, CARDS)
    daemon.engine.set_repair(Repair.NEVER)
    for name in ("win1", "win2"):
        remove(stage, daemon, name)
    daemon.do(RepairDrift(subject=T4))
    assert [each.gpu for each in stage.observe().vgpus()] == [PciAddress(0, 0x41, 0, 0)]
    with pytest.raises(errors.VgpuNotFound):
        daemon.do(RepairDrift(subject="no-such"))


def test_repair_goes_on_past_what_cannot_be_mended_and_is_never_undone(make):
    stage, daemon = with_desktops(make, CARDS)
    daemon.engine.set_repair(Repair.ASK)
    for name in ("win1", "win2"):
        remove(stage, daemon, name)
    stage.sim.control("fail", {"what": "create", "gpu": T4})
    operation = daemon.do(RepairDrift())
    assert operation.state is OperationState.FAILED
    assert [str(each.gpu) for each in stage.observe().vgpus()] == [L40S]
    look(daemon)
    assert {subject for _, subject in told(daemon)} == {"win2"}
    assert set(daemon.engine.ledger.in_force().vgpus()) == {"win1", "win2"}


def test_turning_vfs_on_again_is_never_done_unasked(make):
    """The driver was reloaded under us: VFs are for somebody to turn on, in a plan that he has seen."""
    stage, daemon = with_desktops(make, CARDS)
    turn_vfs_off(stage, daemon)
    daemon.settle()
    assert not stage.observe().gpus[1].vfs
    shown = show(daemon, RepairDrift(subject=L40S))
    assert not isinstance(shown, errors.VgpuctlError)
    assert [type(each.effect) for each in shown.plan.steps] == [SetVfs]
    assert shown.plan.incomplete


def test_a_repair_that_is_cancelled_goes_no_further_and_undoes_nothing(make):
    stage, daemon = with_desktops(make, CARDS)
    daemon.engine.set_repair(Repair.NEVER)
    turn_vfs_off(stage, daemon)
    look(daemon)
    ticket = daemon.submit(RepairDrift(subject=L40S))
    while not stage.observe().gpus[1].vfs:
        daemon.turn(daemon.perform(daemon.effects.pop(0)))
    daemon.turn(CancelRequested(next(daemon.tickets), daemon.answers[ticket].value, WHO))
    daemon.until_idle()
    operation = daemon.operation(ticket)
    assert operation.state is OperationState.CANCELLED
    assert operation.problem["detail"] == f"{WHO.name} cancelled it"
    assert [type(each.step.effect) for each in operation.runs] == [SetVfs]
    assert stage.observe().gpus[1].vfs
    assert {each.gpu for each in stage.observe().vgpus()} == {PciAddress(0, 0x41, 0, 0)}


# -- gpu replace ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cards", [CARDS, VENDOR])
def test_a_card_that_was_exchanged_hands_its_places_to_the_new_one(make, cards: str):
    stage, daemon = with_desktops(make, cards)
    old = next(each.gpu.uuid for each in daemon.engine.ledger.allocations.values() if each.name == "win1")
    assert old is not None
    daemon.do(CreateVgpus(name="pinned", type="L40S-8Q", gpu=old))
    daemon.do(ApplyDocuments(documents=(GpuDocument(name=old, repair=Repair.ASK),)))
    ids = {each.name: each.id for each in daemon.engine.ledger.allocations.values()}
    stage.sim.control("reboot")
    stage.sim.control("swap-gpu", {"gpu": L40S})
    daemon.settle()
    assert (Drift.CARD_CHANGED, L40S) in told(daemon)
    shown = show(daemon, ReplaceGpu(old=L40S, new=L40S))
    assert not isinstance(shown, errors.VgpuctlError)
    assert not shown.plan.problems
    look(daemon)
    assert (Drift.CARD_CHANGED, L40S) in told(daemon), "a dry run changes nothing"
    operation = daemon.do(ReplaceGpu(old=old, new=L40S))
    assert operation.state is OperationState.SUCCEEDED, operation.problem
    new = str(stage.observe().gpus[1].uuid)
    assert new != old
    places = {each.name: each for each in daemon.engine.ledger.allocations.values()}
    assert {each.name: each.id for each in places.values()} == ids
    assert {places["win1"].gpu.uuid, places["pinned"].gpu.uuid} == {new}
    assert VgpuDocument(name="pinned", type="L40S-8Q", gpu=new, owner="root") in daemon.documents()
    assert GpuDocument(name=new, repair=Repair.ASK) in daemon.documents()
    look(daemon)
    assert told(daemon) == {}
    assert faults_of(daemon) == []


def test_a_place_of_a_profile_takes_its_next_type_on_another_model(make):
    stage, daemon = make("l40s:sriov-mdev,t4:mdev")
    l40s, t4 = "0000:41:00.0", "0000:61:00.0"
    daemon.do(CreateVgpus(name="small", profile="office", gpu=l40s))
    stage.sim.control("remove-gpu", {"gpu": l40s})
    look(daemon)
    before = daemon.documents(), dict(daemon.engine.ledger.allocations)
    # The profile has a type for a T4: it fits.
    shown = show(daemon, ReplaceGpu(old=l40s, new=t4))
    assert not isinstance(shown, errors.VgpuctlError), shown
    assert [each.type_name for each in shown.plan.allocate] == ["T4-1B"]
    assert (daemon.documents(), dict(daemon.engine.ledger.allocations)) == before


def test_a_type_that_the_new_card_does_not_have_is_refused_by_name(make):
    stage, daemon = with_desktops(make, CARDS)
    stage.sim.control("remove-gpu", {"gpu": L40S})
    before = daemon.documents(), dict(daemon.engine.ledger.allocations)
    with pytest.raises(errors.NoCapacity, match=r"win1: a .*T4 has no type L40S-8Q") as refused:
        daemon.do(ReplaceGpu(old=L40S, new=T4))
    assert [each["vgpu"] for each in refused.value.facts["unfit"]] == ["win1"]
    assert (daemon.documents(), dict(daemon.engine.ledger.allocations)) == before


def test_a_card_that_is_here_is_not_replaced(make):
    _, daemon = with_desktops(make, "l40s:sriov-mdev,l40s:sriov-mdev,t4:mdev")
    place = next(each for each in daemon.engine.ledger.allocations.values() if each.name == "win1")
    other = next(each for each in ("0000:41:00.0", "0000:61:00.0") if each != str(place.gpu.address))
    with pytest.raises(errors.Conflict, match="is on this host"):
        daemon.do(ReplaceGpu(old=str(place.gpu.address), new=other))
    with pytest.raises(errors.GpuNotFound):
        daemon.do(ReplaceGpu(old="0000:99:00.0", new=other))


def test_a_replace_that_fails_half_way_is_not_undone_but_goes_on(make):
    """There is no card to go back to: what was not made is drift on the new one, and is made later."""
    stage, daemon = with_desktops(make, CARDS)
    ids = set(daemon.engine.ledger.allocations)
    stage.sim.control("swap-gpu", {"gpu": L40S})
    stage.sim.control("fail", {"what": "create", "gpu": L40S})
    operation = daemon.do(ReplaceGpu(old=L40S, new=L40S))
    assert operation.state is OperationState.FAILED
    assert {each.gpu.uuid for each in daemon.engine.ledger.allocations.values() if each.name == "win1"} == {
        stage.observe().gpus[1].uuid
    }
    stage.sim.control("heal")
    daemon.settle()
    look(daemon)
    assert told(daemon) == {}
    assert set(daemon.engine.ledger.allocations) == ids
    assert faults_of(daemon) == []


# -- orphans, adoption, the loss of the store -----------------------------------------------------------


@pytest.mark.parametrize("cards", [CARDS, VENDOR])
def test_after_the_loss_of_the_store_all_is_foreign_until_adopted_with_the_same_ids(make, cards: str):
    stage, daemon = make(cards)
    daemon.do(AttachVgpu(domain="win1", type="T4-4Q"))
    daemon.do(AttachVgpu(domain="win2", type="T4-4Q"))
    if cards == CARDS:
        daemon.do(AttachVgpu(domain="win3", type="L40S-8Q"))
    ids = {each.id for each in daemon.engine.ledger.allocations.values()}
    if cards == VENDOR:
        # libvirt before 9.7 is not given a vendor VFIO by us; its XML has it as a newer one would.
        daemon.do(CreateVgpus(name="v", type="L40S-8Q"))
        place = next(each for each in daemon.engine.ledger.allocations.values() if each.name == "v")
        assert isinstance(place.parent, PciAddress)
        hostdev = text_of(Hostdev(PciSource(place.parent), alias_for(place.id)))
        edit_xml(stage, lambda text: text.replace("</devices>", f"{hostdev}</devices>"), "win3")
        ids.add(place.id)
    xml = stage._xml()
    daemon.close()
    for each in stage.directory.glob("state.db*"):
        each.unlink()
    stage._restored += 1
    daemon = Daemon(stage)
    daemon.settle()
    assert daemon.engine.ledger.allocations == {}
    assert codes(daemon) == {"foreign-vgpu", "hostdev-unowned"}
    assert {each.user for each in told(daemon).values() if each.code is Drift.FOREIGN_VGPU} == {
        "win1",
        "win2",
        "win3",
    }
    assert len(stage.observe().vgpus()) == 3, "nobody's until somebody says so"
    operation = daemon.do(AdoptVgpus())
    assert operation.state is OperationState.SUCCEEDED
    assert set(daemon.engine.ledger.allocations) == ids
    daemon.settle()
    assert told(daemon) == {}
    assert stage._xml() == xml
    daemon.do(DetachVgpu(domain="win1"))
    assert faults_of(daemon) == []
    daemon.close()


def test_an_orphan_has_an_age_and_its_last_user(make):
    stage, daemon = make(CARDS)
    stage.make_foreign(T4, "T4-4Q")
    look(daemon)
    ((_, name),) = told(daemon)
    first = told(daemon)[Drift.FOREIGN_VGPU, name]
    assert (first.user, first.gpu) == (None, T4)
    stage.sim.clock.advance(3600)
    held = stage.sim.control("hold", {"vgpu": name, "domain": "win7"})
    stage._restored += 1
    look(daemon)
    stage.sim.control("release", {"vgpu": name})
    look(daemon)
    daemon = restart(stage, daemon)
    kept = told(daemon)[Drift.FOREIGN_VGPU, name]
    assert held["domain"] == kept.user == "win7"
    assert kept.since == first.since
    assert lines(daemon, name, Drift.FOREIGN_VGPU) == ["found", "found"], "its user is worth a line"
    stage.sim.kernel.write(f"sys/bus/mdev/devices/{name}/remove", "1")
    look(daemon)
    assert told(daemon) == {}
    assert lines(daemon, name, Drift.FOREIGN_VGPU)[-1] == "gone"
    daemon.close()


def start_of(stage: Stage, name: str) -> str:
    """What mdevctl's file says."""
    (definition,) = [each for each in stage.sim.engine.state.definitions if str(each.uuid) == name]
    return str(json.loads(definition.text)["start"])


def autostarted(stage: Stage, daemon: Daemon) -> str:
    """A vGPU that somebody made on the T4, and that mdevctl starts at boot."""
    made = stage.sim.control("foreign", {"gpu": T4, "type": "T4-4Q", "autostart": True})
    stage.foreign.add((made["parent"], made["uuid"]))
    look(daemon)
    return str(made["uuid"])


def test_adoption_leaves_an_autostart_alone_unless_told_and_never_starts_twice(make):
    stage, daemon = make(CARDS)
    name = autostarted(stage, daemon)
    shown = show(daemon, AdoptVgpus())
    assert not isinstance(shown, errors.VgpuctlError)
    assert shown.plan.steps == ()
    assert [each for each in shown.change.notes if f"vgpuctl adopt {name} --disable-autostart" in each]
    daemon.do(AdoptVgpus())
    assert start_of(stage, name) == "auto"
    # A boot: mdevctl starts it, and not we.
    stage.sim.control("reboot")
    calls = stage.kernel.calls
    daemon.settle()
    assert [str(each.mdev_uuid) for each in stage.observe().vgpus()] == [name]
    assert stage.kernel.calls == calls
    # mdevctl does not: it is told, and made only when asked.
    stage.sim.kernel.write(f"sys/bus/mdev/devices/{name}/remove", "1")
    daemon.settle()
    assert codes(daemon) == {"left-to-mdevctl"}
    daemon.do(RepairDrift())
    look(daemon)
    assert told(daemon) == {}


def test_the_autostart_is_switched_off_by_a_journalled_step_that_the_plan_shows(make):
    stage, daemon = make(CARDS)
    name = autostarted(stage, daemon)
    shown = show(daemon, AdoptVgpus(vgpu=name, sole_starter=True))
    assert not isinstance(shown, errors.VgpuctlError)
    assert [type(each.effect) for each in shown.plan.steps] == [DisableAutostart]
    assert start_of(stage, name) == "auto"
    operation = daemon.do(AdoptVgpus(vgpu=name, sole_starter=True))
    assert [(type(each.step.effect), each.state) for each in operation.runs] == [(DisableAutostart, "done")]
    assert start_of(stage, name) == "manual"
    stage.sim.control("reboot")
    daemon.settle()
    assert [str(each.mdev_uuid) for each in stage.observe().vgpus()] == [name], "now we start it"
    assert daemon.operations()[0].started.kind == "restore"
    assert faults_of(daemon) == []


def test_the_autostart_of_what_is_ours_already_can_be_switched_off_later(make):
    stage, daemon = make(CARDS)
    name = autostarted(stage, daemon)
    daemon.do(AdoptVgpus())
    ours = f"adopted-{name}"
    with pytest.raises(errors.Conflict, match="already"):
        daemon.do(AdoptVgpus(vgpu=ours))
    daemon.do(AdoptVgpus(vgpu=ours, sole_starter=True))
    assert start_of(stage, name) == "manual"
    # Somebody sets it again: told, never undone unasked.
    text = stage.sim.kernel.read(f"etc/mdevctl.d/{T4}/{name}").replace("manual", "auto")
    stage.sim.kernel.replace(f"etc/mdevctl.d/{T4}/{name}", text)
    daemon.settle()
    assert codes(daemon) == {"also-autostarted"}
    assert start_of(stage, name) == "auto"
    daemon.do(RepairDrift(subject=ours))
    assert start_of(stage, name) == "manual"


def test_an_adoption_whose_step_fails_takes_nothing_from_anybody(make):
    """Undone as other operations are, it would remove what it had just taken over."""
    stage, daemon = make(CARDS)
    name = autostarted(stage, daemon)

    def refuse(effect: Any) -> None:
        if isinstance(effect, DisableAutostart):
            raise errors.KernelRefused("read-only file system")
        stage.host.run(effect)

    daemon.run = refuse
    operation = daemon.do(AdoptVgpus(vgpu=name, sole_starter=True))
    assert operation.state is OperationState.FAILED
    daemon.settle()
    assert [str(each.mdev_uuid) for each in stage.observe().vgpus()] == [name]
    assert codes(daemon) == {"also-autostarted"}


# -- prune ------------------------------------------------------------------------------------------


def unwish(daemon: Daemon, name: str) -> None:
    """What an operation that could not be undone leaves: a vGPU of ours without a document."""
    ledger = daemon.engine.ledger
    key = next(key for key in ledger.wishes if key.name == name)
    del ledger.wishes[key]
    daemon.store.inner._writer.execute("DELETE FROM wishes WHERE name = ?", (name,))


def test_prune_removes_ours_that_nobody_wishes_and_nobody_holds(make):
    stage, daemon = make(CARDS)
    stage.make_foreign(T4, "T4-4Q")
    for name in ("kept", "left", "held"):
        daemon.do(CreateVgpus(name=name, type="T4-4Q"))
    ids = {each.name: each.id for each in daemon.engine.ledger.allocations.values()}
    for name in ("left", "held"):
        unwish(daemon, name)
    stage.sim.control("hold", {"vgpu": str(ids["held"]), "domain": "win7"})
    daemon.settle()
    assert {subject for code, subject in told(daemon) if code == Drift.UNWISHED} == {"left", "held"}
    before = stage.observe().vgpus()
    shown = show(daemon, PruneVgpus())
    assert not isinstance(shown, errors.VgpuctlError)
    assert [(type(each.effect), each.effect.name) for each in shown.plan.steps] == [(RemoveVgpu, "left")]
    assert any("held" in each and "win7" in each for each in shown.change.notes)
    assert stage.observe().vgpus() == before
    operation = daemon.do(PruneVgpus())
    assert operation.state is OperationState.SUCCEEDED
    assert {each.mdev_uuid for each in stage.observe().vgpus()} == {
        each.mdev_uuid for each in before if each.mdev_uuid != ids["left"]
    }
    assert steps_of(daemon, PruneVgpus()) == []


def test_repairs_take_a_hostdev_only_from_where_it_strayed(make):
    stage, daemon = with_desktops(make, CARDS)
    hostdev_strays(stage, daemon)
    look(daemon)
    (effect,) = steps_of(daemon, RepairDrift(subject="win1"))
    assert isinstance(effect, DetachHostdev)
    assert effect.domain == "win3"


def test_a_gpu_document_that_only_has_a_policy_turns_no_vfs(make):
    stage, daemon = make(CARDS)
    set_policy(daemon, L40S, Repair.ASK)
    set_policy(daemon, T4, Repair.NEVER)
    daemon.settle()
    assert not stage.observe().gpus[1].vfs


def test_a_desktop_of_an_adopted_vgpu_is_no_drift(make):
    stage, daemon = make(CARDS)
    stage.make_foreign(T4, "T4-4Q")
    (vgpu,) = stage.observe().vgpus()
    assert vgpu.mdev_uuid is not None
    stage.libvirt.attach("win1", Hostdev(MdevSource(vgpu.mdev_uuid)), CONFIG)
    stage._restored += 1
    daemon.do(AdoptVgpus())
    look(daemon)
    assert told(daemon) == {}
    (document,) = [each for each in daemon.documents() if isinstance(each, DesktopDocument)]
    assert document.vgpus == (
        DesktopVgpu(name=f"adopted-{vgpu.mdev_uuid}", vgpu=f"adopted-{vgpu.mdev_uuid}"),
    )


def test_what_repair_does_is_a_creation_like_any_other(make):
    stage, daemon = with_desktops(make, CARDS)
    daemon.engine.set_repair(Repair.ASK)
    remove(stage, daemon, "win1")
    operation = daemon.do(RepairDrift(subject="win1"))
    assert [type(each.step.effect) for each in operation.runs] == [CreateVgpu]
    assert operation.started.forward


def test_a_place_that_is_only_named_by_a_domain_is_told_and_repaired(make):
    """What a detach leaves that could not be undone, after a boot."""
    stage, daemon = with_desktops(make, CARDS)
    unwish(daemon, "win1")
    stage.sim.control("reboot")
    look(daemon)
    assert ("hostdev-stray", "win1") in told(daemon)
    (effect,) = [each for each in steps_of(daemon, RepairDrift()) if each.name == "win1"]
    assert isinstance(effect, DetachHostdev)
    assert daemon.do(RepairDrift()).state is OperationState.SUCCEEDED
    daemon.settle()
    assert "win1" not in {each.name for each in daemon.engine.ledger.allocations.values()}
    assert told(daemon) == {}


def test_an_adopted_vgpu_follows_its_card_into_another_slot(make):
    """Its document names the GPU by what it is, and not by where it was."""
    stage, daemon = make(CARDS)
    stage.make_foreign(T4, "T4-4Q")
    daemon.do(AdoptVgpus())
    stage.sim.control("move-gpu", {"gpu": T4, "address": "0000:c1:00.0"})
    stage.sim.control("reboot")
    daemon.settle()
    assert faults_of(daemon) == []
    (vgpu,) = stage.observe().vgpus()
    assert str(vgpu.parent) == "0000:c1:00.0"

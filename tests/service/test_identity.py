"""What is whose: by UUID, by place, by card; and what somebody else does at the same moment."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from tests.support.stage import Daemon, Stage, faults_of, show
from tests.support.world import WHO
from vgpuctl import errors
from vgpuctl.api.edits import parse_edit
from vgpuctl.model.document import DocumentKey, DocumentKind, GpuDocument, Repair, VgpuDocument
from vgpuctl.model.edit import AdoptVgpus, ApplyDocuments, AttachVgpu, CreateVgpus, DeleteVgpu, RepairDrift
from vgpuctl.model.fact import Unknown
from vgpuctl.model.record import AllocationDropped, OperationState, WishDropped
from vgpuctl.model.step import SetVfs
from vgpuctl.service.messages import Input, Observe, PauseRequested, RunStep, SweepDue

PF = "0000:41:00.0"
ID = UUID("11111111-2222-4333-8444-555555555555")
TWO_A100 = "cards: [{model: a100-80, framework: vendor-vfio}, {model: a100-80, framework: vendor-vfio}]"


@pytest.fixture
def make(tmp_path):
    daemons: list[tuple[Stage, Daemon]] = []

    def made(cards: str) -> Daemon:
        if cards.startswith("cards:"):
            (tmp_path / "cards.yaml").write_text(cards, encoding="utf-8")
            cards = str(tmp_path / "cards.yaml")
        stage = Stage(tmp_path, cards)
        daemons.append((stage, Daemon(stage)))
        return daemons[-1][1]

    yield made
    for stage, daemon in daemons:
        daemon.close()
        stage.close()


@pytest.fixture
def t4(make) -> Daemon:
    return make("t4:mdev,t4:mdev,t4:mdev")


@pytest.fixture
def a2(make) -> Daemon:
    return make("a2:vendor-vfio")


def standing(daemon: Daemon) -> list[tuple[str, str]]:
    return [(each.type_name, str(each.parent)) for each in daemon.stage.observe().vgpus()]


def places(daemon: Daemon) -> list[tuple[str, UUID, str]]:
    return [(each.name, each.id, str(each.gpu.address)) for each in daemon.engine.ledger.allocations.values()]


# By UUID ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repair", [Repair.AUTO, Repair.ASK])
def test_another_type_under_the_same_uuid(t4: Daemon, repair: Repair):
    """Every mdev that was adopted has its UUID in its document: it goes, and comes as the other type."""
    t4.engine.set_repair(repair)
    t4.stage.make_foreign("0", "T4-4Q")
    t4.do(AdoptVgpus())
    (document,) = t4.documents()
    t4.do(AttachVgpu(domain="win1", vgpu=document.name))
    t4.stage.foreign.clear()
    assert t4.do(ApplyDocuments(documents=(replace(document, type="T4-8Q"),))).state == "succeeded"
    (vgpu,) = t4.stage.observe().vgpus()
    assert (vgpu.type_name, vgpu.mdev_uuid) == ("T4-8Q", document.uuid)
    assert faults_of(t4) == []


def test_another_type_under_the_same_id_on_a_vf(a2: Daemon):
    for vgpu_type in ("A2-4Q", "A2-8Q"):
        a2.do(ApplyDocuments(documents=(VgpuDocument(name="a", type=vgpu_type, uuid=ID),)))
    a2.settle()
    assert [name for name, _ in standing(a2)] == ["A2-8Q"]
    assert [(name, id_) for name, id_, _ in places(a2)] == [("a", ID)]
    assert faults_of(a2) == []


@pytest.mark.parametrize("cards", ["t4:mdev", "a2:vendor-vfio"])
def test_a_uuid_stands_in_one_document(make, cards: str):
    daemon = make(cards)
    twice = tuple(VgpuDocument(name=name, type=f"{cards[:2].upper()}-4Q", uuid=ID) for name in ("one", "two"))
    with pytest.raises(errors.InvalidInput, match="Vgpu/one has it already"):
        daemon.do(ApplyDocuments(documents=twice))
    daemon.do(ApplyDocuments(documents=twice[:1]))
    with pytest.raises(errors.InvalidInput, match="has it already"):
        daemon.do(ApplyDocuments(documents=twice[1:]))
    assert len(standing(daemon)) == 1


@pytest.mark.parametrize("vgpu_type", ["T4-4Q", "T4-8Q"])
def test_an_mdev_of_somebody_else_is_adopted_or_left_alone(t4: Daemon, vgpu_type: str):
    t4.stage.make_foreign("0", "T4-4Q")
    ((_, uuid),) = t4.stage.foreign
    with pytest.raises(errors.InvalidInput, match=f"vgpuctl adopt {uuid}"):
        t4.do(ApplyDocuments(documents=(VgpuDocument(name="mine", type=vgpu_type, uuid=UUID(uuid)),)))
    assert [name for name, _ in standing(t4)] == ["T4-4Q"]


def test_adopting_removes_nobody_who_has_that_name(t4: Daemon):
    """One that an operation could not undo has its place still, and is wished by nobody."""
    t4.do(CreateVgpus(type="T4-4Q", name="left"))
    t4.engine._turn.record(WishDropped(DocumentKey(DocumentKind.VGPU, "left")))
    t4.stage.make_foreign("0", "T4-4Q")
    ((_, uuid),) = t4.stage.foreign
    with pytest.raises(errors.NameTaken, match="'left'"):
        t4.do(AdoptVgpus(vgpu=uuid, name="left"))
    assert len(standing(t4)) == 2


def test_an_mdev_is_adopted_by_the_document_that_names_it(t4: Daemon):
    """Its place was lost, as with the store; another document for it would contradict this one."""
    t4.stage.make_foreign("0", "T4-4Q")
    t4.do(AdoptVgpus())
    (document,) = t4.documents()
    (place,) = t4.engine.ledger.allocations.values()
    t4.turn(SweepDue())
    t4.until_idle()
    t4.engine._turn.record(AllocationDropped(place.id, place.name))
    t4.do(AdoptVgpus())
    assert t4.documents() == (document,)
    assert [(name, id_) for name, id_, _ in places(t4)] == [(document.name, document.uuid)]


# By place ---------------------------------------------------------------------------------------------


def test_a_pf_with_several_vgpus_names_none_of_them(t4: Daemon):
    t4.do(CreateVgpus(type="T4-4Q", name="v", count=3, gpu=PF))
    for edit in (DeleteVgpu(vgpu=PF), AttachVgpu(domain="win1", vgpu=PF)):
        with pytest.raises(errors.NotFound):
            t4.do(edit)
    assert len(standing(t4)) == 3


def test_a_vf_names_its_vgpu(a2: Daemon):
    a2.do(CreateVgpus(type="A2-4Q", name="a"))
    ((_, vf),) = standing(a2)
    a2.do(DeleteVgpu(vgpu=vf))
    assert standing(a2) == []


def test_who_loses_the_race_for_a_vf_claims_nothing(a2: Daemon):
    """hardware.md 1.4: a VF that has a type refuses another, or the same, with EPERM."""
    a2.do(ApplyDocuments(documents=(GpuDocument(name=PF, vfs=True),)))
    raced: list[str] = []

    def faster(name: str, *args: object, **_more: object) -> None:
        if name == "write_abandonable" and "current_vgpu_type" in str(args[0]) and not raced:
            raced.append(str(args[0]))
            a2.stage.make_foreign(PF, "A2-4Q")

    a2.stage.kernel.instead = faster
    a2.do(CreateVgpus(type="A2-4Q", name="mine"))
    assert raced
    assert len(standing(a2)) == 2
    a2.do(DeleteVgpu(vgpu="mine"))
    ((vf, _),) = a2.stage.foreign
    assert [where for _, where in standing(a2)] == [vf]
    assert faults_of(a2) == []


# By card ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named_by", ["nothing", "uuid", "address"])
def test_another_card_at_the_address_stops_its_vgpus_however_they_name_it(t4: Daemon, named_by: str):
    stage = t4.stage
    gpu = {"nothing": None, "uuid": str(stage.observe().gpus[0].uuid), "address": PF}[named_by]
    t4.do(AttachVgpu(domain="win1", type="T4-4Q", gpu=gpu))
    before = places(t4)
    stage.sim.control("swap-gpu", {"gpu": before[0][2]})
    stage.sim.control("reboot")
    stage.forget()
    t4.settle()
    assert places(t4) == before
    assert standing(t4) == []


def test_an_index_is_not_what_a_document_keeps(t4: Daemon):
    """It changes with the cards: the vGPU stays where it was made."""
    t4.do(parse_edit({"action": "create-vgpu", "type": "T4-4Q", "gpu": "1", "name": "a"}))
    t4.do(parse_edit({"action": "attach", "domain": "win1", "type": "T4-4Q", "gpu": "1"}))
    t4.do(CreateVgpus(type="T4-4Q", name="b", gpu="81:00.0"))
    named = {each.gpu for each in t4.engine.ledger.in_force().vgpus().values()}
    assert named == {"0000:61:00.0", "0000:81:00.0"}
    before = standing(t4)
    t4.stage.sim.control("remove-gpu", {"gpu": PF})
    t4.stage.forget()
    t4.do(ApplyDocuments(documents=t4.documents()))
    assert standing(t4) == before


def test_the_uuid_of_a_card_is_learnt_later(t4: Daemon):
    seen = t4.stage.observe
    t4.observe = lambda: replace(
        seen(), gpus=tuple(replace(each, uuid=Unknown("not asked")) for each in seen().gpus)
    )
    t4.do(CreateVgpus(type="T4-4Q", name="a", gpu=PF))
    t4.observe = None
    t4.do(ApplyDocuments(documents=t4.documents()))
    (place,) = t4.engine.ledger.allocations.values()
    assert place.gpu.uuid == seen().gpus[0].uuid


def test_what_has_no_room_is_told_apart_from_what_this_change_makes(a2: Daemon):
    wished = tuple(VgpuDocument(name=f"v{number}", type="A2-8Q") for number in range(4))
    shown = show(a2, ApplyDocuments(documents=wished[:3]))
    assert shown.plan.problems[0].subject == "v2"
    assert shown.plan.problems[0].error.message.endswith(" (counting 2 that this very change makes)")
    a2.do(ApplyDocuments(documents=wished[:2]))
    shown = show(a2, ApplyDocuments(documents=wished[:3]))
    assert "this very change" not in shown.plan.problems[0].error.message


def test_one_document_for_each_gpu(a2: Daemon):
    uuid = str(a2.stage.observe().gpus[0].uuid)
    a2.do(ApplyDocuments(documents=(GpuDocument(name=PF, vfs=True),)))
    with pytest.raises(errors.InvalidInput, match="are of one GPU"):
        a2.do(ApplyDocuments(documents=(GpuDocument(name=uuid, vfs=False),)))


# GPU instances ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("is_cut", [True, False])
def test_unknown_instances_are_not_none(make, is_cut: bool, is_late: bool):
    """NVML is not asked while VFs are turned: what would be destroyed on another GPU is asked after it."""
    daemon = make(TWO_A100)
    stage, other = daemon.stage, "0000:61:00.0"
    stage.sim.control("mig", {"gpu": "1", "enabled": True})
    if is_cut:
        stage.sim.control("mig-cut", {"gpu": "1", "profile": "3g.40gb", "compute": True})
    stage.forget()
    asked: list[int] = []
    looks: list[Input] = []

    def meanwhile(name: str, *args: object, **_more: object) -> None:
        if name == "sriov_manage" and args[0] == PF and not asked:
            asked.append(daemon.submit(ApplyDocuments(documents=(GpuDocument(name=other, vfs=True),))))
            stage._seen = None
            looking = next(each for each in daemon.effects if isinstance(each, Observe))
            daemon.effects.remove(looking)
            looks.append(daemon.perform(looking))
            if not is_late:
                daemon.turn(looks.pop())
                assert asked[0] not in daemon.answers

    stage.kernel.instead = meanwhile
    daemon.submit(ApplyDocuments(documents=(GpuDocument(name=PF, vfs=True),)))
    while not asked:
        daemon.turn(daemon.perform(daemon.effects.pop(0)))
    daemon.turn(*looks)
    daemon.until_idle()
    found = stage.observe().gpus[1]
    if is_cut:
        assert isinstance(daemon.answers[asked[0]].error, errors.InvalidGpuState)
        assert found.gpu_instances
    else:
        assert daemon.operation(asked[0]).state is OperationState.SUCCEEDED
        assert found.vfs


def while_vfs_are_turned(daemon: Daemon, work: Callable[[], None]) -> None:
    """Have the VFs of the first GPU turned on, and `work` done meanwhile."""
    begun: list[str] = []

    def meanwhile(name: str, *args: object, **_more: object) -> None:
        if name == "sriov_manage" and args[0] == PF and not begun:
            begun.append(name)
            work()

    daemon.stage.kernel.instead = meanwhile
    daemon.submit(ApplyDocuments(documents=(GpuDocument(name=PF, vfs=True),)))
    while not begun:
        daemon.turn(daemon.perform(daemon.effects.pop(0)))


def look(daemon: Daemon) -> Input:
    """Carry out the observation that was asked for; its answer, untold."""
    daemon.stage._seen = None
    (looking,) = [each for each in daemon.effects if isinstance(each, Observe)]
    daemon.effects.remove(looking)
    return daemon.perform(looking)


def test_a_plan_that_is_shown_late_is_in_nobodys_way(make):
    """It waits until NVML can be asked; who changes the same GPU and needs no NVML does not."""
    daemon, other = make(TWO_A100), "0000:61:00.0"
    daemon.stage.sim.control("mig", {"gpu": "1", "enabled": True})
    asked: list[int] = []

    def work() -> None:
        for vfs in (True, None):
            edit = ApplyDocuments(documents=(GpuDocument(name=other, vfs=vfs),))
            asked.append(daemon.submit(edit, dry_run=vfs is True))
            daemon.turn(look(daemon))
        assert [ticket in daemon.answers for ticket in asked] == [False, True]

    while_vfs_are_turned(daemon, work)
    daemon.until_idle()
    assert daemon.answers[asked[0]].error is None


@pytest.mark.parametrize("is_late", [False, True])
def test_the_next_round_waits_no_longer_than_nvml_is_away(make, is_late: bool):
    """No sweep has to come: after MIG mode, no event of the kernel's asks for one."""
    daemon = make(TWO_A100)
    edit = {"action": "set-mig", "gpu": "0000:61:00.0", "mig": {"profiles": {"1g.10gb": 2}}}
    ticket = daemon.submit(parse_edit(edit))
    ended: list[Input] = []
    while len(ended) < 2:  # MIG mode, then its VFs: what follows is planned from what NVML says then
        if ended:
            daemon.turn(ended[-1])
        while not isinstance(daemon.effects[0], RunStep):
            daemon.turn(daemon.perform(daemon.effects.pop(0)))
        ended.append(daemon.perform(daemon.effects.pop(0)))

    looks: list[Input] = []

    def work() -> None:
        daemon.turn(ended[-1])
        looks.append(look(daemon))
        if not is_late:
            daemon.turn(looks.pop())

    while_vfs_are_turned(daemon, work)
    daemon.turn(*looks)
    daemon.until_idle()
    assert daemon.operation(ticket).state is OperationState.SUCCEEDED


def test_a_gpu_that_nobody_can_judge_now_may_have_room(make):
    """The other one is cut: that whose VFs are turned takes what is asked for once it is ready."""
    daemon = make(TWO_A100)
    mig = {"action": "set-mig", "gpu": "0000:61:00.0", "mig": {"profiles": {"1g.10gb": 2}}}
    daemon.do(parse_edit(mig))
    asked: list[int] = []

    def work() -> None:
        asked.append(daemon.submit(CreateVgpus(type="A100D-20C", name="a")))
        daemon.turn(look(daemon))

    while_vfs_are_turned(daemon, work)
    daemon.until_idle()
    assert daemon.operation(asked[0]).state is OperationState.SUCCEEDED


def test_what_nvml_does_not_tell_now_is_not_left_unrepaired(make):
    daemon, other = make(TWO_A100), "0000:61:00.0"
    daemon.do(ApplyDocuments(documents=(GpuDocument(name=other, vfs=True),)))
    daemon.turn(PauseRequested(next(daemon.tickets), paused=True, requester=WHO))
    daemon.stage.sim.control("reboot")
    daemon.stage.sim.control("mig", {"gpu": "1", "enabled": True})
    asked: list[int] = []

    def work() -> None:
        asked.append(daemon.submit(RepairDrift()))
        daemon.turn(look(daemon))

    while_vfs_are_turned(daemon, work)
    daemon.until_idle()
    (run,) = daemon.operation(asked[0]).runs
    assert isinstance(run.step.effect, SetVfs)


@pytest.mark.parametrize("compute", [False, True])
def test_an_instance_that_was_just_cut_outlives_the_vfs(make, compute: bool):
    """Ampere keeps MIG mode over a boot: its VFs are turned on unasked while no instance is there."""
    daemon = make("cards: [{model: a100-80, framework: vendor-vfio}]")
    stage = daemon.stage
    daemon.do(parse_edit({"action": "set-mig", "gpu": PF, "mig": {"profiles": {"1g.10gb": 2}}}))
    stage.sim.control("reboot")
    stage.forget()
    daemon.turn(SweepDue())
    while not isinstance(daemon.effects[0], RunStep):
        daemon.turn(daemon.perform(daemon.effects.pop(0)))
    step = daemon.effects.pop(0)
    assert isinstance(step.step.effect, SetVfs)
    stage.sim.control("mig-cut", {"gpu": "0", "profile": "3g.40gb", "compute": compute})
    stage.forget()
    daemon.turn(daemon.perform(step))
    daemon.until_idle()
    assert [each.profile for each in stage.observe().gpus[0].gpu_instances] == ["3g.40gb"]


# Clocks and moments -----------------------------------------------------------------------------------


def test_a_gpu_whose_vfs_are_just_going_is_there(a2: Daemon):
    a2.do(CreateVgpus(type="A2-4Q", name="a"))
    link = a2.stage.sim.kernel.link

    def gone(path: str) -> str:
        if f"{PF}/virtfn" in path:
            raise FileNotFoundError(errno.ENOENT, "gone", path)
        return link(path)

    a2.stage.kernel.link = gone
    assert [str(each.address) for each in a2.stage.host.observe().gpus] == [PF]


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_time_of_day_that_is_put_right_changes_no_pause(t4: Daemon, hours: int):
    """At boot a clock may be wrong by hours, and is then set."""
    t4.do(CreateVgpus(type="T4-4Q", name="a"))
    t4.stage.sim.control("reboot")
    t4.stage.sim.control("fail", {"what": "create", "errno": "EIO", "count": 3})
    t4.stage.forget()
    t4.turn(SweepDue())
    t4.until_idle()
    assert standing(t4) == []
    clock = t4.stage.sim.clock
    now = clock.now
    t4.engine._turn.now = lambda: now() + timedelta(hours=hours)
    t4.turn(SweepDue())
    t4.until_idle()
    assert standing(t4) == [], "not before its pause is over"
    clock.advance(61)
    t4.turn(SweepDue())
    t4.until_idle()
    assert len(standing(t4)) == 1

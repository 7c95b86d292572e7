"""The use cases over simulated cards, real SQLite and libvirt's test driver."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.world import WHO, Gate, World, check_shape, world
from vgpuctl import errors
from vgpuctl.host.store.sqlite import SqliteStore
from vgpuctl.model.document import (
    Affect,
    DesktopDocument,
    DesktopVgpu,
    MigWish,
    NumaPolicy,
    Placement,
    PlacementPolicy,
    ProfileDocument,
    VgpuDocument,
)
from vgpuctl.model.domain import Hostdev, MdevSource
from vgpuctl.model.edit import (
    AdoptVgpus,
    ApplyDocuments,
    AttachVgpu,
    CreateVgpus,
    DeleteVgpu,
    DetachVgpu,
    SetMig,
)
from vgpuctl.model.record import StepEnded, StepStarted
from vgpuctl.model.step import AttachHostdev, CreateVgpu, DetachHostdev

L40S = "0000:61:00.0"


@pytest.fixture
def one(tmp_path: Path):
    with world(tmp_path) as made:
        yield made


def test_the_main_job(one: World):
    """A desktop gets a vGPU of a profile, keeps it over a restart, and leaves nothing behind."""
    before = one.xml("win1")
    operation = one.succeed(AttachVgpu(domain="win1", profile="designer"))
    check_shape("operation", operation)
    (row,) = one.service.vgpus()
    check_shape("vgpu", row)
    assert (row["name"], row["type"], row["gpu"], row["state"]) == ("win1", "L40S-8Q", L40S, "present")
    assert row["attached"] == ["config"]
    assert row["uuid"] in one.xml("win1")
    assert f"ua-vgpuctl-{row['uuid']}" in one.xml("win1")
    one.restart()
    assert one.service.vgpus() == [row]
    one.succeed(DetachVgpu(domain="win1"))
    assert one.service.vgpus() == []
    assert one.service.documents() == []
    assert one.kernel_vgpus() == 0
    assert one.xml("win1") == before


def test_views_have_the_fields_of_the_surface(one: World):
    one.succeed(CreateVgpus(type="L40S-8Q", name="a"))
    one.succeed(AttachVgpu(domain="win1", type="L40S-8Q"))
    check_shape("host", one.service.host())
    for resource, rows in {
        "gpu": one.service.gpus(),
        "type": one.service.types(gpu=None, creatable=False, catalog=False),
        "profile": one.service.profiles(),
        "domain": one.service.domains(),
        "operation": one.service.operations(10),
        "event": one.service.events(0, 100),
    }.items():
        assert rows
        for row in rows:
            check_shape(resource, row)
    for edit in (CreateVgpus(type="L40S-8Q", name="b"), DeleteVgpu(vgpu="a")):
        plan = one.service.plan(edit, WHO)
        check_shape("plan", plan)
        check_shape("step", plan["steps"][0])
    catalog = one.service.types(gpu=None, creatable=False, catalog=True)
    check_shape("type", catalog[0])
    assert len(catalog) > 500


def test_views_of_mig_have_the_fields_of_the_surface(tmp_path: Path):
    with world(tmp_path, cards="a100-80:vendor-vfio") as one:
        cut = SetMig(gpu="0", mig=MigWish(profiles=(("3g.40gb", 2),)))
        check_shape("plan", one.service.plan(cut, WHO))
        one.succeed(cut)
        (gpu,) = one.service.gpus()
        check_shape("gpu", gpu)
        assert len(gpu["gpu_instances"]) == 2


def test_a_plan_changes_nothing_and_runs_exactly(one: World):
    revision = one.service.host()["revision"]
    plan = one.service.plan(AttachVgpu(domain="win1", type="L40S-8Q"), WHO)
    assert one.service.host()["revision"] == revision
    assert one.kernel_vgpus() == 0
    operation = one.service.wait(one.service.submit(None, WHO, plan_id=plan["id"])["id"], 30.0)
    assert operation["state"] == "succeeded"
    made = one.service.vgpus()[0]
    assert [each["name"] for each in plan["vgpus"]] == [made["name"]]


def test_a_stale_plan_is_refused(one: World):
    one.succeed(CreateVgpus(type="L40S-8Q", name="first"))
    plan = one.service.plan(CreateVgpus(type="L40S-8Q", name="a"), WHO)
    one.succeed(CreateVgpus(type="L40S-8Q", name="b"))
    with pytest.raises(errors.PlanStale):
        one.service.submit(None, WHO, plan_id=plan["id"])
    assert one.names() == ["b", "first"]


@pytest.mark.parametrize(
    ("edit", "code", "says"),
    [
        (CreateVgpus(type="L40S-9Q"), "type-unknown", "L40S-8Q"),
        (CreateVgpus(profile="desinger"), "profile-unknown", "designer"),
        (CreateVgpus(type="L40S-8Q", gpu="0000:99:00.0"), "gpu-not-found", L40S),
        (CreateVgpus(type="A40-8Q"), "no-capacity", "A40-8Q"),
        (CreateVgpus(type="L40S-8Q", count=0), "invalid-input", "1 to"),
        (AttachVgpu(domain="win9", type="L40S-8Q"), "domain-not-found", "win4"),
        (AttachVgpu(domain="win1", vgpu="nothing"), "vgpu-not-found", ""),
        (DetachVgpu(domain="nowhere"), "domain-not-found", ""),
        (DeleteVgpu(vgpu="nothing"), "vgpu-not-found", ""),
        (AdoptVgpus(vgpu="0000:61:00.4"), "vgpu-not-found", ""),
    ],
)
def test_a_refusal_names_what_would_be_right_and_changes_nothing(one: World, edit, code, says):
    revision = one.service.host()["revision"]
    with pytest.raises(errors.VgpuctlError) as caught:
        one.service.submit(edit, WHO)
    assert caught.value.code == code
    assert says in f"{caught.value.message} {caught.value.hint}"
    assert one.service.host()["revision"] == revision
    assert one.kernel_vgpus() == 0


def test_a_full_card_says_what_occupies_it_and_what_fits(one: World):
    """hardware.md 0.2: the exclusion rule is the frame-buffer size."""
    one.succeed(CreateVgpus(type="L40S-24Q", name="big"))
    with pytest.raises(errors.NoCapacity) as caught:
        one.service.submit(CreateVgpus(type="L40S-8Q"), WHO)
    assert "24" in caught.value.message
    assert "L40S-24" in caught.value.message
    assert "L40S-24C" in str(caught.value.facts) or "L40S-24Q" in str(caught.value.facts)


def test_a_held_vgpu_is_never_removed(one: World):
    one.succeed(CreateVgpus(type="L40S-8Q", name="a"))
    one.sim.control("hold", {"vgpu": one.service.vgpu("a")["vf"], "domain": "win1"})
    with pytest.raises(errors.VgpuBusy) as caught:
        one.service.submit(DeleteVgpu(vgpu="a"), WHO)
    assert "win1" in caught.value.message
    assert one.names(state="present") == ["a"]
    one.sim.control("release", {"vgpu": one.service.vgpu("a")["vf"]})
    one.succeed(DeleteVgpu(vgpu="a"))
    assert one.kernel_vgpus() == 0


def test_an_attached_vgpu_is_not_deleted(one: World):
    one.succeed(AttachVgpu(domain="win1", type="L40S-8Q"))
    with pytest.raises(errors.VgpuAttached, match="win1"):
        one.service.submit(DeleteVgpu(vgpu="win1"), WHO)


def test_a_vgpu_goes_from_desktop_to_desktop(one: World):
    one.succeed(CreateVgpus(type="L40S-8Q", name="a"))
    one.succeed(AttachVgpu(domain="win1", vgpu="a"))
    with pytest.raises(errors.VgpuAttached):
        one.service.submit(AttachVgpu(domain="win2", vgpu="a"), WHO)
    one.succeed(DetachVgpu(domain="win1"))
    assert one.names(state="present", domain=None) == ["a"]
    one.succeed(AttachVgpu(domain="win2", vgpu="a"))
    uuid = one.service.vgpu("a")["uuid"]
    assert uuid in one.xml("win2")
    assert uuid not in one.xml("win1")


def test_live_needs_a_guest(one: World):
    with pytest.raises(errors.InvalidDomainState):
        one.service.submit(AttachVgpu(domain="win1", type="L40S-8Q", affect=frozenset({Affect.LIVE})), WHO)


def test_apply_is_idempotent_and_prune_takes_only_what_is_not_listed(one: World):
    """hardware.md T14: what no file lists is left alone, unless --prune says otherwise."""
    wanted = (
        VgpuDocument(name="a", type="L40S-8Q"),
        DesktopDocument(name="win1", vgpus=(DesktopVgpu(name="w1", type="L40S-8Q"),)),
        DesktopDocument(name="win2", vgpus=(DesktopVgpu(name="a2", vgpu="a"),)),
    )
    one.succeed(ApplyDocuments(documents=wanted))
    assert one.names(state="present") == ["a", "w1"]
    assert one.service.plan(ApplyDocuments(documents=wanted), WHO)["verdict"] == "match"
    again = one.succeed(ApplyDocuments(documents=wanted))
    assert again["steps"] == []
    one.succeed(ApplyDocuments(documents=wanted[1:2], prune=True))
    assert one.names() == ["a", "w1"]
    assert one.service.vgpu("a")["domain"] is None
    one.succeed(ApplyDocuments(documents=(VgpuDocument(name="b", type="L40S-8Q"),), prune=True))
    assert one.names() == ["b", "w1"]


def test_contradictions_are_reported_together(one: World):
    wrong = (
        VgpuDocument(name="a", type="L40S-9Q"),
        VgpuDocument(name="b", profile="nobody"),
        DesktopDocument(name="win1", vgpus=(DesktopVgpu(name="x", vgpu="nowhere"),)),
    )
    with pytest.raises(errors.InvalidInput) as caught:
        one.service.submit(ApplyDocuments(documents=wrong), WHO)
    assert len(caught.value.facts["faults"]) == 3


def test_foreign_vgpus_are_shown_counted_and_adopted(one: World):
    """hardware.md T14: what we did not create is not deleted."""
    one.sim.control("foreign", {"gpu": "0000:41:00.0", "type": "T4-8Q"})
    (row,) = one.service.vgpus()
    assert row["state"] == "foreign"
    with pytest.raises(errors.VgpuForeign):
        one.service.submit(DeleteVgpu(vgpu=row["name"]), WHO)
    with pytest.raises(errors.NoCapacity):
        one.service.submit(CreateVgpus(type="T4-4Q"), WHO)
    one.succeed(AdoptVgpus())
    (row,) = one.service.vgpus()
    assert (row["state"], row["type"]) == ("present", "T4-8Q")
    assert row["uuid"] == row["mdev_uuid"]
    one.succeed(DeleteVgpu(vgpu=row["name"]))
    assert one.kernel_vgpus() == 0


def test_what_is_adopted_is_called_as_asked(one: World):
    one.succeed(CreateVgpus(type="T4-8Q", name="mine"))
    one.sim.control("foreign", {"gpu": "0000:41:00.0", "type": "T4-8Q"})
    (foreign,) = one.names(state="foreign")
    with pytest.raises(errors.NameTaken, match="'mine'"):
        one.service.submit(AdoptVgpus(vgpu=foreign, name="mine"), WHO)
    one.succeed(AdoptVgpus(vgpu=foreign, name="theirs"))
    assert one.names(state="present") == ["mine", "theirs"]
    with pytest.raises(errors.Conflict, match="is called theirs"):
        one.service.submit(AdoptVgpus(vgpu=foreign, name="other"), WHO)


def test_a_failed_attach_is_undone(one: World):
    """What was made for an attach that fails goes again, and the cause is told."""
    gates: list[Gate] = []

    def wrap(host):
        gate = Gate(host)
        gate.open.set()
        gate.fail = lambda effect: (
            errors.LibvirtRefused("no slot left") if isinstance(effect, AttachHostdev) else None
        )
        gates.append(gate)
        return gate

    one.restart(wrap)
    operation = one.do(AttachVgpu(domain="win1", type="L40S-8Q"))
    assert operation["state"] == "failed"
    assert operation["problem"]["code"] == "rolled-back"
    assert operation["problem"]["facts"]["cause"]["code"] == "libvirt-refused"
    assert one.kernel_vgpus() == 0
    assert one.service.documents() == []
    assert one.service.vgpus() == []


def test_a_vf_that_refuses_is_avoided(one: World):
    """One EIO leads to another VF, not to a failed desktop."""
    one.succeed(CreateVgpus(type="L40S-8Q", name="first"))
    one.sim.control("fail", {"what": "create", "errno": "EIO", "count": 1})
    operation = one.succeed(CreateVgpus(type="L40S-8Q", name="a"))
    assert [each["state"] for each in operation["steps"]] == ["failed", "done"]
    assert one.names(state="present") == ["a", "first"]


def test_when_nothing_works_the_wish_is_taken_back(one: World):
    one.succeed(CreateVgpus(type="L40S-8Q", name="first"))
    one.sim.control("fail", {"what": "create", "errno": "EIO", "count": 50})
    operation = one.do(CreateVgpus(type="L40S-8Q", name="a"))
    assert operation["state"] == "failed"
    assert operation["problem"]["code"] == "kernel-refused"
    assert one.names() == ["first"]


def test_many_clients_never_get_the_same_place(one: World):
    """64 at once on cards that hold 12 + 4: each place is given once, the rest is refused."""
    outcomes: list[str] = []

    def client(number: int) -> None:
        try:
            one.succeed(
                CreateVgpus(profile="designer" if number % 2 else None, type=None if number % 2 else "T4-4Q")
            )
            outcomes.append("made")
        except errors.NoCapacity:
            outcomes.append("refused")

    threads = [threading.Thread(target=client, args=(n,)) for n in range(64)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    rows = one.service.vgpus()
    assert outcomes.count("made") == len(rows) == one.kernel_vgpus() == 6 + 4
    assert len(outcomes) == 64
    vfs = [row["vf"] for row in rows if row["vf"]]
    assert len(set(vfs)) == len(vfs)


def test_a_daemon_that_ends_in_the_middle_is_taken_up(one: World, tmp_path: Path):
    gates: list[Gate] = []

    def wrap(host):
        gates.append(Gate(host))
        return gates[-1]

    one.restart(wrap)
    operation = one.service.submit(AttachVgpu(domain="win1", type="L40S-8Q"), WHO)
    assert gates[0].reached.wait(20)
    # The process dies here: its loop never hears of the step again.
    one.service._loop._stopping = True
    one.store.close()
    one.start()
    ended = one.service.wait(operation["id"], 30.0)
    assert ended["state"] == "succeeded", ended["problem"]
    assert one.names(state="present") == ["win1"]
    assert one.service.vgpu("win1")["attached"] == ["config"]
    gates[0].open.set()


def test_a_reboot_brings_everything_back(one: World):
    one.succeed(AttachVgpu(domain="win1", type="L40S-8Q"))
    one.succeed(CreateVgpus(type="T4-4Q", name="t"))
    before = {row["name"]: row["uuid"] for row in one.service.vgpus()}
    one.service.stop()
    one.store.close()
    one.sim.control("reboot", {})
    one.start()
    one.service.wake()
    with_all = threading.Event()
    for _ in range(100):
        if len(one.names(state="present")) == 2:
            with_all.set()
            break
        threading.Event().wait(0.1)
    assert with_all.is_set(), one.service.host()["problems"]
    assert {row["name"]: row["uuid"] for row in one.service.vgpus()} == before


def test_paused_means_nothing_comes_back_by_itself(one: World):
    one.succeed(CreateVgpus(type="T4-4Q", name="t"))
    one.service.pause(WHO)
    one.service.stop()
    one.store.close()
    one.sim.control("reboot", {})
    one.start()
    assert one.service.host()["paused"]
    threading.Event().wait(1.5)
    assert one.names(state="present") == []
    one.service.resume(WHO)
    for _ in range(100):
        if one.names(state="present"):
            break
        threading.Event().wait(0.1)
    assert one.names(state="present") == ["t"]


def test_cancelling_undoes_what_was_done(one: World):
    gates: list[Gate] = []

    def wrap(host):
        gates.append(Gate(host))
        return gates[-1]

    one.restart(wrap)
    operation = one.service.submit(CreateVgpus(type="T4-4Q", name="t", count=4), WHO)
    assert gates[0].reached.wait(20)
    one.service.cancel(operation["id"], WHO)
    gates[0].open.set()
    ended = one.service.wait(operation["id"], 30.0)
    assert ended["state"] == "cancelled"
    assert one.kernel_vgpus() == 0
    assert one.service.documents() == []
    with pytest.raises(errors.OperationNotRunning):
        one.service.cancel(operation["id"], WHO)
    one.restart()
    with pytest.raises(errors.OperationNotRunning):
        one.service.cancel(operation["id"], WHO)


def test_idempotency_key_gives_the_same_operation(one: World):
    first = one.service.submit(CreateVgpus(type="T4-4Q"), WHO, idempotency_key="k1")
    again = one.service.submit(CreateVgpus(type="T4-4Q"), WHO, idempotency_key="k1")
    assert first["id"] == again["id"]
    one.service.wait(first["id"], 30)
    one.restart()
    assert one.service.submit(CreateVgpus(type="T4-4Q"), WHO, idempotency_key="k1")["id"] == first["id"]
    assert len(one.service.vgpus()) == 1


def test_an_idempotency_key_is_for_one_request(one: World):
    first = one.service.submit(CreateVgpus(type="T4-4Q"), WHO, idempotency_key="k1")
    for _ in range(2):
        with pytest.raises(errors.IdempotencyKeyReused, match="'k1' was used for another request"):
            one.service.submit(CreateVgpus(type="T4-8Q"), WHO, idempotency_key="k1")
        one.service.wait(first["id"], 30)
        one.restart()
    assert [each["type"] for each in one.service.vgpus()] == ["T4-4Q"]


def test_a_full_disk_refuses_and_changes_nothing(one: World):
    one.succeed(CreateVgpus(type="T4-4Q", name="a"))
    commit = one.store.commit

    def full(records, at):
        raise errors.StoreFailure("database or disk is full")

    one.store.commit = full
    with pytest.raises(errors.StoreFailure):
        one.service.submit(CreateVgpus(type="T4-4Q", name="b"), WHO)
    assert one.kernel_vgpus() == 1
    assert "store-failure" in [each["code"] for each in one.service.host()["problems"]]
    one.store.commit = commit
    for _ in range(100):
        try:
            one.succeed(CreateVgpus(type="T4-4Q", name="b"))
            break
        except errors.StoreFailure:
            threading.Event().wait(0.1)
    assert one.names(state="present") == ["a", "b"]
    assert one.service.host()["problems"] == []


def test_the_first_characters_of_an_id_name_an_operation_where_no_other_begins_so(one: World):
    first, second = (one.succeed(CreateVgpus(type="L40S-8Q", name=name))["id"] for name in "ab")
    assert one.service.operation(first[:8])["id"] == first
    assert one.service.wait(second[:8].upper(), 1.0)["id"] == second
    for reference, why in (("", "not an id"), ("zzzz", "not an id"), (first[:3], "at least four")):
        with pytest.raises(errors.OperationNotFound, match=why):
            one.service.operation(reference)


def test_events_name_the_step_and_whose_place_it_was(one: World):
    one.succeed(CreateVgpus(type="L40S-8Q", name="a"))
    one.succeed(DeleteVgpu(vgpu="a"))
    told = {(each["subject"], each["summary"]) for each in one.service.events(0, 1000)}
    assert ("a", "its place is free again") in told
    assert any(what.startswith("done: create vGPU a") for subject, what in told if subject == f"gpu/{L40S}")


def test_operations_on_the_same_desktop_wait_for_each_other(one: World):
    gates: list[Gate] = []

    def wrap(host):
        gates.append(Gate(host))
        return gates[-1]

    one.restart(wrap)
    first = one.service.submit(AttachVgpu(domain="win1", type="L40S-8Q"), WHO)
    assert gates[0].reached.wait(20)
    second: list[dict] = []
    thread = threading.Thread(
        target=lambda: second.append(one.service.submit(AttachVgpu(domain="win1", type="L40S-8Q"), WHO))
    )
    thread.start()
    elsewhere = one.service.submit(CreateVgpus(type="T4-4Q", name="t"), WHO)
    assert elsewhere["state"] in ("running", "succeeded")
    assert not second
    gates[0].open.set()
    thread.join(30)
    assert one.service.wait(first["id"], 30)["state"] == "succeeded"
    assert one.service.wait(second[0]["id"], 30)["state"] == "succeeded"
    assert one.names(domain="win1") == ["win1", "win1-2"]


def test_reads_answer_while_a_step_hangs(one: World):
    gates: list[Gate] = []

    def wrap(host):
        gates.append(Gate(host))
        return gates[-1]

    one.restart(wrap)
    operation = one.service.submit(CreateVgpus(type="T4-4Q", name="t"), WHO)
    assert gates[0].reached.wait(20)
    assert one.service.vgpu("t")["state"] == "pending"
    assert one.service.operation(operation["id"])["steps"][0]["state"] == "running"
    gates[0].open.set()
    one.service.wait(operation["id"], 30)


def test_events_tell_the_story_in_order(one: World):
    since = one.service.host()["revision"]
    one.succeed(CreateVgpus(type="T4-4Q", name="t"))
    kinds = [each["kind"] for each in one.service.events(since, 100)]
    assert kinds.index("operation-started") < kinds.index("step-started") < kinds.index("step-ended")
    assert kinds[-1] == "operation-ended"
    assert isinstance(one.service.wait_events(since, 1.0), list)


@pytest.mark.parametrize("step", [CreateVgpu, AttachHostdev])
def test_a_step_that_throws_anything_is_a_failed_step(one: World, step):
    def wrap(host):
        gate = Gate(host)
        gate.open.set()
        gate.fail = lambda effect: ZeroDivisionError("bug") if isinstance(effect, step) else None
        return gate

    one.restart(wrap)
    operation = one.do(AttachVgpu(domain="win1", type="L40S-8Q"))
    assert operation["state"] == "failed"
    assert one.kernel_vgpus() == 0


@pytest.mark.parametrize("cards", ["l40s:vendor-vfio", "l40s:sriov-mdev"])
def test_a_creation_that_half_happened_leaves_nothing(tmp_path: Path, cards: str):
    """The type was written and the parameters were refused: under the vendor framework only the VF knows."""
    profile = ProfileDocument(name="odd", types=("L40S-8Q",), params=(("frame_rate_limiter", "0"),))
    with world(tmp_path, cards=cards) as one:
        one.succeed(CreateVgpus(type="L40S-8Q", name="first"))
        one.sim.control("fail", {"what": "vgpu_params", "errno": "EIO", "count": 50})
        edit = ApplyDocuments(documents=(profile, VgpuDocument(name="a", profile="odd")))
        operation = one.do(edit)
        assert operation["state"] == "failed", operation
        assert one.names() == ["first"]
        assert one.kernel_vgpus() == 1


def test_passthrough_of_a_whole_gpu(one: World):
    before = one.xml("win1")
    one.succeed(AttachVgpu(domain="win1", type="whole-gpu", gpu=L40S))
    assert "managed='yes'" in one.xml("win1")
    with pytest.raises(errors.NoCapacity):
        one.service.submit(CreateVgpus(type="L40S-8Q"), WHO)
    one.succeed(DetachVgpu(domain="win1"))
    assert one.xml("win1") == before
    one.succeed(CreateVgpus(type="L40S-8Q"))


def test_a_document_that_changed_meanwhile_is_not_overwritten(one: World):
    document = VgpuDocument(name="a", type="T4-4Q")
    one.succeed(ApplyDocuments(documents=(document,)))
    (wish,) = one.service.wishes()
    one.succeed(ApplyDocuments(documents=(replace(document, owner="somebody"),)))
    with pytest.raises(errors.GenerationMismatch):
        one.service.submit(
            ApplyDocuments(documents=(document,), generations=((wish.key, wish.generation),)), WHO
        )
    assert one.service.wishes()[0].generation == 2


def test_a_desktop_gets_a_gpu_of_its_numa_node(tmp_path: Path):
    near = ProfileDocument(
        name="near",
        types=("T4-4Q",),
        placement=Placement(numa=NumaPolicy.PREFER, policy=PlacementPolicy.PACK),
    )
    with world(tmp_path, cards="t4@numa0,t4@numa1") as one:
        xml = one.xml("win1").replace("<os>", "<numatune><memory mode='strict' nodeset='1'/></numatune><os>")
        one.hypervisor._link.call("defining", lambda connection: connection.defineXML(xml), 10.0)
        one.succeed(ApplyDocuments(documents=(near,)))
        one.succeed(AttachVgpu(domain="win1", profile="near"))
        one.succeed(AttachVgpu(domain="win2", profile="near"))
        nodes = {gpu["address"]: gpu["numa_node"] for gpu in one.service.gpus()}
        assert nodes[one.service.vgpu("win1")["gpu"]] == 1


def test_a_request_given_up_is_never_begun(one: World, monkeypatch: pytest.MonkeyPatch):
    """Told that it took too long, the caller may ask for something else."""
    gates: list[Gate] = []

    def wrap(host):
        gates.append(Gate(host))
        return gates[-1]

    one.restart(wrap)
    first = one.service.submit(CreateVgpus(type="T4-4Q", name="t"), WHO)
    assert gates[0].reached.wait(20)
    monkeypatch.setattr("vgpuctl.service.service.ADMIT_S", 0.2)
    with pytest.raises(errors.DeadlineExceeded):
        one.service.submit(AttachVgpu(domain="win1", vgpu="t"), WHO)
    gates[0].open.set()
    one.service.wait(first["id"], 30)
    assert len(one.service.operations(10)) == 1
    assert one.names(domain=None) == ["t"]


def test_stopping_lets_the_running_step_end_and_begins_no_other(one: World):
    gates: list[Gate] = []

    def wrap(host):
        gates.append(Gate(host))
        return gates[-1]

    one.restart(wrap)
    operation = one.service.submit(CreateVgpus(type="T4-4Q", name="t", count=3), WHO)
    assert gates[0].reached.wait(20)
    waiter: list[dict] = []
    thread = threading.Thread(target=lambda: waiter.append(one.service.wait(operation["id"], 60)))
    thread.start()
    stop = threading.Thread(target=one.service.stop)
    stop.start()
    gates[0].open.set()
    stop.join(20)
    thread.join(20)
    assert waiter
    one.store.close()
    one.store = SqliteStore(one.directory / "state.db")
    entries = one.store.operation_entries(UUID(operation["id"]))
    ended = [each.record.problem for each in entries if isinstance(each.record, StepEnded)]
    assert ended == [None]
    assert sum(isinstance(each.record, StepStarted) for each in entries) == 1
    one.store.close()
    one.start()
    assert one.service.wait(operation["id"], 30)["state"] == "succeeded"


def test_a_full_disk_answers_who_comes_meanwhile(one: World):
    """While the loop waits for a running step before it goes on from the disk, nobody is forgotten."""
    gates: list[Gate] = []

    def wrap(host):
        gates.append(Gate(host))
        return gates[-1]

    one.restart(wrap)
    one.service.submit(CreateVgpus(type="T4-4Q", name="a"), WHO)
    assert gates[0].reached.wait(20)
    commit = one.store.commit
    refused = threading.Event()

    def full(records, at):
        refused.set()
        raise errors.StoreFailure("database or disk is full")

    one.store.commit = full
    with pytest.raises(errors.StoreFailure):
        one.service.submit(CreateVgpus(type="L40S-8Q", name="b"), WHO)
    with pytest.raises(errors.StoreFailure):
        one.service.pause(WHO)
    assert one.names() == ["a"]
    one.store.commit = commit
    gates[0].open.set()
    for _ in range(100):
        if one.names(state="present") == ["a"]:
            break
        threading.Event().wait(0.1)
    assert one.names(state="present") == ["a"]


def test_a_fault_of_ours_does_not_end_the_daemon(one: World, monkeypatch: pytest.MonkeyPatch):
    def odd(*_args):
        raise ZeroDivisionError("bug")

    with monkeypatch.context() as patched:
        patched.setattr("vgpuctl.service.edits.change", odd)
        with pytest.raises(errors.VgpuctlError, match="ZeroDivisionError"):
            one.service.submit(CreateVgpus(type="T4-4Q", name="a"), WHO)
    with monkeypatch.context() as patched:
        patched.setattr(one.service._loop.engine, "take", odd)
        with pytest.raises(errors.VgpuctlError, match="ZeroDivisionError"):
            one.service.submit(CreateVgpus(type="T4-4Q", name="a"), WHO)
    one.succeed(CreateVgpus(type="T4-4Q", name="a"))


@pytest.mark.parametrize("name", ["l40s-8q", "NVIDIA L40S-8Q", "1152", "nvidia-1152"])
def test_a_type_is_known_by_any_of_its_names(one: World, name: str):
    one.succeed(CreateVgpus(type="L40S-8Q", name="first"))
    one.succeed(CreateVgpus(type=name, name="a"))
    assert one.service.vgpu("a")["type"] == "L40S-8Q"


def test_an_attachment_grows_to_what_was_left_out(one: World):
    one.succeed(AttachVgpu(domain="win1", type="L40S-8Q", affect=frozenset({Affect.CONFIG})))
    one.succeed(AttachVgpu(domain="win1", vgpu="win1"))
    (desktop,) = one.service.documents()
    assert desktop.vgpus[0].affect is None


def test_a_desktop_whose_xml_lost_its_vgpu_is_told(one: World):
    before = one.xml("win1")
    one.succeed(AttachVgpu(domain="win1", type="L40S-8Q"))
    one.hypervisor._link.call("defining", lambda connection: connection.defineXML(before), 10.0)
    (row,) = one.service.vgpus()
    assert (row["state"], row["problem"]["code"]) == ("present", "domain-state")
    assert one.service.host()["problems"] == [row["problem"]]
    one.succeed(AttachVgpu(domain="win1", vgpu="win1"))
    assert one.service.host()["problems"] == []
    assert one.service.vgpus()[0]["attached"] == ["config"]


def test_a_desktop_passes_over_cards_whose_vgpus_libvirt_refuses(tmp_path: Path):
    """Vendor VFIO is for a libvirt that takes it; the card shows its framework only with its VFs."""
    with world(tmp_path, cards="l40s:vendor-vfio,l40s:sriov-mdev") as one:
        if one.host.observe().hypervisor.vendor_vfio_refusal is None:
            pytest.skip("this libvirt takes them")
        one.succeed(AttachVgpu(domain="win1", type="L40S-8Q"))
        assert one.service.vgpu("win1")["framework"] == "sriov-mdev"
        one.succeed(AttachVgpu(domain="win2", type="L40S-8Q"))
        with pytest.raises(errors.UnsupportedHere, match="win3"):
            one.service.submit(AttachVgpu(domain="win3", type="L40S-24Q"), WHO)


def test_what_could_not_be_undone_can_be_taken_away(one: World):
    """needs-operator leaves a vGPU of nobody in a domain's XML; detach and delete still reach it."""
    troubles = [True]

    def wrap(host):
        gate = Gate(host)
        gate.open.set()

        def fail(effect):
            if isinstance(effect, AttachHostdev) and troubles:
                one.host.run(effect)
                return errors.LibvirtRefused("it was done, and libvirt says no")
            return errors.LibvirtRefused("no") if isinstance(effect, DetachHostdev) and troubles else None

        gate.fail = fail
        return gate

    one.restart(wrap)
    before = one.xml("win2")
    assert one.do(AttachVgpu(domain="win1", type="L40S-8Q"))["state"] == "needs-operator"
    one.succeed(CreateVgpus(type="T4-4Q", name="a"))
    assert one.do(AttachVgpu(domain="win2", vgpu="a"))["state"] == "needs-operator"
    assert one.service.documents() != []
    troubles.clear()
    assert one.service.vgpu("win1")["attached"] == ["config"]
    one.succeed(DeleteVgpu(vgpu="win1"))
    assert one.service.vgpu("a")["attached"] == ["config"]
    one.succeed(DetachVgpu(domain="win2"))
    assert one.xml("win2") == before
    assert one.names() == ["a"]
    assert one.kernel_vgpus() == 1


def test_adopting_leaves_every_xml_as_it_is(one: World):
    """What others made is taken over as it stands; two domains that share it have to be asked."""
    one.sim.control("foreign", {"gpu": "0000:41:00.0", "type": "T4-8Q"})
    uuid = one.service.vgpus()[0]["mdev_uuid"]
    by_hand = Hostdev(MdevSource(UUID(uuid)))
    config = frozenset({Affect.CONFIG})
    one.hypervisor.attach("win1", by_hand, config)
    one.hypervisor.attach("win2", by_hand, config)
    with pytest.raises(errors.VgpuAttached, match="win1, win2"):
        one.service.submit(AdoptVgpus(), WHO)
    one.hypervisor.detach("win2", by_hand, config)
    before = one.xml("win1")
    assert one.succeed(AdoptVgpus())["steps"] == []
    assert one.xml("win1") == before
    assert one.names(domain="win1", state="present")


def test_what_happens_while_the_host_is_looked_at_is_looked_at_afterwards(one: World):
    looks: list[threading.Event] = []
    begun = threading.Semaphore(0)

    class Slow:
        def __init__(self, host):
            self._host = host

        def observe(self):
            looks.append(threading.Event())
            begun.release()
            assert looks[-1].wait(20)
            return self._host.observe()

        def __getattr__(self, name):
            return getattr(self._host, name)

    one.restart(Slow)
    assert begun.acquire(timeout=20)
    for _ in range(3):
        one.service.wake()
        assert not begun.acquire(timeout=0.3), "two looks at once"
    looks[0].set()
    assert begun.acquire(timeout=20), "nobody looks at what happened meanwhile"
    looks[1].set()

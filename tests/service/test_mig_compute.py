"""Compute instances as documents ask for them: made, changed, taken away, and whose they are."""

from __future__ import annotations

from itertools import chain

import pytest

from tests.support.stage import Daemon, Stage, show, wrong_after_kills
from tests.support.world import WHO
from vgpuctl import errors
from vgpuctl.model.document import ComputeWish, GpuDocument, MigWish, VgpuDocument
from vgpuctl.model.edit import ApplyDocuments, ImportMigParted, MigPartedRule, SetMig
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.record import OperationState
from vgpuctl.model.step import (
    CreateComputeInstance,
    CreateGpuInstance,
    DestroyComputeInstance,
    DestroyGpuInstance,
    SetMigMode,
    SetVfs,
)
from vgpuctl.service.messages import Submitted, SweepDue

GPU = "0000:41:00.0"
THREE, OTHER = GiPlace(0, "3g.40gb"), GiPlace(4, "3g.40gb")


@pytest.fixture
def stage(tmp_path):
    path = tmp_path / "cards.yaml"
    path.write_text("cards: [{model: h100, framework: vendor-vfio}]", encoding="utf-8")
    made = Stage(tmp_path, str(path))
    yield made
    made.close()


@pytest.fixture
def daemon(stage):
    made = Daemon(stage)
    yield made
    made.close()


def layout(*places: GiPlace, **shares) -> MigWish:
    """`s0={"1c.3g.40gb": 2}` is of the instance at slice 0."""
    compute = [ComputeWish(each, tuple(sorted(shares[f"s{each.start}"].items()))) for each in places
               if f"s{each.start}" in shares]  # fmt: skip
    return MigWish(instances=tuple(sorted(places)), compute=tuple(sorted(compute)))


def put(daemon, wish: MigWish):
    operation = daemon.do(SetMig(gpu=GPU, mig=wish))
    assert operation.state is OperationState.SUCCEEDED, operation.problem
    return [type(each.step.effect) for each in operation.runs]


def shares(daemon) -> dict[int, list[str]]:
    found = daemon.stage.observe().gpus[0].gpu_instances
    return {each.start: sorted(one.profile for one in each.compute_instances) for each in found}


def test_they_are_made_after_their_instance_and_only_where_they_are_asked_for(daemon):
    done = put(daemon, layout(THREE, OTHER, s4={"1c.3g.40gb": 1, "2c.3g.40gb": 1}))
    assert done == [SetMigMode, SetVfs, *[CreateGpuInstance] * 2, *[CreateComputeInstance] * 2]
    assert shares(daemon) == {0: [], 4: ["1c.3g.40gb", "2c.3g.40gb"]}
    again = show(daemon, ApplyDocuments(documents=daemon.documents()))
    assert (again.plan.steps, again.plan.problems) == ((), ())


def test_a_change_keeps_those_that_fit(daemon):
    put(daemon, layout(THREE, OTHER, s4={"1c.3g.40gb": 1, "2c.3g.40gb": 1}))
    assert put(daemon, layout(THREE, OTHER, s4={"1c.3g.40gb": 3})) == [
        DestroyComputeInstance,
        *[CreateComputeInstance] * 2,
    ]
    assert shares(daemon)[4] == ["1c.3g.40gb"] * 3
    assert put(daemon, layout(THREE, OTHER)) == [DestroyComputeInstance] * 3


def test_they_go_before_their_instance_and_before_the_mode(daemon):
    put(daemon, layout(THREE, OTHER, s0={"1c.3g.40gb": 1}, s4={"3g.40gb": 1}))
    smaller = MigWish(profiles=(("2g.20gb", 1), ("3g.40gb", 1)))
    done = put(daemon, smaller)
    assert done.count(DestroyComputeInstance) == 2, "the kept one is asked for no longer, either"
    assert done.index(DestroyComputeInstance) < done.index(DestroyGpuInstance)
    put(daemon, layout(THREE, s0={"1c.3g.40gb": 1}))
    assert put(daemon, MigWish(enabled=False)) == [DestroyComputeInstance, SetVfs, SetMigMode, SetVfs]


def test_those_of_others_stay_and_are_in_the_way(daemon):
    put(daemon, layout(THREE))
    daemon.stage.sim.control("mig-cut", {"gpu": GPU, "profile": "3g.40gb", "compute": True})
    for wish in (layout(THREE), MigWish(profiles=(("7g.80gb", 1),))):
        with pytest.raises(errors.NoCapacity) as caught:
            daemon.do(SetMig(gpu=GPU, mig=wish))
        told = f"{caught.value} {caught.value.hint}"
        assert "3g.40gb@4 (compute instances that vgpuctl did not make)" in told
    with pytest.raises(errors.VgpuForeign, match=r"did not make: 3g\.40gb") as told:
        daemon.do(SetMig(gpu=GPU, mig=layout(THREE, OTHER, s4={"1c.3g.40gb": 1})))
    assert "nvidia-smi mig -dci" in told.value.hint
    with pytest.raises(errors.InvalidGpuState, match="has compute instances"):
        daemon.do(SetMig(gpu=GPU, mig=MigWish(enabled=False)))
    assert shares(daemon) == {0: [], 4: ["3g.40gb"]}
    assert put(daemon, layout(THREE, OTHER, s4={"3g.40gb": 1})) == [], "what is there already is taken over"
    assert put(daemon, layout(THREE)) == [DestroyComputeInstance, DestroyGpuInstance]


def test_under_a_running_guest_they_are_the_guests(daemon):
    put(daemon, layout(THREE, OTHER, s0={"1c.3g.40gb": 1}, s4={"1c.3g.40gb": 1}))
    before = daemon.documents()
    daemon.do(ApplyDocuments(documents=(VgpuDocument(name="one", type="H100-3-40C"),)))
    vf = daemon.stage.observe().gpus[0].vgpus[0].parent
    daemon.stage.sim.control("hold", {"parent": str(vf), "domain": "win1"})
    with pytest.raises(errors.VgpuBusy, match="a guest runs on it"):
        daemon.do(SetMig(gpu=GPU, mig=layout(THREE, OTHER, s0={"3g.40gb": 1}, s4={"1c.3g.40gb": 1})))
    assert put(daemon, layout(THREE, OTHER, s0={"1c.3g.40gb": 1}, s4={"1c.3g.40gb": 2})) == [
        CreateComputeInstance
    ]
    assert shares(daemon) == {0: ["1c.3g.40gb"], 4: ["1c.3g.40gb"] * 2}
    assert show(daemon, ApplyDocuments(documents=before)).plan.problems == ()


def test_what_cannot_be(daemon):
    for name in ("1c.2g.20gb", "3c.3g.40gb", "9c.3g.40gb"):
        with pytest.raises(errors.InvalidInput, match="has no compute-instance profile") as caught:
            daemon.do(SetMig(gpu=GPU, mig=layout(THREE, s0={name: 1})))
        assert "1c.3g.40gb, 2c.3g.40gb, or 3g.40gb as a whole" in caught.value.hint
    with pytest.raises(errors.NoCapacity, match="has 3 compute slices, and 4 are wished"):
        daemon.do(SetMig(gpu=GPU, mig=layout(THREE, s0={"2c.3g.40gb": 2})))


def test_after_a_boot_they_are_back(daemon):
    put(daemon, layout(THREE, s0={"1c.3g.40gb": 2}))
    daemon.stage.sim.control("reboot")
    assert shares(daemon) == {}
    daemon.settle()
    assert shares(daemon) == {0: ["1c.3g.40gb"] * 2}


def test_what_an_operation_made_is_taken_back(daemon):
    put(daemon, layout(THREE, OTHER))
    failing = chain([None, 1], iter(lambda: None, 1))

    def order(order, timeout_s):
        if next(failing):
            daemon.stage.sim.control("fail", {"what": "nvml-order", "count": 1})
        return type(daemon.stage.sim.nvml).order(daemon.stage.sim.nvml, order, timeout_s)

    daemon.stage.sim.nvml.order = order
    operation = daemon.do(SetMig(gpu=GPU, mig=layout(THREE, OTHER, s0={"3g.40gb": 1}, s4={"1c.3g.40gb": 1})))
    assert operation.state is OperationState.FAILED, operation.problem
    assert shares(daemon) == {0: [], 4: []}


def test_mig_parteds_parts_become_an_exact_layout(daemon):
    rule = MigPartedRule(
        filters=(),
        indices=None,
        mig=MigWish(profiles=(("1g.10gb", 1),)),
        compute=(("1c.3g.40gb", 1), ("2c.3g.40gb", 1), ("1c.2g.20gb", 1)),
    )
    operation = daemon.do(ImportMigParted(config="parts", rules=(rule,)))
    assert operation.state is OperationState.SUCCEEDED, operation.problem
    assert sorted(map(tuple, shares(daemon).values())) == [
        (),
        ("1c.2g.20gb",),
        ("1c.3g.40gb", "2c.3g.40gb"),
    ]
    (document,) = daemon.documents()
    assert document.mig.instances is not None


@pytest.mark.slow
@pytest.mark.parametrize("is_back", [False, True])
def test_a_daemon_that_is_killed_at_any_point_is_followed_by_one_that_finishes(stage, is_back):
    """Cutting with shares, and on from there to another layout."""
    first, second = layout(THREE, OTHER, s0={"1c.3g.40gb": 2}), layout(OTHER, s4={"3g.40gb": 1})
    wanted = second if is_back else first

    def live(daemon: Daemon) -> None:
        document = GpuDocument(name=GPU, mig=wanted)
        daemon.turn(Submitted(1, WHO, ApplyDocuments(documents=(document,))))

    def go_on(daemon: Daemon) -> None:
        daemon.turn(SweepDue())
        daemon.settle()

    if is_back:
        before = Daemon(stage)
        put(before, first)
        before.close()
    assert wrong_after_kills(stage, live, go_on) == {}

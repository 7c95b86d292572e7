"""MIG as part of the one path: from a document to a vGPU on a GPU instance, and back after a boot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.stage import Daemon, Stage, faults_of, show, wrong_after_kills
from tests.support.world import WHO
from vgpuctl import errors
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import (
    DesktopDocument,
    DesktopVgpu,
    GpuDocument,
    MigWish,
    Repair,
    VgpuDocument,
)
from vgpuctl.model.edit import (
    ApplyDocuments,
    DeleteVgpu,
    ImportMigParted,
    MigPartedRule,
    RepairDrift,
    SetMig,
)
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import FrameworkKind, GpuState
from vgpuctl.model.record import DriftFound, OperationState
from vgpuctl.model.step import CreateGpuInstance, CreateVgpu, DestroyGpuInstance, SetMigMode, SetVfs
from vgpuctl.service.messages import LookRequested, Observe, RunStep, Submitted, SweepDue
from vgpuctl.sim.spec import parse
from vgpuctl.sim.state import Disputed

CARDS = {
    "ampere, vendor-vfio": "cards: [{model: a100-80, framework: vendor-vfio}]",
    "ampere, sriov-mdev": "cards: [{model: a100-80, framework: sriov-mdev}]",
    "hopper, vendor-vfio": "cards: [{model: h100, framework: vendor-vfio}]",
}
GPU = "0000:41:00.0"


@pytest.fixture(params=list(CARDS))
def stage(request, tmp_path):
    made = Stage(tmp_path, cards(request.param, tmp_path))
    yield made
    made.close()


@pytest.fixture
def daemon(stage):
    made = Daemon(stage)
    yield made
    made.close()


def cards(name: str, directory) -> str:
    path = directory / "cards.yaml"
    path.write_text(CARDS.get(name, name), encoding="utf-8")
    return str(path)


def apply(daemon, *documents):
    return daemon.do(ApplyDocuments(documents=documents))


def wish(daemon, *, counts=((1, 3), (2, 2)), level="vgpus") -> GpuDocument:
    """`counts` are how many of each number of slices."""
    snapshot = daemon.stage.observe()
    types = daemon.engine._planning._catalog.find(snapshot.gpus[0].device).types
    found = {}
    for slices, count in counts:
        vgpu_type = next(
            each for each in types if each.gi_profile and each.gi_profile.startswith(f"{slices}g")
        )
        found[vgpu_type.name if level == "vgpus" else vgpu_type.gi_profile] = count
    return GpuDocument(name=GPU, mig=MigWish(**{level: tuple(sorted(found.items()))}))


def type_of(daemon, slices: int) -> str:
    ((name, _),) = wish(daemon, counts=((slices, 1),)).mig.vgpus
    return name


def desktop(daemon, name: str, vgpu_type: str):
    """A vGPU in a domain, where the libvirt of this machine takes it."""
    if daemon.stage.sim.engine.state.boards[0].framework is FrameworkKind.SRIOV_MDEV:
        return DesktopDocument(name="win1", vgpus=(DesktopVgpu(name=name, type=vgpu_type),))
    return VgpuDocument(name=name, type=vgpu_type)


def instances(daemon):
    found = daemon.stage.host.observe().gpus[0].gpu_instances
    assert isinstance(found, tuple)
    return sorted(each.place for each in found)


def effects(operation):
    return [type(each.step.effect) for each in operation.runs]


def test_from_a_wish_for_vgpus_to_vgpus_on_gpu_instances(daemon):
    documents = [wish(daemon)]
    documents += [VgpuDocument(name=f"small-{n}", type=type_of(daemon, 1)) for n in range(3)]
    documents.append(desktop(daemon, "big", type_of(daemon, 2)))
    operation = apply(daemon, *documents)
    assert operation.state is OperationState.SUCCEEDED, operation.problem
    done = effects(operation)
    assert done[:2] == [SetMigMode, SetVfs]
    assert (done.count(CreateGpuInstance), done.count(CreateVgpu)) == (5, 4)
    assert len(daemon.stage.observe().vgpus()) == 4
    assert show(daemon, ApplyDocuments(documents=daemon.documents())).plan.steps == ()


def test_after_a_boot_everything_is_back(daemon):
    apply(daemon, wish(daemon), VgpuDocument(name="one", type=type_of(daemon, 1)))
    before = instances(daemon)
    daemon.stage.sim.control("reboot")
    assert instances(daemon) == []
    daemon.settle()
    assert instances(daemon) == before
    assert [each.name for each in daemon.engine.ledger.allocations.values()] == ["one"]
    assert len(daemon.stage.observe().vgpus()) == 1


def test_a_change_destroys_the_fewest_and_never_what_carries_a_vgpu(daemon):
    apply(daemon, wish(daemon, counts=((2, 2),)), VgpuDocument(name="one", type=type_of(daemon, 2)))
    is_told = daemon.stage.observe().vgpus()[0].gpu_instance_id is not None
    layout = wish(daemon, counts=((2, 1), (3, 1)), level="profiles").mig
    before = instances(daemon)
    shown = show(daemon, SetMig(gpu=GPU, mig=layout))
    if not is_told:
        (problem,) = shown.plan.problems
        assert "perhaps vGPU" in problem.error.hint, "which of the two it is on, nobody tells"
        return
    kinds = [type(each.effect) for each in shown.plan.steps]
    assert kinds == [DestroyGpuInstance, CreateGpuInstance]
    assert daemon.do(SetMig(gpu=GPU, mig=layout)).state is OperationState.SUCCEEDED
    assert len(set(before) & set(instances(daemon))) == 1


def test_a_layout_that_would_take_an_instance_from_a_vgpu_is_refused(daemon):
    apply(daemon, wish(daemon, counts=((2, 1),)), VgpuDocument(name="one", type=type_of(daemon, 2)))
    with pytest.raises(errors.NoCapacity, match=r"7g\.80gb") as caught:
        daemon.do(SetMig(gpu=GPU, mig=wish(daemon, counts=((7, 1),), level="profiles").mig))
    assert "in the way: 2g.20gb@" in caught.value.hint


def test_mig_mode_of_a_card_with_desktops_is_refused_with_the_desktops(daemon):
    name = {"NVIDIA A100 80GB PCIe": "A100D-10C", "NVIDIA H100 PCIe": "H100-10C"}
    vgpu_type = name[daemon.stage.observe().gpus[0].model]
    carried = desktop(daemon, "cad", vgpu_type)
    assert apply(daemon, carried).state is OperationState.SUCCEEDED
    with pytest.raises(errors.VgpuBusy, match="it carries cad") as caught:
        daemon.do(SetMig(gpu=GPU, mig=MigWish()))
    assert caught.value.facts["vgpus"] == ["cad"]
    if isinstance(carried, DesktopDocument):
        assert "cad (domain win1)" in str(caught.value)


def test_turning_it_off_again(daemon):
    apply(daemon, wish(daemon), VgpuDocument(name="one", type=type_of(daemon, 1)))
    daemon.do(DeleteVgpu(vgpu="one"))
    operation = daemon.do(SetMig(gpu=GPU, mig=MigWish(enabled=False)))
    assert operation.state is OperationState.SUCCEEDED, operation.problem
    assert effects(operation) == [SetVfs, SetMigMode, SetVfs]
    assert daemon.stage.observe().gpus[0].mig is False


def test_turning_it_off_where_no_vfs_go_with_which_the_instances_would(daemon):
    vfs_off = wish(daemon, counts=((1, 1),), level="profiles")
    daemon.do(ApplyDocuments(documents=(replace(vfs_off, vfs=False),)))
    assert len(instances(daemon)) == 1
    operation = daemon.do(SetMig(gpu=GPU, mig=MigWish(enabled=False)))
    assert operation.state is OperationState.SUCCEEDED, operation.problem
    assert effects(operation) == [DestroyGpuInstance, SetMigMode]
    assert daemon.stage.observe().gpus[0].mig is False


def test_exact_places(daemon):
    profile = wish(daemon, counts=((1, 1),), level="profiles").mig.profiles[0][0]
    layout = MigWish(instances=(GiPlace(3, profile), GiPlace(5, profile)))
    assert daemon.do(SetMig(gpu=GPU, mig=layout)).state is OperationState.SUCCEEDED
    assert instances(daemon) == [GiPlace(3, profile), GiPlace(5, profile)]


def test_an_instance_that_the_driver_does_not_make_is_undone_as_far_as_the_documents_say(daemon):
    daemon.do(SetMig(gpu=GPU, mig=wish(daemon, counts=((2, 1),), level="profiles").mig))
    before = instances(daemon)
    daemon.stage.sim.control("fail", {"what": "nvml-order", "count": 1})
    operation = daemon.do(SetMig(gpu=GPU, mig=wish(daemon, counts=((1, 1), (2, 1)), level="profiles").mig))
    assert operation.state is OperationState.FAILED
    assert instances(daemon) == before


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ampere, sriov-mdev", "hopper, vendor-vfio"], indirect=True)
@pytest.mark.parametrize("boots", [False, True])
def test_a_daemon_that_is_killed_at_any_point_is_followed_by_one_that_finishes(stage, boots):
    """Before and after every step and every write; also while everything is made again after a boot."""

    def live(daemon: Daemon) -> None:
        if boots:
            daemon.turn(SweepDue())
        else:
            documents = (wish(daemon), VgpuDocument(name="one", type=type_of(daemon, 2)))
            daemon.turn(Submitted(1, WHO, ApplyDocuments(documents=documents)))

    if boots:
        first = Daemon(stage)
        apply(first, wish(first), VgpuDocument(name="one", type=type_of(first, 2)))
        first.close()
        stage.sim.control("reboot")
    assert wrong_after_kills(stage, live, Daemon.settle, at_least=21) == {}


def test_a_mig_parted_configuration_becomes_the_documents_of_the_gpus_that_it_means(tmp_path):
    stage = Stage(tmp_path, cards("cards: [{model: a100-80}, {model: l40s}, {model: h100}]", tmp_path))
    daemon = Daemon(stage)
    gpus = stage.observe().gpus
    a100, h100 = (gpus[index].device.device << 16 | 0x10DE for index in (0, 2))
    some = MigWish(profiles=(("3g.40gb", 2),))
    rules = (
        MigPartedRule(filters=(), indices=None, mig=MigWish(enabled=False)),
        MigPartedRule(filters=(a100, h100), indices=(0, 1), mig=some),
    )
    operation = daemon.do(ImportMigParted(config="custom", rules=rules))
    assert operation.state is OperationState.SUCCEEDED, operation.problem
    assert daemon.documents() == (GpuDocument(name=GPU, mig=some),), "the others have MIG off as they are"
    assert len(instances(daemon)) == 2
    with pytest.raises(errors.GpuNotFound, match="names GPU 7"):
        daemon.do(
            ImportMigParted(config="x", rules=(MigPartedRule(filters=(), indices=(0, 7), mig=MigWish()),))
        )
    with pytest.raises(errors.GpuNotFound, match="means no GPU"):
        daemon.do(
            ImportMigParted(config="x", rules=(MigPartedRule(filters=(1,), indices=None, mig=MigWish()),))
        )
    daemon.close()
    stage.close()


def test_what_is_not_made_again_unasked(tmp_path):
    """A mode that only a reset would bring back; a layout for which something is to be destroyed."""
    stage = Stage(tmp_path, cards("cards: [{model: a100-80}]", tmp_path))
    daemon = Daemon(stage)
    apply(daemon, wish(daemon, counts=((2, 1),), level="profiles"))
    other = wish(daemon, counts=((3, 1),), level="profiles").mig.profiles[0][0]
    stage.sim.kernel.sriov_manage(GPU, enable=False, timeout_s=1)
    stage.sim.kernel.sriov_manage(GPU, enable=True, timeout_s=1)
    for _ in range(2):
        stage.sim.control("mig-cut", {"gpu": GPU, "profile": other})
    daemon.settle()
    assert [each.profile for each in instances(daemon)] == [other, other], "nothing is destroyed unasked"
    stage.sim.kernel.sriov_manage(GPU, enable=False, timeout_s=1)
    stage.sim.control("mig", {"gpu": GPU, "enabled": False})
    daemon.settle()
    assert stage.observe().gpus[0].mig is False
    daemon.close()
    stage.close()


def test_enabling_what_is_enabled_keeps_the_layout(daemon):
    before = wish(daemon)
    apply(daemon, before)
    daemon.do(SetMig(gpu=GPU, mig=MigWish()))
    assert daemon.documents() == (before,)


def test_somebody_elses_instance_is_in_the_way_only_where_it_is(daemon):
    daemon.do(ApplyDocuments(documents=(GpuDocument(name=GPU, mig=MigWish()),)))
    profile = wish(daemon, counts=((3, 1),), level="profiles").mig.profiles[0][0]
    daemon.stage.sim.control("mig-cut", {"gpu": GPU, "profile": profile, "compute": True})
    with pytest.raises(errors.NoCapacity, match="compute instances that vgpuctl did not make"):
        daemon.do(SetMig(gpu=GPU, mig=wish(daemon, counts=((1, 1),), level="profiles").mig))
    assert (
        daemon.do(SetMig(gpu=GPU, mig=wish(daemon, counts=((1, 3),)).mig)).state is OperationState.SUCCEEDED
    )
    assert GiPlace(0, profile) in instances(daemon)


@pytest.mark.parametrize("stage", ["cards: [{model: a100-80-sxm}, {model: a100-80-sxm}]"], indirect=True)
def test_a_reset_on_nvswitch_is_refused_while_the_host_is_in_use(daemon):
    other = daemon.stage.observe().gpus[1].address
    vgpu_type = next(each.name for each in daemon.engine._planning._catalog.keyed("a100-80-sxm").types)
    apply(daemon, VgpuDocument(name="one", type=vgpu_type, gpu=str(other)))
    with pytest.raises(errors.InvalidGpuState, match=f"takes the GPUs beside it along: {other}"):
        daemon.do(SetMig(gpu=GPU, mig=MigWish()))
    daemon.do(DeleteVgpu(vgpu="one"))
    assert daemon.do(SetMig(gpu=GPU, mig=MigWish())).state is OperationState.SUCCEEDED


@pytest.mark.parametrize("enabled", [True, False])
def test_a_card_without_mig_says_so_and_gets_no_document(tmp_path, enabled):
    stage = Stage(tmp_path, cards("cards: [{model: a16}]", tmp_path))
    daemon = Daemon(stage)
    with pytest.raises(errors.UnsupportedHere, match="has no MIG"):
        daemon.do(SetMig(gpu=GPU, mig=MigWish(enabled=enabled)))
    assert daemon.documents() == ()
    daemon.close()
    stage.close()


def test_a_model_without_a_geometry_is_cut_once_its_driver_says_what_it_can(tmp_path):
    stage = Stage(tmp_path, cards("cards: [{model: b300}]", tmp_path))
    daemon = Daemon(stage)
    with pytest.raises(errors.UnsupportedHere, match="is not known"):
        daemon.do(SetMig(gpu=GPU, mig=MigWish(profiles=(("1g.34gb", 1),))))
    daemon.close()
    stage.close()


@pytest.mark.parametrize("stage", ["hopper, vendor-vfio", "ampere, sriov-mdev"], indirect=True)
def test_what_nvml_does_not_say_after_the_vfs_are_on_is_waited_for(daemon):
    """A round that cannot tell what is cut is no round that has no room."""
    documents = (wish(daemon), VgpuDocument(name="one", type=type_of(daemon, 2)))
    ticket = daemon.submit(ApplyDocuments(documents=documents))
    for _ in range(100):
        effect = daemon.effects.pop(0)
        daemon.turn(daemon.perform(effect))
        if isinstance(effect, RunStep) and isinstance(effect.step.effect, SetVfs):
            break
    daemon.stage.sim.control("fail", {"what": "nvml"})
    daemon.until_idle()
    assert daemon.operation(ticket).state is OperationState.RUNNING
    daemon.stage.sim.control("heal")
    daemon.turn(SweepDue())
    daemon.until_idle()
    assert daemon.operation(ticket).state is OperationState.SUCCEEDED
    assert len(instances(daemon)) == 5


@pytest.mark.parametrize("is_writable", [False, True])
def test_a_vgpu_stands_on_the_instance_that_was_planned_where_the_driver_lets_that_be_chosen(
    tmp_path, is_writable
):
    """Left to the driver, the second small one would take the empty instance that a large one needs."""
    spec = replace(parse("rtx-pro-6000"), disputed=Disputed(gi_writable=is_writable))
    stage = Stage(tmp_path, spec)
    daemon = Daemon(stage)
    layout = GpuDocument(name=GPU, mig=MigWish(profiles=(("1g.24gb+gfx", 2),)))
    one, two = (VgpuDocument(name=each, type="DC-1-3Q") for each in "ab")
    large = VgpuDocument(name="large", type="DC-1-24Q")
    apply(daemon, layout, large)
    apply(daemon, one)
    daemon.do(DeleteVgpu(vgpu="large"))
    operation = apply(daemon, two)
    assert operation.state is OperationState.SUCCEEDED, operation.problem
    assert len({each.gpu_instance_id for each in stage.observe().vgpus()}) == (1 if is_writable else 2)
    again = show(daemon, ApplyDocuments(documents=daemon.documents()))
    assert (again.plan.steps, again.plan.problems) == ((), ()), "wherever they are, nothing is to be done"
    if is_writable:
        assert apply(daemon, large).state is OperationState.SUCCEEDED
        before = {each.type_name: each.gpu_instance_id for each in stage.observe().vgpus()}
        stage.sim.control("reboot")
        daemon.settle()
        assert {each.type_name: each.gpu_instance_id for each in stage.observe().vgpus()} == before
    else:
        with pytest.raises(errors.NoCapacity):
            apply(daemon, large)
    daemon.close()
    stage.close()


def failing(daemon, effect: type, count: int = 1) -> None:
    """The first steps of that kind fail at the host."""
    run, left = daemon.stage.host.run, [count]

    def fail(what):
        if isinstance(what, effect) and left[0]:
            left[0] -= 1
            raise errors.HostFailure("it does not")
        run(what)

    daemon.stage.host.run = fail


@pytest.mark.parametrize("vfs", [False, True])
@pytest.mark.parametrize("failed", [CreateGpuInstance, SetVfs])
def test_a_first_change_that_fails_leaves_nothing_of_it(daemon, vfs, failed):
    """No document said before what the mode and the VFs were; the steps that were done do."""
    daemon.stage.sim.kernel.sriov_manage(GPU, enable=vfs, timeout_s=1)
    failing(daemon, failed)
    operation = daemon.do(SetMig(gpu=GPU, mig=wish(daemon, counts=((1, 2),), level="profiles").mig))
    assert operation.state is OperationState.FAILED, operation.problem
    gpu = daemon.stage.observe().gpus[0]
    assert (gpu.mig, bool(gpu.vfs), gpu.gpu_instances) == (False, vfs, ())
    assert daemon.documents() == ()


def test_what_stood_before_a_change_that_fails_stands_again(daemon):
    """Cut by somebody else, while the document left the cutting to others."""
    daemon.do(SetMig(gpu=GPU, mig=MigWish()))
    daemon.do(ApplyDocuments(documents=(GpuDocument(name=GPU, mig=MigWish()),)))
    (profile, _), (three, _) = wish(daemon, counts=((1, 1), (3, 1)), level="profiles").mig.profiles
    for _ in range(2):
        daemon.stage.sim.control("mig-cut", {"gpu": GPU, "profile": profile})
    before = instances(daemon)
    failing(daemon, CreateVgpu)
    documents = (
        GpuDocument(name=GPU, mig=MigWish(profiles=((three, 2),))),
        VgpuDocument(name="one", type=type_of(daemon, 3)),
    )
    operation = apply(daemon, *documents)
    assert operation.state is OperationState.FAILED, operation.problem
    assert instances(daemon) == before


def test_what_cannot_be_taken_back_is_told(daemon):
    failing(daemon, CreateGpuInstance)
    run = daemon.stage.host.run

    def occupied(what):
        if isinstance(what, CreateGpuInstance):
            daemon.stage.sim.control("hold", {"parent": GPU})
        run(what)

    daemon.stage.host.run = occupied
    operation = daemon.do(SetMig(gpu=GPU, mig=wish(daemon, counts=((1, 1),), level="profiles").mig))
    assert operation.state is OperationState.NEEDS_OPERATOR
    assert operation.problem["detail"] == (
        f"it does not; it could not be undone: GPU {GPU} is held open by nv-hostengine (pid 4201), so its "
        f"VFs cannot be turned off; what stays: MIG mode of GPU {GPU} is on, the VFs of GPU {GPU} are on"
    )
    assert len(operation.problem["facts"]["stays"]) == 2


@pytest.mark.parametrize("vfs", [False, True])
def test_enabling_and_disabling_change_the_mode_alone(daemon, vfs):
    daemon.stage.sim.kernel.sriov_manage(GPU, enable=vfs, timeout_s=1)
    for enabled in (True, False):
        operation = daemon.do(SetMig(gpu=GPU, mig=MigWish(enabled=enabled)))
        assert operation.state is OperationState.SUCCEEDED, operation.problem
        gpu = daemon.stage.observe().gpus[0]
        assert (gpu.mig, bool(gpu.vfs)) == (enabled, vfs)
    assert daemon.documents() == (GpuDocument(name=GPU, vfs=None, mig=MigWish(enabled=False)),)
    daemon.do(SetMig(gpu=GPU, mig=wish(daemon).mig))
    assert len(instances(daemon)) == 5
    assert bool(daemon.stage.observe().gpus[0].vfs), "VFs that come later would take the instances along"


def test_the_mode_goes_off_though_instances_are_cut_and_vfs_are_off(daemon):
    """hardware.md 3.3.7"""
    daemon.do(SetMig(gpu=GPU, mig=MigWish()))
    profile = wish(daemon, counts=((3, 1),), level="profiles").mig.profiles[0][0]
    daemon.stage.sim.control("mig-cut", {"gpu": GPU, "profile": profile})
    operation = daemon.do(SetMig(gpu=GPU, mig=MigWish(enabled=False)))
    assert operation.state is OperationState.SUCCEEDED, operation.problem
    assert effects(operation) == [DestroyGpuInstance, SetMigMode]


def test_a_parked_card_is_brought_back_on_the_way(daemon):
    daemon.stage.sim.control("fail", {"what": "sriov-manage", "gpu": GPU, "count": 1})
    daemon.stage.sim.kernel.sriov_manage(GPU, enable=True, timeout_s=1)
    assert daemon.stage.observe().gpus[0].state is GpuState.PARKED
    documents = (wish(daemon), VgpuDocument(name="one", type=type_of(daemon, 2)))
    operation = apply(daemon, *documents)
    assert operation.state is OperationState.SUCCEEDED, operation.problem
    assert effects(operation)[:4] == [SetVfs, SetVfs, SetMigMode, SetVfs]
    assert (len(instances(daemon)), len(daemon.stage.observe().vgpus())) == (5, 1)


def test_a_parked_card_is_not_brought_back_unasked(daemon):
    apply(daemon, wish(daemon))
    daemon.stage.sim.kernel.sriov_manage(GPU, enable=False, timeout_s=1)
    daemon.stage.sim.control("fail", {"what": "sriov-manage", "gpu": GPU, "count": 1})
    daemon.stage.sim.kernel.sriov_manage(GPU, enable=True, timeout_s=1)
    daemon.settle()
    assert daemon.stage.observe().gpus[0].state is GpuState.PARKED


class Driver(Catalog):
    """A driver that knows the GPU instances of cards which the catalogue has no placements for."""

    def mig_profiles(self, model):
        alike = super().mig_profiles(self.keyed("b200"))
        names = sorted({each.gi_profile for each in model.types if each.gi_profile}, key=self._order)
        return tuple(
            replace(each, name=name)
            for each, name in zip(sorted(alike, key=lambda each: self._order(each.name)), names, strict=True)
        )

    @staticmethod
    def _order(name: str) -> tuple[str, bool, int]:
        slices, _, rest = name.partition("g.")
        return slices, "+" in rest, int(rest.partition("gb")[0])


@pytest.mark.parametrize("key", ["b300", "gb200", "gh200", "h20"])
@pytest.mark.parametrize("level", ["instances", "profiles", "vgpus"])
def test_the_drivers_own_placements_are_enough_to_cut_a_card(tmp_path, key, level):
    """hardware.md 3.1.2: nobody has printed those of these cards; NVML says them, with MIG off too."""
    model = Catalog().keyed(key)
    assert Catalog().mig_profiles(model) == ()
    stage = Stage(tmp_path, key, source=Driver())
    daemon = Daemon(stage)
    one, three = (
        next(each for each in model.types if (each.gi_profile or "").startswith(slices)) for slices in "13"
    )
    wanted = {
        "instances": MigWish(instances=(GiPlace(0, one.gi_profile), GiPlace(4, three.gi_profile))),
        "profiles": MigWish(profiles=((one.gi_profile, 1), (three.gi_profile, 1))),
        "vgpus": MigWish(vgpus=((one.name, 1), (three.name, 1))),
    }[level]
    shown = show(daemon, SetMig(gpu=GPU, mig=wanted)).plan
    assert [each.from_hardware for each in shown.layouts] == [True]
    operation = apply(daemon, GpuDocument(name=GPU, mig=wanted), VgpuDocument(name="one", type=one.name))
    assert operation.state is OperationState.SUCCEEDED, operation.problem
    assert sorted(each.profile for each in instances(daemon)) == sorted([one.gi_profile, three.gi_profile])
    with pytest.raises(errors.NoCapacity, match="at most"):
        daemon.do(SetMig(gpu=GPU, mig=MigWish(profiles=((one.gi_profile, 1), (three.gi_profile, 3)))))
    daemon.close()
    stage.close()


def test_a_plan_for_what_cannot_be_had_goes_no_part_of_the_way(daemon):
    (problem,) = (
        shown := show(daemon, SetMig(gpu=GPU, mig=MigWish(profiles=(("7g.80gb", 2),))))
    ).plan.problems
    assert "has no room for 2 x 7g.80gb; at most 1 x 7g.80gb" in problem.error.message
    assert (shown.plan.steps, shown.plan.layouts, shown.plan.incomplete) == ((), (), False)


def test_who_asks_after_a_change_of_mode_sees_what_it_came_to(daemon):
    """The last step closes NVML for a while: the operation ends with a look at the host after it."""
    ticket = daemon.submit(SetMig(gpu=GPU, mig=MigWish()))
    last = None
    while daemon.effects:
        effect = daemon.effects.pop(0)
        last = effect if isinstance(effect, (RunStep, Observe)) else last
        daemon.turn(daemon.perform(effect))
    assert daemon.operation(ticket).state is OperationState.SUCCEEDED
    assert isinstance(last, Observe)


# -- drift -------------------------------------------------------------------------------------------


def told(daemon):
    """What differs, as the log tells it; observed without time for a sweep."""
    daemon.turn(LookRequested(next(daemon.tickets)))
    daemon.until_idle()
    return {str(each.code): each for each in daemon.engine.ledger.findings.values()}


def turn_off(stage):
    """Somebody turns MIG off behind our back."""
    stage.sim.kernel.sriov_manage(GPU, enable=False, timeout_s=5.0)
    stage.sim.control("mig", {"gpu": GPU, "enabled": False})


def test_a_mode_that_somebody_changed_is_told_once_and_mended_when_asked(stage, daemon):
    apply(daemon, wish(daemon))
    assert told(daemon) == {}
    turn_off(stage)
    daemon.engine.set_repair(Repair.NEVER)
    for _ in range(2):
        found = told(daemon)["mig-mode-differs"]
    assert (found.subject, found.repair) == (GPU, Repair.NEVER)
    records = [each.record for each in daemon.store.entries(0, 10_000)]
    assert [r for r in records if isinstance(r, DriftFound) and r.finding.key == found.key] == [
        DriftFound(found)
    ]
    daemon.engine.set_repair(Repair.AUTO)
    if "h100" not in str(stage.sim.engine.state.spec):
        daemon.settle()
        now = next(each for each in daemon.engine.differing(stage.observe()) if each.key == found.key)
        assert now.repair is Repair.ASK
        assert stage.observe().gpus[0].mig is False, "a GPU is never reset unasked"
        assert daemon.do(RepairDrift()).state is OperationState.SUCCEEDED
    daemon.settle()
    assert told(daemon) == {}
    assert stage.observe().gpus[0].mig is True
    assert faults_of(daemon) == []


def test_a_mode_is_not_repaired_on_a_card_with_vgpus(stage, daemon):
    apply(daemon, GpuDocument(name=GPU, mig=MigWish(enabled=False)))
    stage.sim.kernel.sriov_manage(GPU, enable=False, timeout_s=5.0)
    stage.sim.control("mig", {"gpu": GPU, "enabled": True})
    stage.sim.kernel.sriov_manage(GPU, enable=True, timeout_s=5.0)
    vgpu_type = type_of(daemon, 1)
    profile = next(each.gi_profile for each in stage.observe().gpus[0].types if each.name == vgpu_type)
    stage.sim.control("mig-cut", {"gpu": GPU, "profile": profile})
    stage.make_foreign(GPU, vgpu_type)
    found = told(daemon)["mig-mode-differs"]
    assert (found.repair, "1 vGPU" in found.detail) == (Repair.NEVER, True)
    daemon.do(RepairDrift())
    daemon.settle()
    with pytest.raises(errors.VgpuBusy):
        daemon.do(RepairDrift(subject=GPU))
    assert stage.observe().gpus[0].mig is True
    assert len(stage.observe().vgpus()) == 1


def test_an_instance_too_many_is_told_and_taken_away_when_asked(stage, daemon):
    document = wish(daemon, counts=((2, 2),), level="profiles")
    apply(daemon, document)
    stage.sim.control("mig-cut", {"gpu": GPU, "profile": document.mig.profiles[0][0]})
    daemon.settle()
    assert told(daemon)["gpu-instances-differ"].repair is Repair.ASK
    assert len(instances(daemon)) == 3
    assert daemon.do(RepairDrift()).state is OperationState.SUCCEEDED
    assert told(daemon) == {}
    assert len(instances(daemon)) == 2


def test_instances_that_stand_without_vfs_do_not_keep_the_mode_on(stage, daemon):
    """Cut before the VFs came on: sriov-manage does not take them along."""
    apply(daemon, GpuDocument(name=GPU, vfs=False, mig=MigWish()))
    cut = wish(daemon, counts=((2, 1),), level="profiles").mig.profiles[0][0]
    stage.sim.control("mig-cut", {"gpu": GPU, "profile": cut})
    operation = apply(daemon, GpuDocument(name=GPU, vfs=False, mig=MigWish(enabled=False)))
    assert operation.state is OperationState.SUCCEEDED, operation.problem
    assert [type(each.step.effect) for each in operation.runs] == [DestroyGpuInstance, SetMigMode]
    assert stage.observe().gpus[0].mig is False

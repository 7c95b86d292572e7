"""How a start judges the first restore: what goes on, what may yet come, what is missing and why."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.stage import Daemon, Stage
from tests.support.world import World, world
from vgpuctl import errors
from vgpuctl.model.document import GpuDocument
from vgpuctl.model.edit import ApplyDocuments, AttachVgpu, CreateVgpus
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import Gpu, GpuState
from vgpuctl.model.record import PauseSet
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import CreateVgpu, Effect
from vgpuctl.service import loop, restore
from vgpuctl.service.boot import Outlook
from vgpuctl.service.messages import Observe, RunStep, SweepDue

FIRST, SECOND = "0000:41:00.0", "0000:61:00.0"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Two T4s with a vGPU each, `a` and `b`, after a boot; libvirt is not up."""
    stage = Stage(tmp_path, "t4:mdev,t4:mdev")
    daemon = Daemon(stage)
    daemon.do(CreateVgpus(type="T4-4Q", name="a", gpu=FIRST))
    daemon.do(CreateVgpus(type="T4-8Q", name="b", gpu=SECOND))
    reboot(daemon)
    try:
        yield daemon
    finally:
        daemon.close()
        stage.close()


def reboot(daemon: Daemon) -> None:
    daemon.close()
    daemon.stage.sim.control("reboot", {})
    daemon.__post_init__()
    daemon.effects.clear()
    daemon.observe = lambda: seen(daemon)


def seen(daemon: Daemon, change: Callable[[Gpu], Gpu | None] = lambda gpu: gpu) -> Snapshot:
    """What there is to be seen at boot, with each GPU as `change` has it."""
    snapshot = daemon.stage.observe()
    gpus = tuple(each for gpu in snapshot.gpus if (each := change(gpu)) is not None)
    away = Unknown("not up yet")
    return replace(snapshot, gpus=gpus, domains=away, hypervisor=away)


def refuse(daemon: Daemon, error: errors.VgpuctlError) -> None:
    """Nobody makes `a` until `daemon.run` is None again."""

    def run(effect: Effect) -> None:
        if isinstance(effect, CreateVgpu) and effect.name == "a":
            raise error
        daemon.stage.host.run(effect)

    daemon.run = run


def without_driver(gpu: Gpu) -> Gpu:
    """The first of them as its driver leaves it."""
    if str(gpu.address) != FIRST:
        return gpu
    return replace(gpu, state=GpuState.NO_DRIVER, types=(), vgpus=(), framework=None)


def sweep(daemon: Daemon) -> Outlook:
    """One more look, with all that follows from it; how it stands then."""
    daemon.turn(SweepDue())
    daemon.until_idle()
    found = daemon.engine.outlook
    assert found is not None
    return found


def test_a_restore_goes_on_until_an_observation_shows_what_it_made(daemon: Daemon):
    assert daemon.engine.outlook is None
    daemon.turn(SweepDue())
    (observe,) = daemon.effects
    daemon.effects.clear()
    daemon.turn(daemon.perform(observe))
    assert daemon.engine.outlook.restoring == {"a", "b"}
    steps = [each for each in daemon.effects if isinstance(each, RunStep)]
    daemon.turn(SweepDue())
    torn = [daemon.perform(each) for each in daemon.effects if isinstance(each, Observe)]
    daemon.effects.clear()
    for each in steps:
        daemon.turn(daemon.perform(each))
    # It was read before they were made: that they are not in it does not mean that they are missing.
    for each in torn:
        daemon.turn(each)
    assert daemon.engine.outlook.restoring == {"a", "b"}
    daemon.until_idle()
    found = sweep(daemon)
    assert (found.is_settled, found.absent) == (True, {})


@pytest.mark.parametrize("state", [GpuState.NO_DRIVER, GpuState.NO_TYPES, GpuState.UNREADABLE])
def test_a_gpu_whose_driver_is_not_ready_is_awaited_and_holds_up_only_its_own(
    daemon: Daemon, state: GpuState
):
    def late(gpu: Gpu) -> Gpu:
        if str(gpu.address) != FIRST:
            return gpu
        return replace(gpu, state=state, state_reason="it starts", types=(), vgpus=(), framework=None)

    daemon.observe = lambda: seen(daemon, late)
    sweep(daemon)
    found = sweep(daemon)
    assert found.absent == {"a": f"GPU {FIRST} is {state}: it starts"}
    assert list(found.awaited) == ["a"]
    daemon.observe = lambda: seen(daemon)
    sweep(daemon)
    assert sweep(daemon).absent == {}


def test_what_failed_while_the_driver_went_is_tried_as_soon_as_it_is_back(daemon: Daemon):
    """A driver that unbinds its GPUs one by one refuses what a restore asks of it meanwhile."""
    refuse(daemon, errors.InvalidGpuState("it is no VF that takes vGPU types now"))
    sweep(daemon)
    daemon.run = None
    assert list(sweep(daemon).absent) == ["a"], "it is left alone for a while"
    daemon.observe = lambda: seen(daemon, without_driver)
    sweep(daemon)
    daemon.observe = lambda: seen(daemon)
    sweep(daemon)
    assert sweep(daemon).absent == {}


def test_what_is_wished_of_a_gpu_without_a_driver_has_no_pause_either(daemon: Daemon):
    daemon.observe = daemon.stage.observe
    daemon.do(
        ApplyDocuments(documents=(GpuDocument(name=FIRST, vfs=None), GpuDocument(name=SECOND, vfs=None)))
    )
    ledger = daemon.engine.ledger
    found = restore.without_driver(
        ledger.in_force(), ledger.allocations.values(), seen(daemon, without_driver)
    )
    assert found == {"a", f"Gpu/{FIRST}"}


def test_a_card_that_was_taken_out_is_not_waited_for(daemon: Daemon):
    daemon.observe = lambda: seen(daemon, lambda gpu: gpu if str(gpu.address) != FIRST else None)
    sweep(daemon)
    found = sweep(daemon)
    assert found.is_settled
    assert found.absent == {"a": f"its GPU {FIRST} is not on this host"}


def test_a_parent_that_comes_with_a_module_is(tmp_path: Path):
    stage = Stage(tmp_path, "mtty")
    daemon = Daemon(stage)
    gpu = stage.observe().gpus[0]
    daemon.do(CreateVgpus(type=gpu.types[0].name, name="a"))
    reboot(daemon)
    daemon.observe = lambda: seen(daemon, lambda _gpu: None)
    found = sweep(daemon)
    assert not found.is_settled
    assert found.absent == {"a": f"its GPU {gpu.address} is not on this host"}
    daemon.close()
    stage.close()


def test_what_the_driver_refused_is_missing_with_the_reason(daemon: Daemon):
    refuse(daemon, errors.KernelRefused("the driver said 0x56"))
    sweep(daemon)
    for _ in range(3):
        found = sweep(daemon)
        assert found.is_settled
        assert found.absent == {"a": "the driver said 0x56"}
    daemon.run = None
    daemon.settle()
    assert sweep(daemon).absent == {}


def test_what_may_not_be_done_unasked_is_missing_with_the_reason(daemon: Daemon):
    """Another card stands there (T8)."""
    daemon.observe = lambda: seen(
        daemon, lambda gpu: gpu if str(gpu.address) != FIRST else replace(gpu, uuid="GPU-another")
    )
    sweep(daemon)
    found = sweep(daemon)
    assert found.is_settled
    assert "another card" in found.absent["a"]


def test_while_paused_nothing_is_waited_for(daemon: Daemon):
    daemon.store.commit([PauseSet(paused=True)], daemon.stage.sim.clock.now())
    daemon.open()
    found = sweep(daemon)
    assert found.is_settled
    assert found.absent == dict.fromkeys("ab", "background changes are paused")


def test_an_operation_that_waits_for_libvirt_is_not_waited_for(daemon: Daemon):
    """libvirt begins only after us: waiting for what waits for it would never end."""
    daemon.observe = None
    sweep(daemon)
    daemon.submit(AttachVgpu(domain="win1", type="T4-4Q"))
    while not any(isinstance(each, RunStep) for each in daemon.effects):
        daemon.turn(daemon.perform(daemon.effects.pop(0)))
    reboot(daemon)
    sweep(daemon)
    found = sweep(daemon)
    assert found.is_settled
    assert found.absent == {"win1": "an operation on it waits for something that cannot be read yet"}


def test_vfs_are_part_of_it(tmp_path: Path):
    stage = Stage(tmp_path, "a2:vendor-vfio")
    daemon = Daemon(stage)
    daemon.do(ApplyDocuments(documents=(GpuDocument(name=FIRST),)))
    reboot(daemon)
    daemon.turn(SweepDue())
    (observe,) = daemon.effects
    daemon.effects.clear()
    daemon.turn(daemon.perform(observe))
    assert daemon.engine.outlook.restoring == {f"Gpu/{FIRST}"}
    daemon.until_idle()
    assert sweep(daemon).absent == {}
    daemon.close()
    stage.close()


# -- waiting for it -------------------------------------------------------------------------------


@pytest.fixture
def one(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, cards="t4:mdev,t4:mdev") as made:
        yield made


def lost(one: World, *faults: dict[str, Any]) -> None:
    """A boot, after which these faults are there."""
    one.service.stop()
    one.store.close()
    one.sim.control("reboot", {})
    for each in faults:
        one.sim.control("fail", each)


def test_a_start_waits_for_its_first_restore(one: World):
    one.succeed(CreateVgpus(type="T4-4Q", name="a", count=2))
    lost(one)
    one.start()
    assert one.service.first_restore(gpus_s=60.0) == Outlook()
    assert one.kernel_vgpus() == 2


def test_a_start_waits_for_a_gpu_only_so_long_and_names_what_is_missing(one: World):
    one.succeed(CreateVgpus(type="T4-4Q", name="a", gpu=FIRST))
    one.succeed(CreateVgpus(type="T4-4Q", name="b", gpu=SECOND))
    lost(one, {"what": "gpu", "gpu": FIRST, "errno": "EIO"})
    one.start()
    found = one.service.first_restore(gpus_s=1.0)
    assert found is not None
    assert list(found.absent) == ["a"]
    assert one.kernel_vgpus() == 1


def test_a_gpu_that_becomes_ready_without_a_word_is_noticed(one: World, monkeypatch: pytest.MonkeyPatch):
    """A probe finds it, long before the next look that would be due."""
    monkeypatch.setattr(loop, "SWEEP_S", 3600.0)
    one.succeed(CreateVgpus(type="T4-4Q", name="a", gpu=FIRST))
    lost(one, {"what": "gpu", "gpu": FIRST, "errno": "EIO"})
    one.start()
    healing = threading.Timer(1.5, lambda: one.sim.control("heal", {}))
    healing.start()
    assert one.service.first_restore(gpus_s=60.0) == Outlook()
    healing.join()
    assert one.kernel_vgpus() == 1


def test_a_daemon_that_stops_waits_no_longer(one: World):
    one.succeed(CreateVgpus(type="T4-4Q", name="a", gpu=FIRST))
    lost(one, {"what": "gpu", "gpu": FIRST, "errno": "EIO"})
    one.start()
    stopping = threading.Timer(1.0, one.service.stop)
    stopping.start()
    assert one.service.first_restore(gpus_s=3600.0) is None
    stopping.join()


def test_whoever_looks_is_told_why_a_vgpu_does_not_come_back_and_what_to_do(tmp_path: Path):
    with world(tmp_path, cards="l40s:sriov-mdev") as one:
        one.succeed(CreateVgpus(type="L40S-8Q", name="a"))
        one.sim.control("reload-driver", {})
        one.service.host()  # looks: what was seen before the reload is no answer
        found = one.service.first_restore(gpus_s=60.0)
        assert found is not None
        why = (
            "turn on the VFs of GPU 0000:41:00.0: they went off after vGPUs had been made on it in this boot"
        )
        assert found.absent == {"a": why}
        row = one.service.vgpu("a")
        assert (row["state"], row["problem"]["detail"]) == ("absent", why)
        assert row["problem"]["hint"].endswith("vgpuctl repair a")
        assert [each["detail"] for each in one.service.host()["problems"]] == [why]
        one.succeed(ApplyDocuments(documents=tuple(one.service.documents())))
        assert one.service.vgpu("a")["problem"] is None
        assert one.service.host()["problems"] == []

"""VFs that the driver fills one after the other: what stood on one is not put onto another meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.stage import Daemon, Stage
from vgpuctl.model.edit import CreateVgpus
from vgpuctl.model.gpu import Gpu
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.service.filling import PATIENCE_S, Filling
from vgpuctl.service.messages import SweepDue

CARD = "l40s:vendor-vfio"
OWN = 2
"""The VF of the vGPU `c`, by its index."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """An L40S whose driver was loaded again; `a`, `b` and `c` stood on its first three VFs."""
    stage = Stage(tmp_path, CARD)
    daemon = Daemon(stage)
    for name in "abc":
        daemon.do(CreateVgpus(type="L40S-4Q", name=name))
    stage.sim.control("reload-driver", {})
    (gpu,) = stage.observe().gpus
    stage.kernel.sriov_manage(str(gpu.address), enable=True, timeout_s=60)
    daemon.effects.clear()
    try:
        yield daemon
    finally:
        daemon.close()
        stage.close()


def without(gpu: Gpu, *indices: int, driver: str | None = None) -> Gpu:
    """The card while those VFs are not filled."""
    vfs = (replace(each, ready=False, driver=driver) if each.index in indices else each for each in gpu.vfs)
    return replace(gpu, vfs=tuple(vfs))


def look(daemon: Daemon, *indices: int, driver: str | None = None) -> None:
    """A sweep that sees those VFs not filled, with all that follows from it."""

    def seen() -> Snapshot:
        snapshot = daemon.stage.observe()
        return replace(snapshot, gpus=tuple(without(each, *indices, driver=driver) for each in snapshot.gpus))

    daemon.observe = seen
    daemon.turn(SweepDue())
    daemon.until_idle()


def stand(daemon: Daemon) -> dict[str, int]:
    """On which VF each vGPU stands."""
    (gpu,) = daemon.stage.observe().gpus
    index = {each.address: each.index for each in gpu.vfs}
    places = {each.parent: each.name for each in daemon.engine.ledger.allocations.values()}
    return {places[each.parent]: index[each.parent] for each in gpu.vgpus}


def test_nothing_is_made_while_vfs_are_filled_and_then_each_on_its_own(daemon: Daemon) -> None:
    look(daemon, OWN, 7)
    assert stand(daemon) == {}
    assert {name: why.message for name, why in daemon.engine.outlook.awaited.items()} == dict.fromkeys(
        "abc", "the driver is still filling the VFs of its GPU"
    )
    look(daemon)
    assert stand(daemon) == {"a": 0, "b": 1, "c": 2}


def test_a_vf_that_stays_empty_holds_nothing_up_for_long(daemon: Daemon) -> None:
    look(daemon, OWN)
    daemon.stage.sim.clock.advance(PATIENCE_S + 1)
    look(daemon, OWN)
    assert sorted(stand(daemon)) == ["a", "b", "c"]
    assert stand(daemon)["c"] != OWN


def test_a_vf_that_somebody_took_is_not_waited_for(daemon: Daemon) -> None:
    look(daemon, OWN, driver="vfio-pci")
    assert stand(daemon)["c"] != OWN


def test_the_clock_begins_anew_with_each_vf_that_is_filled(daemon: Daemon) -> None:
    snapshot = daemon.stage.observe()
    (gpu,) = snapshot.gpus
    filling = Filling()

    def seen(*indices: int) -> Snapshot:
        return replace(snapshot, gpus=(without(gpu, *indices),))

    assert filling.note(seen(1, 2), 0.0) == {gpu.address}
    assert filling.note(seen(2), PATIENCE_S - 1) == {gpu.address}
    assert filling.note(seen(2), 2 * PATIENCE_S - 2) == {gpu.address}
    assert filling.note(seen(2), 2 * PATIENCE_S) == frozenset()
    assert filling.note(seen(), 2 * PATIENCE_S) == frozenset()

"""A daemon killed at any point leaves a host that the next daemon makes right.

Each scenario runs once to count its points: before and after every commit, every step, and every
write of a step to the kernel or to libvirt.  Then it runs once for each point, is killed there, and
another daemon starts on what is left (ADR 2).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.stage import Daemon, Fuse, Killed, Saved, Stage, faults_of
from tests.support.world import WHO
from vgpuctl import errors
from vgpuctl.model.document import (
    DesktopDocument,
    DesktopVgpu,
    Document,
    GpuDocument,
    ProfileDocument,
    VgpuDocument,
)
from vgpuctl.model.edit import (
    AdoptVgpus,
    ApplyDocuments,
    AttachVgpu,
    CreateVgpus,
    DeleteVgpu,
    DetachVgpu,
    Edit,
    ReplaceGpu,
)
from vgpuctl.model.record import OperationState
from vgpuctl.service.messages import CancelRequested, Submitted, SweepDue

pytestmark = pytest.mark.slow

CARDS = {"mdev": "t4:mdev,t4:mdev", "sriov-mdev": "a2:sriov-mdev", "vendor-vfio": "a2:vendor-vfio"}
FIRST = "0000:41:00.0"


@dataclass(frozen=True)
class Names:
    """The types of a framework's card: one, another of the same size, and a bigger one."""

    small: str
    other: str
    big: str
    sriov: bool = True
    desktops: bool = True
    """libvirt 9 does not take the VF of a vendor-VFIO vGPU."""


TYPES = {
    "mdev": Names("T4-4Q", "T4-4C", "T4-8Q", sriov=False),
    "sriov-mdev": Names("A2-4Q", "A2-4C", "A2-8Q"),
    "vendor-vfio": Names("A2-4Q", "A2-4C", "A2-8Q", desktops=False),
}


def a(names: Names, **fields: Any) -> VgpuDocument:
    return VgpuDocument(name="a", type=names.small, **fields)


def profile(vgpu_type: str, **params: str) -> ProfileDocument:
    return ProfileDocument(name="p", types=(vgpu_type,), params=tuple(params.items()))


def with_profile(names: Names) -> tuple[Document, ...]:
    first = DesktopVgpu(name="d", profile="p")
    mine: tuple[Document, ...] = (VgpuDocument(name="a", profile="p"),)
    return (*mine, DesktopDocument(name="win1", vgpus=(first,))) if names.desktops else mine


def mixed(names: Names) -> tuple[Document, ...]:
    """A GPU's VFs, a vGPU for itself with parameters, one of a desktop, one that a desktop uses."""
    documents: tuple[Document, ...] = (
        a(names),
        VgpuDocument(name="b", profile="p"),
        profile(names.other, frame_rate_limiter="0"),
    )
    if names.sriov:
        documents = (*documents, GpuDocument(name=FIRST))
    if names.desktops:
        documents = (
            *documents,
            DesktopDocument(name="win1", vgpus=(DesktopVgpu(name="w", type=names.small),)),
            DesktopDocument(name="win2", vgpus=(DesktopVgpu(name="a2", vgpu="a"),)),
        )
    return documents


@dataclass(frozen=True)
class Scenario:
    """What there was, what is asked for, and what goes wrong on the way besides the kill."""

    before: Callable[[Names], tuple[Edit, ...]] = lambda _names: ()
    edit: Callable[[Names], Edit] | None = None
    arrange: Callable[[Stage, Names], None] = lambda _stage, _names: None
    trouble: Callable[[Stage], None] = lambda _stage: None
    cancel: bool = False
    needs_desktops: bool = False
    again: bool = False
    """Whether who got no answer asks again: without it nothing can be right."""


def applied(make: Callable[[Names], tuple[Document, ...]]) -> Callable[[Names], tuple[Edit, ...]]:
    return lambda names: (ApplyDocuments(documents=make(names)),)


def refuse_attach(stage: Stage) -> None:
    def refuse(name: str, *_args: Any, **_more: Any) -> None:
        if name == "attach":
            raise errors.LibvirtRefused("no slot is free")

    stage.hypervisor.instead = refuse


def lost_before(stage: Stage, names: Names) -> None:
    stage.sim.control("reboot", {})


def made_by_others(stage: Stage, names: Names) -> None:
    for _ in range(2):
        stage.make_foreign(FIRST, names.small)


def exchanged(stage: Stage, names: Names) -> None:
    stage.sim.control("swap-gpu", {"gpu": FIRST})


def started_by_others(stage: Stage, names: Names) -> None:
    for _ in range(2):
        made = stage.sim.control("foreign", {"gpu": FIRST, "type": names.small, "autostart": True})
        stage.foreign.add((made["parent"], str(made["uuid"])))


SCENARIOS = {
    "create": Scenario(edit=lambda names: CreateVgpus(type=names.small, name="a", count=2)),
    "delete": Scenario(
        before=lambda names: (CreateVgpus(type=names.small, name="a", count=2),),
        edit=lambda names: DeleteVgpu(vgpu="a-1"),
    ),
    "attach": Scenario(edit=lambda names: AttachVgpu(domain="win1", type=names.small), needs_desktops=True),
    "detach": Scenario(
        before=lambda names: (AttachVgpu(domain="win1", type=names.small),),
        edit=lambda names: DetachVgpu(domain="win1"),
        needs_desktops=True,
    ),
    "apply": Scenario(edit=lambda names: ApplyDocuments(documents=mixed(names))),
    "move": Scenario(
        before=applied(mixed),
        edit=lambda names: ApplyDocuments(
            documents=(
                DesktopDocument(name="win1", vgpus=(DesktopVgpu(name="a1", vgpu="a"),)),
                DesktopDocument(name="win2", vgpus=(DesktopVgpu(name="w", type=names.small),)),
            )
        ),
        needs_desktops=True,
    ),
    "prune": Scenario(
        before=applied(mixed),
        edit=lambda names: ApplyDocuments(
            documents=(VgpuDocument(name="c", type=names.small), DesktopDocument(name="win3", vgpus=())),
            prune=True,
        ),
    ),
    "adopt": Scenario(
        before=lambda names: (ApplyDocuments(documents=(GpuDocument(name=FIRST),)),) if names.sriov else (),
        arrange=made_by_others,
        edit=lambda names: AdoptVgpus(),
    ),
    "adopt and start alone": Scenario(
        before=lambda names: (ApplyDocuments(documents=(GpuDocument(name=FIRST),)),) if names.sriov else (),
        arrange=started_by_others,
        edit=lambda names: AdoptVgpus(sole_starter=True),
    ),
    "replace a GPU": Scenario(
        before=applied(mixed),
        arrange=exchanged,
        edit=lambda names: ReplaceGpu(old=FIRST, new=FIRST),
        again=True,
    ),
    "replace": Scenario(
        before=lambda names: (ApplyDocuments(documents=(*with_profile(names), profile(names.small))),),
        edit=lambda names: ApplyDocuments(documents=(profile(names.big),)),
    ),
    "parameters": Scenario(
        before=lambda names: (ApplyDocuments(documents=(*with_profile(names), profile(names.small))),),
        edit=lambda names: ApplyDocuments(documents=(profile(names.small, frame_rate_limiter="0"),)),
    ),
    "reboot": Scenario(before=applied(mixed), arrange=lost_before),
    "driver refuses": Scenario(
        before=lambda names: (ApplyDocuments(documents=(*with_profile(names), profile(names.small))),),
        edit=lambda names: ApplyDocuments(documents=(profile(names.big),)),
        trouble=lambda stage: stage.sim.control("fail", {"what": "create", "count": 3}) and None,
    ),
    "parameters refused": Scenario(
        before=lambda names: (CreateVgpus(type=names.small, name="first"),),
        edit=lambda names: ApplyDocuments(
            documents=(VgpuDocument(name="a", profile="p"), profile(names.small, frame_rate_limiter="0"))
        ),
        trouble=lambda stage: stage.sim.control("fail", {"what": "vgpu_params", "count": 3}) and None,
    ),
    "libvirt refuses": Scenario(
        before=lambda names: (CreateVgpus(type=names.small, name="first"),),
        edit=lambda names: ApplyDocuments(documents=mixed(names)),
        trouble=refuse_attach,
        needs_desktops=True,
    ),
    "cancel": Scenario(edit=lambda names: ApplyDocuments(documents=mixed(names)), cancel=True),
}

CASES = [
    pytest.param((framework, name), id=f"{framework} {name}")
    for framework, (name, scenario) in itertools.product(CARDS, SCENARIOS.items())
    if TYPES[framework].desktops or not scenario.needs_desktops
]


@dataclass
class Play:
    """A scenario on a stage, again and again."""

    stage: Stage
    scenario: Scenario
    names: Names
    saved: Saved = field(init=False)
    before: tuple[Document, ...] = ()
    target: tuple[Document, ...] = ()

    def prepare(self) -> None:
        daemon = Daemon(self.stage)
        for edit in self.scenario.before(self.names):
            assert daemon.do(edit).state is OperationState.SUCCEEDED
        self.before = daemon.documents()
        daemon.close()
        self.scenario.arrange(self.stage, self.names)
        self.saved = self.stage.save()
        daemon = Daemon(self.stage)
        if self.scenario.edit is not None:
            assert daemon.do(self.scenario.edit(self.names)).state is OperationState.SUCCEEDED
        self.target = daemon.documents()
        daemon.close()

    def act(self, fuse: Fuse) -> None:
        """One daemon's life, up to its death where the fuse blows."""
        self.stage.restore(self.saved)
        self.stage.hypervisor.instead = lambda *_args, **_more: None
        self.scenario.trouble(self.stage)
        daemon = Daemon(self.stage, fuse)
        try:
            if self.scenario.edit is None:
                daemon.turn(SweepDue())
            else:
                daemon.turn(Submitted(1, WHO, self.scenario.edit(self.names)))
            if self.scenario.cancel:
                while 1 not in daemon.answers:
                    daemon.turn(daemon.perform(daemon.effects.pop(0)))
                daemon.turn(CancelRequested(2, daemon.answers[1].value))
            daemon.until_idle()
        except Killed:
            pass
        finally:
            daemon.store.fuse = Fuse()
            daemon.close()

    def go_on(self, fuse: Fuse | None = None) -> list[str]:
        """The next daemon's life, and what is wrong after it."""
        daemon = Daemon(self.stage, fuse or Fuse())
        try:
            daemon.settle()
            if self.scenario.again and self.scenario.edit is not None:
                with contextlib.suppress(errors.GpuNotFound):  # it is done already
                    daemon.do(self.scenario.edit(self.names))
                daemon.settle()
            found = faults_of(daemon)
            documents = daemon.documents()
            if documents not in (self.before, self.target):
                found.append(f"neither old nor new: {documents}")
            for each in daemon.operations():
                if each.state is OperationState.NEEDS_OPERATOR:
                    found.append(f"needs an operator: {each.problem}")
            mine = [each for each in daemon.operations() if each.started.requester == WHO]
            last = mine[0] if self.scenario.edit is not None and mine else None
            if last is not None and len(mine) > len(self.scenario.before(self.names)):
                kept = last.state is OperationState.SUCCEEDED
                if documents != (self.target if kept else self.before):
                    found.append(f"{last.state}, and not so")
        except Killed:
            return []
        else:
            return found
        finally:
            daemon.store.fuse = Fuse()
            daemon.close()


@pytest.fixture
def play(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Play]:
    framework, name = request.param
    stage = Stage(tmp_path, CARDS[framework])
    made = Play(stage, SCENARIOS[name], TYPES[framework])
    try:
        made.prepare()
        yield made
    finally:
        stage.close()


@pytest.mark.parametrize("play", CASES, indirect=True)
def test_killed_at_any_point(play: Play, record_property: Callable[[str, object], None]):
    counting = Fuse()
    play.act(counting)
    assert not play.go_on(), "without a kill"
    wrong: dict[str, list[str]] = {}
    for number in counting.instants():
        play.act(Fuse(number))
        found = play.go_on()
        if found:
            wrong[f"{number} {counting.names[number]}"] = found
    record_property("points", len(counting.names))
    print(f"{len(counting.names)} points, {len(counting.instants())} instants")
    assert not wrong

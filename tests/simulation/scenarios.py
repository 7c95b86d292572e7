"""Use cases that a daemon is killed in: what there was, what is asked for, what goes wrong besides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.stage import Daemon, Stage
from tests.support.world import WHO
from vgpuctl import errors
from vgpuctl.model.document import (
    ComputeWish,
    DesktopDocument,
    DesktopVgpu,
    Document,
    GpuDocument,
    MigWish,
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
    PruneVgpus,
    RepairDrift,
    ReplaceGpu,
    SetMig,
)
from vgpuctl.model.frameworks import hostdev
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.start import DomainStart, NamedVgpu
from vgpuctl.service.messages import Input, StartAsked, Submitted, SweepDue

CARDS = {
    "mdev": "t4:mdev,t4:mdev",
    "sriov-mdev": "a2:sriov-mdev",
    "vendor-vfio": "a2:vendor-vfio",
    "mig": "a30:sriov-mdev",
}
PLAIN = ("mdev", "sriov-mdev", "vendor-vfio")
MIG = ("mig",)
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
    "mig": Names("A30-1-6C", "A30-1-6CME", "A30-2-12C"),
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
    starts: str | None = None
    """The domain that is started."""
    hosts: tuple[str, ...] = PLAIN

    def input(self, daemon: Daemon, names: Names) -> Input:
        """What comes in, with ticket 1."""
        if self.starts is not None:
            return asked(daemon, self.starts)
        return SweepDue() if self.edit is None else Submitted(1, WHO, self.edit(names))


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


def vanished(stage: Stage, names: Names) -> None:
    """Somebody removes the first vGPU, behind our back."""
    vgpu = stage.observe().vgpus()[0]
    stage.sim.kernel.write(f"sys/bus/mdev/devices/{vgpu.mdev_uuid}/remove", "1")


def driver_reloaded(stage: Stage, names: Names) -> None:
    stage.sim.control("reload-driver", {})


def unwished(stage: Stage, names: Names) -> None:
    """What an operation that could not be undone leaves: a vGPU of ours without a document."""
    daemon = Daemon(stage)
    key = next(each for each in daemon.engine.ledger.wishes if each.name == "a-1")
    daemon.store.inner._writer.execute("DELETE FROM wishes WHERE name = ?", (key.name,))
    daemon.close()


def asked(daemon: Daemon, name: str) -> StartAsked:
    """libvirt's hook asks whether a domain may start."""
    domains = daemon.stage.observe().domains
    assert isinstance(domains, tuple)
    domain = next(each for each in domains if each.name == name)
    named = []
    for place in daemon.engine.ledger.allocations.values():
        assert place.framework is not None
        assert place.parent is not None
        named.append(NamedVgpu(place.id, hostdev(place.framework, place.id, place.parent).source))
    start = DomainStart(domain=name, uuid=domain.uuid, token="start-1", vgpus=tuple(named))
    return StartAsked(1, start, {domain.uuid: "start-1"})


def cut(**layout: Any) -> GpuDocument:
    return GpuDocument(name=FIRST, mig=MigWish(**layout))


def shared(share: int) -> MigWish:
    """Two halves; of the first, one or both compute slices are made compute instances."""
    places = (GiPlace(0, "2g.12gb"), GiPlace(2, "2g.12gb"))
    name = "1c.2g.12gb" if share == 1 else "2g.12gb"
    return MigWish(instances=places, compute=(ComputeWish(places[0], ((name, 1),)),))


def on_instances(names: Names) -> tuple[Document, ...]:
    """MIG on, three instances, a vGPU for itself and a desktop's."""
    return (
        cut(profiles=(("1g.6gb", 2), ("2g.12gb", 1))),
        a(names),
        DesktopDocument(name="win1", vgpus=(DesktopVgpu(name="w", type=names.big),)),
    )


SCENARIOS = {
    "create": Scenario(edit=lambda names: CreateVgpus(type=names.small, name="a", count=2)),
    "delete": Scenario(
        before=lambda names: (CreateVgpus(type=names.small, name="a", count=2),),
        edit=lambda names: DeleteVgpu(vgpu="a-1"),
    ),
    "delete of what cannot be read": Scenario(
        before=lambda names: (CreateVgpus(type=names.small, name="a", count=2),),
        edit=lambda names: DeleteVgpu(vgpu="a-1"),
        trouble=lambda stage: stage.sim.control("fail", {"what": "gpu", "gpu": FIRST}) and None,
        again=True,
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
    "repair": Scenario(
        before=applied(mixed), arrange=driver_reloaded, edit=lambda names: RepairDrift(), again=True
    ),
    "prune leftovers": Scenario(
        before=lambda names: (CreateVgpus(type=names.small, name="a", count=2),),
        arrange=unwished,
        edit=lambda names: PruneVgpus(),
        again=True,
    ),
    "start": Scenario(
        before=lambda names: (AttachVgpu(domain="win1", type=names.small),),
        arrange=vanished,
        starts="win1",
        needs_desktops=True,
    ),
    "cut": Scenario(edit=lambda names: ApplyDocuments(documents=on_instances(names)), hosts=MIG),
    "cut anew": Scenario(
        before=lambda names: (SetMig(gpu=FIRST, mig=MigWish(profiles=(("2g.12gb", 2),))),),
        edit=lambda names: SetMig(gpu=FIRST, mig=MigWish(profiles=(("1g.6gb", 4),))),
        hosts=MIG,
    ),
    "shared out": Scenario(
        before=lambda names: (SetMig(gpu=FIRST, mig=shared(1)),),
        edit=lambda names: SetMig(gpu=FIRST, mig=shared(2)),
        hosts=MIG,
    ),
    "shared out no longer": Scenario(
        before=lambda names: (SetMig(gpu=FIRST, mig=shared(1)),),
        edit=lambda names: SetMig(gpu=FIRST, mig=MigWish(profiles=(("1g.6gb", 4),))),
        hosts=MIG,
    ),
    "MIG off": Scenario(
        before=lambda names: (SetMig(gpu=FIRST, mig=MigWish(profiles=(("2g.12gb", 2),))),),
        edit=lambda names: SetMig(gpu=FIRST, mig=MigWish(enabled=False)),
        hosts=MIG,
    ),
    "reboot with MIG": Scenario(before=applied(on_instances), arrange=lost_before, hosts=MIG),
    "instance refused": Scenario(
        before=lambda names: (SetMig(gpu=FIRST, mig=MigWish(profiles=(("2g.12gb", 2),))),),
        edit=lambda names: SetMig(gpu=FIRST, mig=MigWish(profiles=(("1g.6gb", 4),))),
        trouble=lambda stage: stage.sim.control("fail", {"what": "nvml-order", "count": 1}) and None,
        hosts=MIG,
    ),
}

CASES = [
    (host, name)
    for host in CARDS
    for name, scenario in SCENARIOS.items()
    if host in scenario.hosts and (TYPES[host].desktops or not scenario.needs_desktops)
]
"""Every scenario on every host where it can be."""

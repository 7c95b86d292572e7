"""What clients ask for: every kind of edit, of names that overlap."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from tests.simulation.settings import FIRST, GPUS, SECOND, Setting
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
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.step import (
    AttachHostdev,
    CreateComputeInstance,
    CreateGpuInstance,
    DestroyComputeInstance,
    DestroyGpuInstance,
    DetachHostdev,
    DisableAutostart,
    RemoveVgpu,
    SetMigMode,
    SetParams,
    SetVfs,
)

MIG_STEPS = (
    SetMigMode.__name__,
    CreateGpuInstance.__name__,
    DestroyGpuInstance.__name__,
    CreateComputeInstance.__name__,
    DestroyComputeInstance.__name__,
)
DOMAINS = ("win1", "win2", "win3")


def any_edit(dice: random.Random, setting: Setting) -> Edit:
    """Something that a client asks for."""
    name, domain, gpu = dice.choice("abc"), dice.choice(DOMAINS), dice.choice(GPUS)
    vgpu_type = dice.choice(setting.types)
    edits: list[Callable[[], Edit]] = [
        lambda: CreateVgpus(type=vgpu_type, name=name),
        lambda: CreateVgpus(type=vgpu_type, name=name, count=dice.randint(2, 4)),
        lambda: DeleteVgpu(vgpu=name),
        lambda: DeleteVgpu(vgpu=f"{name}-1"),
        lambda: ApplyDocuments(documents=(_profile(dice, vgpu_type), VgpuDocument(name=name, profile="p"))),
        lambda: ApplyDocuments(
            documents=(VgpuDocument(name=name, type=vgpu_type),), prune=dice.random() < 0.3
        ),
        lambda: ApplyDocuments(documents=_mixed(dice, setting)),
        lambda: AdoptVgpus(sole_starter=dice.random() < 0.5),
        lambda: RepairDrift(subject=dice.choice((None, name, gpu))),
        PruneVgpus,
        lambda: ReplaceGpu(old=gpu, new=gpu),
    ]
    if setting.desktops:
        edits += [
            lambda: AttachVgpu(domain=domain, type=vgpu_type),
            lambda: AttachVgpu(domain=domain, vgpu=name),
            lambda: DetachVgpu(domain=domain),
            lambda: ApplyDocuments(documents=(_profile(dice, vgpu_type), _desktop(dice, domain, name))),
        ]
    if setting.has_vfs:
        edits.append(lambda: ApplyDocuments(documents=(GpuDocument(name=gpu, vfs=dice.random() < 0.7),)))
    if setting.profiles:
        edits += [lambda: SetMig(gpu=gpu, mig=_mig(dice, setting))] * 4
    return dice.choice(edits)()


def leading_to(step: str, dice: random.Random, setting: Setting) -> Edit | None:
    """Something that comes to steps of that kind, of a GPU on the first; None where most edits do."""
    domain, vgpu_type = dice.choice(DOMAINS), setting.types[0]
    match step:
        case SetVfs.__name__:
            return ApplyDocuments(documents=(GpuDocument(name=FIRST, vfs=dice.random() < 0.5),))
        case SetMigMode.__name__:
            return SetMig(gpu=FIRST, mig=MigWish(enabled=dice.random() < 0.5))
        case CreateGpuInstance.__name__ | DestroyGpuInstance.__name__:
            small, big = setting.profiles
            layout = dice.choice((((small, 4),), ((big, 2),), ((small, 2),), ((big, 1),)))
            return SetMig(gpu=FIRST, mig=MigWish(profiles=layout))
        case CreateComputeInstance.__name__ | DestroyComputeInstance.__name__:
            return SetMig(gpu=FIRST, mig=dice.choice(_shared_out(setting)))
        case SetParams.__name__:
            params = (("frame_rate_limiter", str(dice.randint(0, 9))),)
            profile = ProfileDocument(name="p", types=(vgpu_type,), params=params)
            return ApplyDocuments(documents=(profile, VgpuDocument(name="b", profile="p")))
        case AttachHostdev.__name__:
            return AttachVgpu(domain=domain, type=vgpu_type)
        case DetachHostdev.__name__:
            return DetachVgpu(domain=domain)
        case DisableAutostart.__name__:
            return AdoptVgpus(sole_starter=True)
        case RemoveVgpu.__name__:
            name = dice.choice("ab")
            return dice.choice((DeleteVgpu(vgpu=name), CreateVgpus(type=vgpu_type, name=name)))
        case _:
            return None


def first_edits(step: str, dice: random.Random, setting: Setting) -> list[Edit]:
    """What was wished before the troubles began.

    Where the seed aims at a change of a whole GPU, the first one is for that, and the second carries vGPUs.
    """
    if step in (SetVfs.__name__, *MIG_STEPS):
        first: list[Edit] = []
        if setting.profiles:
            first.append(SetMig(gpu=SECOND, mig=MigWish(profiles=((setting.profiles[0], 4),))))
        if step == CreateGpuInstance.__name__:
            first.append(SetMig(gpu=FIRST, mig=MigWish()))
        elif step == DestroyComputeInstance.__name__:
            first.append(SetMig(gpu=FIRST, mig=_shared_out(setting)[0]))
        elif step == DestroyGpuInstance.__name__:
            first.append(SetMig(gpu=FIRST, mig=MigWish(profiles=((setting.profiles[1], 2),))))
        own = CreateVgpus(type=setting.types[0], name="a", gpu=SECOND)
        desktop = AttachVgpu(domain="win2", type=setting.types[0], gpu=SECOND)
        return [*first, own, *([desktop] if setting.desktops else [])]
    edits: list[Edit] = [
        ApplyDocuments(documents=(GpuDocument(name=each),)) for each in GPUS if setting.has_vfs
    ]
    if setting.profiles and dice.random() < 0.7:
        edits = [SetMig(gpu=each, mig=_mig(dice, setting)) for each in GPUS]
    edits.append(ApplyDocuments(documents=_mixed(dice, setting)))
    if setting.desktops:
        edits.append(AttachVgpu(domain="win2", type=dice.choice(setting.types)))
    return edits


def _profile(dice: random.Random, vgpu_type: str) -> ProfileDocument:
    params = (("frame_rate_limiter", "0"),) if dice.random() < 0.5 else ()
    return ProfileDocument(name="p", types=(vgpu_type,), params=params)


def _desktop(dice: random.Random, domain: str, name: str) -> DesktopDocument:
    own = DesktopVgpu(name=domain, profile="p")
    return DesktopDocument(
        name=domain, vgpus=(own if dice.random() < 0.5 else DesktopVgpu(name=name, vgpu=name),)
    )


def _mixed(dice: random.Random, setting: Setting) -> tuple[Document, ...]:
    """A vGPU for itself, one of a profile with parameters, a desktop's."""
    first, second = dice.choice(setting.types), dice.choice(setting.types)
    documents: tuple[Document, ...] = (
        VgpuDocument(name="a", type=first),
        VgpuDocument(name="b", profile="p"),
        _profile(dice, second),
    )
    if setting.desktops:
        documents += (DesktopDocument(name="win1", vgpus=(DesktopVgpu(name="a", vgpu="a"),)),)
    return documents


def _shared_out(setting: Setting) -> tuple[MigWish, ...]:
    """Layouts with compute instances, one and two of the same profile."""
    _, big = setting.profiles
    first, second = GiPlace(0, big), GiPlace(2, big)
    half = ComputeWish(first, ((f"1c.{big}", 1),))
    both = replace(half, counts=((f"1c.{big}", 2),))
    return (
        MigWish(instances=(first, second), compute=(half,)),
        MigWish(instances=(first,), compute=(both,)),
    )


def _mig(dice: random.Random, setting: Setting) -> MigWish:
    small, big = setting.profiles
    return dice.choice(
        (
            MigWish(),
            MigWish(profiles=((small, 4),)),
            MigWish(profiles=((small, 2), (big, 1))),
            MigWish(profiles=((big, 2),)),
            MigWish(vgpus=((setting.types[0], 2),)),
            *_shared_out(setting),
            MigWish(enabled=False),
        )
    )

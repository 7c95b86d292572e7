"""What differs, from documents, places and a snapshot: one host each, one state each, and none unread."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from tests.support.builders import (
    CATALOG,
    HYPERVISOR,
    NOW,
    created,
    make_domain,
    make_gpu,
    make_snapshot,
    make_wishes,
    plan_of,
    vgpu,
    with_vgpu,
)
from vgpuctl.model.allocation import Allocation, GpuIdentity
from vgpuctl.model.document import DesktopDocument, DesktopVgpu, GpuDocument, MigWish, Repair
from vgpuctl.model.domain import Hostdev, MdevSource, PciSource, alias_for
from vgpuctl.model.drift import findings, is_unasked, policy_of
from vgpuctl.model.fact import Unknown
from vgpuctl.model.finding import MEANINGS, Drift, Finding
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import FrameworkKind, Gpu, GpuInstance, GpuState, Holder
from vgpuctl.model.mdevctl import MdevDefinition, parse, started_by_hand
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import AttachHostdev, DetachHostdev

ID = UUID(int=7)


def place(gpu: Gpu, name: str = "a", *, parent: int = 0, **fields: object) -> Allocation:
    """A place for an L40S-8Q on a VF, made in this boot."""
    assert gpu.framework is not None
    allocation = Allocation(
        id=ID,
        name=name,
        type_name="L40S-8Q",
        type_id=gpu.type_named("L40S-8Q").type_id,  # type: ignore[union-attr]
        fb_mib=8192,
        gpu=GpuIdentity(address=gpu.address, device=gpu.device, uuid=str(gpu.uuid)),
        framework=gpu.framework,
        parent=gpu.vfs[parent].address,
        params=None,
        created_at=NOW,
    )
    return replace(created(allocation), **fields)  # type: ignore[arg-type]


def found(
    snapshot: Snapshot, *documents: object, places: tuple[Allocation, ...], host: Repair = Repair.AUTO
) -> list[tuple[Drift, str, Repair]]:
    wishes = make_wishes(*documents)  # type: ignore[arg-type]
    seen = findings(snapshot, wishes, {each.id: each for each in places}, host, CATALOG)
    return [(each.code, each.subject, each.repair) for each in seen]


A = vgpu("a", "L40S-8Q")


def test_what_is_as_it_should_be_is_no_drift():
    gpu = with_vgpu(make_gpu(), "L40S-8Q", uuid=ID)
    assert found(make_snapshot(gpu), A, places=(place(make_gpu()),)) == []


@pytest.mark.parametrize(
    ("change", "code", "repair"),
    [
        ({"vfs": make_gpu().vfs[1:]}, Drift.VF_GONE, Repair.AUTO),
        ({"state": GpuState.VFS_OFF, "vfs": (), "framework": None}, Drift.DRIVER_RELOADED, Repair.ASK),
        ({"state": GpuState.NO_TYPES}, Drift.GPU_NOT_READY, Repair.NEVER),
        ({"state": GpuState.PARKED}, Drift.GPU_NOT_READY, Repair.NEVER),
        ({"state": GpuState.NO_DRIVER}, Drift.GPU_NOT_READY, Repair.NEVER),
        ({"state": GpuState.PASSED_THROUGH}, Drift.GPU_NOT_READY, Repair.NEVER),
        ({"state": GpuState.UNREADABLE}, Drift.GPU_UNREADABLE, Repair.NEVER),
        ({"uuid": "GPU-other"}, Drift.CARD_CHANGED, Repair.NEVER),
        ({"address": make_gpu(index=3).address}, Drift.CARD_MOVED, Repair.AUTO),
        ({}, Drift.VGPU_VANISHED, Repair.AUTO),
    ],
)
def test_one_state_for_one_cause(change: dict[str, object], code: Drift, repair: Repair):
    """Of a GPU that is in the way, that alone is told, and not each of its vGPUs too."""
    gpu = replace(make_gpu(), **change)
    ((what, _, done),) = found(make_snapshot(gpu), A, places=(place(make_gpu()),))
    assert (what, done) == (code, repair)


def test_a_gpu_that_is_gone_and_one_that_only_a_document_names():
    place_ = place(make_gpu())
    assert found(make_snapshot(), A, places=(place_,)) == [
        (Drift.GPU_GONE, str(place_.gpu.address), Repair.NEVER)
    ]
    document = GpuDocument(name="0000:99:00.0", repair=Repair.ASK)
    assert found(make_snapshot(make_gpu()), document, places=()) == [
        (Drift.GPU_GONE, "0000:99:00.0", Repair.NEVER)
    ]


def test_vfs_that_are_not_as_their_document_says():
    gpu = make_gpu(vfs=0)
    name = str(gpu.address)
    on, off = GpuDocument(name=name), GpuDocument(name=name, vfs=False)
    as_it_is = GpuDocument(name=name, vfs=None)
    expected = [(Drift.VFS_DIFFER, name, Repair.AUTO)]
    assert found(make_snapshot(gpu), on, places=()) == expected
    assert found(make_snapshot(gpu), on, places=(), host=Repair.ASK) == expected, "as after a boot"
    assert found(make_snapshot(gpu), replace(on, repair=Repair.NEVER), places=()) == [
        (Drift.VFS_DIFFER, name, Repair.NEVER)
    ]
    assert found(make_snapshot(make_gpu()), off, places=()) == [(Drift.VFS_DIFFER, name, Repair.ASK)]
    for gpu_, documents in ((gpu, (off,)), (gpu, (as_it_is,)), (make_gpu(), (on,)), (make_gpu(), ())):
        assert found(make_snapshot(gpu_), *documents, places=()) == []
    lost = replace(gpu, state=GpuState.VFS_OFF)
    assert found(make_snapshot(lost), on, A, places=(place(make_gpu()),)) == [
        (Drift.DRIVER_RELOADED, name, Repair.ASK)
    ], "told once"


def test_mig_mode_that_is_not_as_its_document_says():
    """What is mended unasked needs no reset, and nothing of ours was made on the card since the boot."""
    lost = make_gpu("h100", vfs=0)
    name = str(lost.address)
    on = GpuDocument(name=name, vfs=None, mig=MigWish())
    off = GpuDocument(name=name, vfs=None, mig=MigWish(enabled=False))

    def told(gpu: Gpu, document: GpuDocument, *places: Allocation, host: Repair = Repair.AUTO):
        return found(make_snapshot(gpu), document, places=places, host=host)

    def differs(repair: Repair) -> list[tuple[Drift, str, Repair]]:
        return [(Drift.MIG_MODE_DIFFERS, name, repair)]

    assert told(lost, on) == told(lost, on, host=Repair.ASK) == differs(Repair.AUTO), "as after a boot"
    assert told(lost, on, host=Repair.NEVER) == differs(Repair.NEVER)
    assert told(replace(lost, mig=True), off) == differs(Repair.ASK)
    assert told(make_gpu("h100"), on) == differs(Repair.ASK), "its VFs are on"
    ampere = make_gpu("a100-80", vfs=0)
    assert told(ampere, on) == differs(Repair.ASK), "that resets it"
    unread = replace(lost, mig=Unknown("NVML"))
    for gpu, document in ((replace(lost, mig=True), on), (lost, off), (unread, on)):
        assert told(gpu, document) == []


def test_mig_mode_is_never_changed_under_somebody():
    gpu = make_gpu("a100-80")
    name = str(gpu.address)
    on = GpuDocument(name=name, mig=MigWish())
    held = replace(gpu, holders=(Holder(7, "nv-hostengine"),))
    unread = replace(gpu, holders=Unknown("no permission"))
    for used in (with_vgpu(gpu, "A100D-10C"), held, unread):
        codes = dict.fromkeys(found(make_snapshot(used), on, places=()))
        assert (Drift.MIG_MODE_DIFFERS, name, Repair.NEVER) in codes


def test_gpu_instances_that_are_not_as_their_document_says():
    small, big = (GpuInstance(id=n, profile=f"{n}g", profile_id=n, start=n, size=n) for n in (1, 2))
    gpu = replace(make_gpu("a100-80"), mig=True, gpu_instances=(small, big))
    name = str(gpu.address)
    for wish, repair in (
        (MigWish(profiles=(("1g", 1), ("2g", 1))), None),
        (MigWish(profiles=(("1g", 2), ("2g", 1))), Repair.AUTO),
        (MigWish(profiles=(("1g", 2),)), Repair.ASK),
        (MigWish(instances=(small.place, big.place)), None),
        (MigWish(instances=(small.place,)), Repair.ASK),
        (MigWish(instances=(small.place, big.place, GiPlace(6, "1g"))), Repair.AUTO),
        (MigWish(), None),
    ):
        expected = [(Drift.GPU_INSTANCES_DIFFER, name, repair)] if repair is not None else []
        assert found(make_snapshot(gpu), GpuDocument(name=name, mig=wish), places=()) == expected


def test_what_cannot_be_read_is_no_drift():
    """The UUIDs, libvirt, what stands on the VF: UNKNOWN is neither gone nor changed."""
    gpu = make_gpu(framework=FrameworkKind.VENDOR_VFIO)
    ours = place(gpu)
    unread = with_vgpu(gpu, "L40S-8Q")
    unread = replace(unread, uuid=Unknown("NVML"), vgpus=(replace(unread.vgpus[0], type_id=Unknown("EIO")),))
    desktop = DesktopDocument(name="win1", vgpus=(DesktopVgpu(name="a", type="L40S-8Q"),))
    snapshot = replace(make_snapshot(unread), domains=Unknown("libvirt"), hypervisor=Unknown("libvirt"))
    assert found(snapshot, desktop, GpuDocument(name="GPU-x"), places=(ours,)) == []


def test_not_made_in_this_boot_is_another_state_than_vanished():
    gpu = make_gpu()
    assert found(make_snapshot(gpu), A, places=(place(gpu, created_boot="boot-0"),)) == [
        (Drift.NOT_MADE, "a", Repair.AUTO)
    ]
    assert found(make_snapshot(gpu), A, places=()) == [(Drift.NOT_MADE, "a", Repair.AUTO)]


def test_policies():
    gpu = make_gpu()
    ours, lost = place(gpu), place(gpu, created_boot="boot-0")
    for document in (str(gpu.address), str(gpu.uuid), str(gpu.uuid).upper()):
        wishes = make_wishes(GpuDocument(name=document, vfs=None, repair=Repair.NEVER))
        assert policy_of(ours.gpu, wishes, Repair.AUTO) is Repair.NEVER
        assert policy_of(None, wishes, Repair.AUTO) is Repair.AUTO
    snapshot = make_snapshot(gpu)
    table = {
        (repair, each is lost): is_unasked(each, snapshot, repair)
        for repair in Repair
        for each in (ours, lost)
    }
    assert [key for key, value in table.items() if value] == [
        (Repair.AUTO, False),
        (Repair.AUTO, True),
        (Repair.ASK, True),
    ]
    assert not is_unasked(None, snapshot, Repair.ASK)
    assert found(snapshot, A, places=(lost,), host=Repair.ASK) == [(Drift.NOT_MADE, "a", Repair.AUTO)]
    assert found(snapshot, A, places=(ours,), host=Repair.ASK) == [(Drift.VGPU_VANISHED, "a", Repair.ASK)]


@pytest.mark.parametrize(
    ("hostdevs", "codes"),
    [
        ({"win1": "right"}, []),
        ({"win1": "managed"}, [Drift.HOSTDEV_CHANGED]),
        ({"win1": "moved"}, [Drift.HOSTDEV_CHANGED]),
        ({}, [Drift.HOSTDEV_MISSING]),
        ({"win1": "right", "win2": "right"}, [Drift.HOSTDEV_STRAY]),
        ({"win1": "right", "win2": "nameless"}, [Drift.HOSTDEV_FOREIGN]),
        ({"win1": "nameless"}, []),
        ({"win1": "right", "win2": "unknown"}, [Drift.HOSTDEV_UNOWNED]),
        ({"win1": "right", "gone": ""}, [Drift.DOMAIN_GONE]),
    ],
)
def test_xml(hostdevs: dict[str, str], codes: list[Drift]):
    """A vendor-VFIO vGPU that libvirt manages is unbound from nvidia at the next start: `managed` counts."""
    gpu = with_vgpu(make_gpu(framework=FrameworkKind.VENDOR_VFIO), "L40S-8Q")
    ours = place(gpu)
    assert ours.parent is not None
    right = Hostdev(PciSource(gpu.vfs[0].address), alias_for(ID))
    kinds = {
        "right": right,
        "managed": replace(right, managed=True),
        "moved": replace(right, source=PciSource(gpu.vfs[5].address)),
        "nameless": replace(right, alias=None),
        "unknown": Hostdev(MdevSource(UUID(int=99)), alias_for(UUID(int=99))),
    }
    domains = tuple(
        make_domain(name, config=(kinds[hostdevs[name]],) if hostdevs.get(name) else ())
        for name in ("win1", "win2")
    )
    owner = "gone" if "gone" in hostdevs else "win1"
    desktop = DesktopDocument(name=owner, vgpus=(DesktopVgpu(name="a", type="L40S-8Q"),))
    snapshot = make_snapshot(gpu, domains=domains)
    seen = [each for each, _, _ in found(snapshot, desktop, places=(ours,))]
    if owner == "gone":
        seen.remove(Drift.HOSTDEV_STRAY)
    assert seen == codes


def test_a_guest_that_cannot_take_it_while_it_runs_is_as_it_should_be():
    gpu = with_vgpu(make_gpu(), "L40S-8Q", uuid=ID)
    right = Hostdev(MdevSource(ID), alias_for(ID))
    desktop = DesktopDocument(name="win1", vgpus=(DesktopVgpu(name="a", type="L40S-8Q"),))
    snapshot = make_snapshot(gpu, domains=(make_domain("win1", running=True, config=(right,)),))
    assert found(snapshot, desktop, places=(place(gpu),)) == [(Drift.HOSTDEV_MISSING, "a", Repair.ASK)]
    no_live = replace(snapshot, hypervisor=replace(HYPERVISOR, can_attach_live=False))
    assert found(no_live, desktop, places=(place(gpu),)) == []


def test_mdevctl():
    gpu = make_gpu()
    definition = MdevDefinition(ID, str(gpu.vfs[0].address), "nvidia-1152", autostart=True)
    absent = replace(make_snapshot(gpu), definitions=(definition,))
    assert found(absent, A, places=(place(gpu),)) == [(Drift.LEFT_TO_MDEVCTL, "a", Repair.ASK)]
    there = replace(make_snapshot(with_vgpu(gpu, "L40S-8Q", uuid=ID)), definitions=(definition,))
    assert found(there, A, places=(place(gpu),)) == []
    alone = replace(A, sole_starter=True)
    assert found(there, alone, places=(place(gpu),)) == [(Drift.ALSO_AUTOSTARTED, "a", Repair.ASK)]
    by_hand = replace(there, definitions=(replace(definition, autostart=False),))
    assert found(by_hand, alone, places=(place(gpu),)) == []


def test_a_vf_that_mdevctl_is_about_to_fill_is_kept_off():
    """At boot both come at once: what we took first, mdevctl could not start any more."""
    gpu = make_gpu(vfs=2)
    promised = MdevDefinition(UUID(int=99), str(gpu.vfs[0].address), "nvidia-1152", autostart=True)
    snapshot = replace(make_snapshot(gpu), definitions=(promised,))
    (step,) = plan_of(snapshot, make_wishes(A)).steps
    assert step.effect.parent == gpu.vfs[1].address  # type: ignore[union-attr]
    by_hand = replace(snapshot, definitions=(replace(promised, autostart=False),))
    (step,) = plan_of(by_hand, make_wishes(A)).steps
    assert step.effect.parent == gpu.vfs[0].address  # type: ignore[union-attr]
    ours = place(gpu, created_boot=None)
    own = replace(snapshot, definitions=(replace(promised, uuid=ID),))
    (step,) = plan_of(own, make_wishes(A), (ours,)).steps
    assert step.effect.parent == gpu.vfs[0].address  # type: ignore[union-attr]


def test_a_hostdev_that_libvirt_manages_is_made_anew():
    gpu = with_vgpu(make_gpu(framework=FrameworkKind.VENDOR_VFIO), "L40S-8Q")
    right = Hostdev(PciSource(gpu.vfs[0].address), alias_for(ID))
    desktop = DesktopDocument(name="win1", vgpus=(DesktopVgpu(name="a", type="L40S-8Q"),))

    def steps(hostdev: Hostdev) -> list[tuple[type, Hostdev]]:
        snapshot = make_snapshot(gpu, domains=(make_domain("win1", config=(hostdev,)),))
        made = plan_of(snapshot, make_wishes(desktop), (place(gpu),)).steps
        return [(type(each.effect), each.effect.hostdev) for each in made]  # type: ignore[union-attr]

    managed = replace(right, managed=True)
    assert steps(right) == []
    assert steps(managed) == [(DetachHostdev, managed), (AttachHostdev, right)]
    assert steps(replace(managed, alias=None)) == [], "what somebody else put in stays as it stands"


def test_the_text_of_a_definition_keeps_what_it_has_beside_the_start():
    text = '{"mdev_type": "nvidia-558", "start": "auto", "attrs": [{"a": "1"}], "x": 2}'
    assert parse("p", ID, text).autostart
    changed = started_by_hand(text)
    assert not parse("p", ID, changed).autostart
    assert changed.splitlines()[1:3] == ['  "mdev_type": "nvidia-558",', '  "start": "manual",']
    assert '"x": 2' in changed
    for wrong in ("[]", "x", ""):
        with pytest.raises(ValueError):
            parse("p", ID, wrong)


def test_every_state_has_a_meaning_and_its_advice_names_what_it_is_about():
    assert set(MEANINGS) == set(Drift)
    for code in Drift:
        finding = Finding(code=code, subject="win1", detail="", repair=Repair.NEVER, gpu="0000:41:00.0")
        assert not set("{}") & set(finding.hint)
    moved = Finding(code=Drift.CARD_MOVED, subject="GPU-1", detail="", repair=Repair.AUTO, gpu="0000:41:00.0")
    assert moved.hint == "its vGPUs follow it; `vgpuctl repair 0000:41:00.0`"
    left_alone = replace(moved, repair=Repair.NEVER)
    assert left_alone.hint == "`vgpuctl repair 0000:41:00.0`", "nothing is promised that the policy forbids"

"""Resources with exactly the fields of `vgpuctl.surface`, for a small made-up host."""

from __future__ import annotations

from typing import Any

from vgpuctl import surface
from vgpuctl.surface import Resource

Item = dict[str, Any]


def make(resource: Resource, **given: Any) -> Item:
    """A resource: what is given, and for every other field something of its kind."""
    names = {each.name for each in resource.fields}
    assert given.keys() <= names, given.keys() - names
    return {each.name: given.get(each.name, _default(each)) for each in resource.fields}


def _default(field: surface.Field) -> Any:
    if field.nullable:
        return None
    if field.kind.startswith("["):
        return []
    return {"integer": 0, "boolean": False, "object": {}}.get(field.kind, "")


VANISHED = {
    "code": "vgpu-vanished",
    "subject": "cad-1",
    "gpu": "0000:41:00.0",
    "repair": "ask",
    "since": "2026-11-01T12:00:00.000Z",
    "detail": "it stood on 0000:41:00.6, and somebody removed it",
    "hint": "`vgpuctl repair cad-1` shows what mends it, and does it",
    "steps": ["create vGPU cad-1 (L40S-8Q) on 0000:41:00.6"],
}

HOST = make(
    surface.HOST,
    hostname="hv-07",
    kernel="6.8.0-57-generic",
    boot_id="0c0ffee0-0000-4000-8000-000000000001",
    libvirt_uri="qemu:///system",
    libvirt_version="11.3.0",
    hook="live",
    revision=412,
    gpus=3,
    vgpus=3,
    version="0.1.0",
    problems=[
        {
            "subject": "0000:c1:00.0",
            "code": "gpu-state",
            "detail": "the PF is on pci-pf-stub",
            "hint": "unbind it",
        }
    ],
    repair="ask",
    drift=[VANISHED],
    unknown={"driver_version": "NVML does not answer"},
)

L40S = make(
    surface.GPU,
    index=0,
    address="0000:41:00.0",
    uuid="GPU-11111111-1111-4111-8111-111111111111",
    model="NVIDIA L40S",
    state="ready",
    framework="vendor-vfio",
    numa_node=0,
    fb_mib=49152,
    fb_used_mib=24576,
    vfs_max=32,
    vfs_enabled=32,
    vgpus=2,
    mig=False,
    mixed_size=False,
    driver="nvidia",
    repair="ask",
    drift=[VANISHED],
    device_id="10de:26b9/10de:1851",
    creatable=["L40S-8A", "L40S-8Q"],
    allocated=[
        {
            "name": "win11-042",
            "type": "L40S-8Q",
            "fb_mib": 8192,
            "vf": "0000:41:00.4",
            "state": "present",
            "owner": "anna",
            "domain": "win11-042",
        },
        {
            "name": "0000:41:00.5",
            "type": "L40S-8Q",
            "fb_mib": 8192,
            "vf": "0000:41:00.5",
            "state": "foreign",
            "owner": None,
            "domain": None,
        },
        {
            "name": "cad-1",
            "type": "L40S-8Q",
            "fb_mib": 8192,
            "vf": "0000:41:00.6",
            "state": "reserved",
            "owner": "ben",
            "domain": "cad-ws-1",
        },
    ],
)

T4 = make(
    surface.GPU,
    index=1,
    address="0000:61:00.0",
    uuid="GPU-22222222-2222-4222-8222-222222222222",
    model="Tesla T4",
    state="ready",
    framework="mdev",
    numa_node=1,
    fb_mib=16384,
    vgpus=0,
    mig=None,
    driver="nvidia",
    device_id="10de:1eb8/10de:12a2",
    creatable=["T4-1B", "T4-4Q", "T4-16Q"],
)

STUBBED = make(
    surface.GPU,
    index=2,
    address="0000:c1:00.0",
    model="NVIDIA A100 80GB PCIe",
    state="parked",
    state_reason="the PF is on pci-pf-stub since sriov-manage was interrupted",
    driver="pci-pf-stub",
    device_id="10de:20b5/10de:1533",
    notes=["known by its last record"],
    unknown={
        "uuid": "NVML does not know it",
        "fb_mib": "NVML does not know it",
        "mig": "NVML does not know it",
    },
)

GPUS = [L40S, T4, STUBBED]

VGPU = make(
    surface.VGPU,
    name="win11-042",
    uuid="aaaaaaaa-0000-4000-8000-000000000001",
    type="L40S-8Q",
    profile="designer",
    gpu="0000:41:00.0",
    gpu_uuid=L40S["uuid"],
    vf="0000:41:00.4",
    framework="vendor-vfio",
    state="present",
    domain="win11-042",
    attached=["live", "config"],
    owner="anna",
    created_at="2026-11-09T10:11:12.000Z",
    fb_mib=8192,
    params="frame_rate_limiter=0",
    holders=[{"pid": 4711, "command": "qemu-system-x86", "domain": "win11-042"}],
)

ABSENT = make(
    surface.VGPU,
    name="cad-1",
    uuid="aaaaaaaa-0000-4000-8000-000000000002",
    type="L40S-8Q",
    gpu="0000:41:00.0",
    state="absent",
    problem={
        "subject": "cad-1",
        "code": "no-capacity",
        "detail": "no L40S-8Q fits",
        "hint": "delete one, or wait",
    },
    drift=[VANISHED],
)

FOREIGN = make(
    surface.VGPU,
    name="0000:41:00.5",
    gpu="0000:41:00.0",
    vf="0000:41:00.5",
    framework="vendor-vfio",
    state="foreign",
    seen_since="2026-11-01T12:00:00.000Z",
    last_user="win7",
    drift=[
        {
            "code": "foreign-vgpu",
            "subject": "0000:41:00.5",
            "gpu": "0000:41:00.0",
            "repair": "never",
            "since": "2026-11-01T12:00:00.000Z",
            "detail": "a vGPU of unknown type on 0000:41:00.5 that vgpuctl did not make",
            "hint": "`vgpuctl vgpu list --foreign`, `vgpuctl adopt`",
            "steps": [],
        }
    ],
    unknown={"type": "EIO", "holders": "/proc/812/fd is not readable"},
)

VGPUS = [VGPU, ABSENT, FOREIGN]

TYPES = [
    make(
        surface.TYPE,
        name="L40S-8Q",
        type_id=1155,
        gpu="0000:41:00.0",
        model="NVIDIA L40S",
        kind="time-sliced",
        fb_mib=8192,
        max_per_gpu=6,
        creatable=3,
        heads=4,
        max_resolution="7680x4320",
        licence="NVIDIA RTX vWS",
        raw_name="NVIDIA L40S-8Q",
    ),
    make(
        surface.TYPE,
        name="L40S-48Q",
        type_id=1160,
        gpu="0000:41:00.0",
        model="NVIDIA L40S",
        kind="time-sliced",
        fb_mib=49152,
        max_per_gpu=1,
        creatable=0,
        raw_name="NVIDIA L40S-48Q",
        why_not="8 GiB vGPUs occupy the card, and all have one size",
    ),
]

PROFILES = [
    make(
        surface.PROFILE,
        name="designer",
        description="CAD and 3D work, on one or two 4K displays",
        types=["L40S-8Q", "A40-8Q", "T4-8Q"],
        placement={"policy": "pack", "numa": "prefer"},
        params={"frame_rate_limiter": "0"},
        source="file",
        creatable="L40S-8Q",
    ),
    make(surface.PROFILE, name="office", description="Knowledge work", types=["T4-1B"], source="document"),
]

DOMAINS = [
    make(
        surface.DOMAIN,
        name="win11-042",
        uuid="dddddddd-0000-4000-8000-000000000042",
        state="running",
        vgpus=[
            {
                "name": "win11-042",
                "uuid": VGPU["uuid"],
                "type": "L40S-8Q",
                "gpu": "0000:41:00.0",
                "vf": "0000:41:00.4",
                "state": "present",
                "attached": ["live", "config"],
            }
        ],
        hostdevs=[
            {
                "source": "0000:41:00.4",
                "alias": f"ua-vgpuctl-{VGPU['uuid']}",
                "where": ["live", "config"],
                "vgpu": "win11-042",
            }
        ],
    ),
    make(surface.DOMAIN, name="cad-ws-1", uuid="dddddddd-0000-4000-8000-000000000043", state="shut-off"),
]

DOCUMENTS = [
    {"apiVersion": "vgpuctl/v1", "kind": "Gpu", "name": "0000:41:00.0", "vfs": True},
    {"apiVersion": "vgpuctl/v1", "kind": "Desktop", "name": "win11-042", "vgpus": [{"profile": "designer"}]},
]

STEPS = [
    make(
        surface.STEP,
        number=1,
        action="create-vgpu",
        summary="create vGPU cad-1 (L40S-8Q) on 0000:41:00.6",
        reason="Vgpu/cad-1 wants it and nothing is there",
        lane="gpu/0000:41:00.0",
        round=1,
        state="planned",
    ),
    make(
        surface.STEP,
        number=2,
        action="attach-hostdev",
        summary="attach vGPU cad-1 to domain win11-042 (config and live)",
        reason="Desktop/win11-042 names it",
        lane="domain/win11-042",
        needs=[1],
        touches=["win11-042"],
        round=1,
        state="planned",
    ),
]

MATCH = make(surface.PLAN, id="p-0", revision=412, verdict="match")

QUIET = make(
    surface.PLAN,
    id="p-1",
    revision=412,
    verdict="drift",
    steps=STEPS[:1],
    changes=[
        {
            "key": "Vgpu/cad-1",
            "before": None,
            "after": {"apiVersion": "vgpuctl/v1", "kind": "Vgpu", "name": "cad-1", "type": "L40S-8Q"},
        }
    ],
    vgpus=[{"name": "cad-1", "type": "L40S-8Q", "gpu": "0000:41:00.0", "vf": "0000:41:00.6"}],
)

TOUCHING = make(
    surface.PLAN,
    id="p-2",
    revision=412,
    verdict="drift",
    steps=STEPS,
    changes=[
        QUIET["changes"][0],
        {"key": "Gpu/0000:41:00.0", "before": {"vfs": False}, "after": {"vfs": True}},
        {"key": "Vgpu/old", "before": {"type": "T4-4Q"}, "after": None},
    ],
    touches=["win11-042"],
    incomplete=True,
)

REFUSED = make(
    surface.PLAN,
    **{name: value for name, value in TOUCHING.items() if name != "problems"},
    problems=[
        {
            "subject": "cad-2",
            "code": "no-capacity",
            "detail": "no T4-16Q fits: 0000:61:00.0 is full",
            "hint": "T4-4Q would fit",
        }
    ],
)
"""A plan with a problem: the daemon shows it, and runs none of it."""

UNREADABLE = make(
    surface.PLAN,
    id="p-3",
    revision=412,
    verdict="unknown",
    problems=[
        {"subject": "cad-1", "code": "fact-unknown", "detail": "who holds it cannot be read", "hint": None}
    ],
)

OPERATION_ID = "00000000-0000-4000-8000-00000000000a"


def operation(state: str = "succeeded", **given: Any) -> Item:
    ended = None if state in ("running", "rolling-back") else "2026-11-09T10:11:13.000Z"
    return make(
        surface.OPERATION,
        **{
            "id": OPERATION_ID,
            "kind": "create",
            "subject": "cad-1",
            "state": state,
            "requester": {"uid": 0, "pid": 99, "name": "root"},
            "started_at": "2026-11-09T10:11:12.000Z",
            "ended_at": ended,
            "steps_done": 1 if state == "succeeded" else 0,
            "steps_total": 1,
            "steps": [{**STEPS[0], "state": "done" if state == "succeeded" else "running"}],
            "result": {"vgpus": ["win11-042"], "documents": ["Vgpu/win11-042"]},
            **given,
        },
    )


EVENTS = [
    make(
        surface.EVENT,
        revision=411,
        at="2026-11-09T10:11:12.000Z",
        kind="operation-started",
        subject="cad-1",
        summary="create admitted for root",
        operation=OPERATION_ID,
    ),
    make(
        surface.EVENT,
        revision=412,
        at="2026-11-09T10:11:12.345Z",
        kind="noticed",
        subject="0000:41:00.5",
        summary="somebody else made a vGPU",
    ),
]


def reads() -> dict[tuple[str, str], Any]:
    """Answers of every route that only reads."""
    return {
        ("GET", "/v1/host"): HOST,
        ("GET", "/v1/host/capture"): {"format": "vgpuctl-capture/1", "tree": {}},
        ("GET", "/v1/gpus"): GPUS,
        **{("GET", f"/v1/gpus/{each['index']}"): each for each in GPUS},
        **{("GET", f"/v1/gpus/{each['address']}"): each for each in GPUS},
        ("GET", "/v1/types"): TYPES,
        ("GET", "/v1/profiles"): PROFILES,
        ("GET", "/v1/profiles/designer"): PROFILES[0],
        ("GET", "/v1/vgpus"): VGPUS,
        **{("GET", f"/v1/vgpus/{each['name']}"): each for each in VGPUS},
        ("GET", "/v1/domains"): DOMAINS,
        **{("GET", f"/v1/domains/{each['name']}"): each for each in DOMAINS},
        ("GET", "/v1/domains/win11-042/xml"): {"xml": "<domain type='kvm'>\n</domain>\n"},
        ("GET", "/v1/documents"): DOCUMENTS,
        ("GET", "/v1/operations"): [operation()],
        ("GET", f"/v1/operations/{OPERATION_ID}"): operation(),
        ("GET", "/v1/events"): EVENTS,
    }


def changes(plan: Item = QUIET, **given: Any) -> dict[tuple[str, str], Any]:
    """Answers of the routes that change, too: `plan` is shown, and every operation succeeds at once."""
    return {
        **reads(),
        ("POST", "/v1/plans"): plan,
        ("POST", "/v1/operations"): operation(**given),
        ("POST", f"/v1/operations/{OPERATION_ID}/cancel"): operation("cancelled"),
        ("POST", "/v1/pause"): {**HOST, "paused": True},
        ("POST", "/v1/resume"): HOST,
    }

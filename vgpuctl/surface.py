"""The public surface in one table: resources with their fields, and routes.

The API's schema, the CLI's columns, the views of the service and the reference documentation all
follow from it.  Standard library only: the CLI loads it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a resource.

    `kind` is a JSON type: string, integer, boolean, time (RFC 3339), uuid, object, or `[kind]` for a
    list, or the name of another resource.  A field that may be null is `nullable`; null with the
    field's name under `unknown` means that it could not be read.  `column` is the heading under which
    tables show it, `wide` that only `-o wide` does, `spare` that a terminal may be too narrow for it.
    """

    name: str
    kind: str
    doc: str
    nullable: bool = False
    column: str | None = None
    wide: bool = False
    spare: bool = False


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of thing that the API shows."""

    name: str
    doc: str
    fields: tuple[Field, ...]

    def columns(self, *, wide: bool = False) -> tuple[Field, ...]:
        """The fields that a table shows."""
        return tuple(each for each in self.fields if each.column and (wide or not each.wide))


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path.  `operate` routes change something; the others only read."""

    method: str
    path: str
    doc: str
    returns: str
    many: bool = False
    operate: bool = False


_DRIFT = Field("drift", "[finding]", "What is not as it should be, by name.", column="DRIFT", wide=True)
_UNKNOWN = Field("unknown", "object", "Fields that could not be read, each with the reason.")

HOST = Resource(
    "host",
    "The hypervisor host.",
    (
        Field("hostname", "string", "The host's name.", column="HOST"),
        Field("kernel", "string", "Kernel release.", column="KERNEL"),
        Field("boot_id", "string", "Changes with every boot."),
        Field("driver_version", "string", "NVIDIA driver version.", nullable=True, column="DRIVER"),
        Field("libvirt_uri", "string", "Where libvirt is.", nullable=True, column="LIBVIRT"),
        Field("libvirt_version", "string", "libvirt's version.", nullable=True, column="VERSION"),
        Field(
            "hook",
            "string",
            "Does libvirt call our hook: live, unseen, not-called, not-installed; null where it calls none.",
            nullable=True,
        ),
        Field("simulated", "boolean", "Whether the GPUs are simulated.", column="SIMULATED"),
        Field("paused", "boolean", "Whether background changes are paused.", column="PAUSED"),
        Field("revision", "integer", "Revision of the log."),
        Field("gpus", "integer", "Number of GPUs.", column="GPUS"),
        Field("vgpus", "integer", "Number of vGPUs that exist.", column="VGPUS"),
        Field("version", "string", "The daemon's version."),
        Field("repair", "string", "What is done about drift: auto, ask or never.", column="REPAIR"),
        Field("problems", "[object]", "What is not as it should be: subject, code, detail, hint."),
        _DRIFT,
        _UNKNOWN,
    ),
)

GPU = Resource(
    "gpu",
    "A physical GPU.",
    (
        Field("index", "integer", "Position by address, from 0.", column="#"),
        Field("address", "string", "PCI address, or the name of the mdev parent.", column="ADDRESS"),
        Field("uuid", "string", "NVML's UUID.", nullable=True, wide=True, column="UUID"),
        Field("model", "string", "The card's name.", column="MODEL"),
        Field("state", "string", "What can be done with it now.", column="STATE"),
        Field("state_reason", "string", "Why it is in that state.", wide=True, column="REASON"),
        Field("framework", "string", "How vGPUs are made on it.", nullable=True, column="FRAMEWORK"),
        Field("numa_node", "integer", "NUMA node.", nullable=True, column="NUMA"),
        Field("fb_mib", "integer", "Frame buffer in MiB.", nullable=True, column="FB_MIB"),
        Field("fb_shared_mib", "integer", "Frame buffer as vGPU profiles share it out.", nullable=True),
        Field("fb_used_mib", "integer", "Sum of the profile sizes of its vGPUs.", column="USED_MIB"),
        Field("vfs_max", "integer", "VFs that it can have.", wide=True, column="VFS_MAX"),
        Field("vfs_enabled", "integer", "VFs that it has now.", column="VFS"),
        Field("vgpus", "integer", "vGPUs that exist on it.", column="VGPUS"),
        Field("mig", "boolean", "Whether MIG mode is on.", nullable=True, wide=True, column="MIG"),
        Field("mig_pending", "boolean", "MIG mode after the next reset.", nullable=True),
        Field("mig_slices", "integer", "Memory slices that GPU instances share out.", nullable=True),
        Field(
            "gpu_instances",
            "[object]",
            "What is cut: id, profile, start, size, compute_instances (names), vgpus.",
            nullable=True,
        ),
        Field("mixed_size", "boolean", "Whether mixed-size mode is on.", nullable=True),
        Field("driver", "string", "Driver of the PF.", nullable=True, wide=True, column="DRIVER"),
        Field("device_id", "string", "PCI ids, vendor:device/subsystem."),
        Field("creatable", "[string]", "Types that one more vGPU could have now.", nullable=True),
        Field(
            "allocated", "[object]", "Who has a place on it: name, type, fb_mib, state, vf, owner, domain."
        ),
        Field("notes", "[string]", "Disagreements worth knowing."),
        Field("repair", "string", "What is done about drift on it: auto, ask or never."),
        _DRIFT,
        _UNKNOWN,
    ),
)

TYPE = Resource(
    "type",
    "A vGPU type, per GPU model or per GPU.",
    (
        Field("name", "string", "NVIDIA's short name.", column="TYPE"),
        Field("type_id", "integer", "The number in nvidia-<n>.", nullable=True, column="ID"),
        Field("gpu", "string", "Address of the GPU; null from the catalogue.", nullable=True, column="GPU"),
        Field("model", "string", "GPU model.", wide=True, column="MODEL"),
        Field("kind", "string", "time-sliced, mig-backed or other.", column="KIND"),
        Field("fb_mib", "integer", "Profile size in MiB.", nullable=True, column="FB_MIB"),
        Field("max_per_gpu", "integer", "At most so many on one GPU.", nullable=True, column="MAX"),
        Field("creatable", "integer", "How many more fit now.", nullable=True, column="FREE"),
        Field("heads", "integer", "Displays.", nullable=True, column="HEADS"),
        Field("max_resolution", "string", "Largest display.", nullable=True, column="RESOLUTION"),
        Field("licence", "string", "Licences that allow it.", nullable=True, wide=True, column="LICENCE"),
        Field("raw_name", "string", "The driver's name.", wide=True, column="DRIVER_NAME"),
        Field("why_not", "string", "Why none fits now.", nullable=True, wide=True, column="WHY_NOT"),
    ),
)

PROFILE = Resource(
    "profile",
    "A named type profile.",
    (
        Field("name", "string", "The profile's name.", column="PROFILE"),
        Field("description", "string", "What it is for.", column="FOR"),
        Field("types", "[string]", "vGPU types in order of preference.", column="TYPES"),
        Field("placement", "object", "policy and numa."),
        Field("params", "object", "Plugin parameters."),
        Field("source", "string", "document or file.", wide=True, column="SOURCE"),
        Field("creatable", "string", "The type that would be taken now.", nullable=True, column="NOW"),
    ),
)

VGPU = Resource(
    "vgpu",
    "A vGPU: one that somebody wants, one that exists, or (as a rule) both.",
    (
        Field("name", "string", "Its name; the UUID or VF for one that is not ours.", column="NAME"),
        Field("uuid", "uuid", "Our id.", nullable=True, wide=True, column="UUID"),
        Field("mdev_uuid", "uuid", "The mdev's UUID.", nullable=True),
        Field("type", "string", "vGPU type.", nullable=True, column="TYPE"),
        Field(
            "profile", "string", "Profile that it was made from.", nullable=True, column="PROFILE", spare=True
        ),
        Field("gpu", "string", "Address of its GPU.", nullable=True, column="GPU", spare=True),
        Field("gpu_uuid", "string", "UUID of its GPU.", nullable=True),
        Field("vf", "string", "Address of its VF.", nullable=True, column="VF"),
        Field("framework", "string", "How it is made.", nullable=True, wide=True, column="FRAMEWORK"),
        Field(
            "state",
            "string",
            "present, absent (wanted, not there), pending, conflict, foreign or unknown.",
            column="STATE",
        ),
        Field("domain", "string", "The domain that it belongs to.", nullable=True, column="DOMAIN"),
        Field("attached", "[string]", "Where its hostdev stands: live, config."),
        Field("owner", "string", "Who asked for it.", nullable=True, wide=True, column="OWNER"),
        Field("created_at", "time", "When it was asked for.", nullable=True, wide=True, column="CREATED"),
        Field("fb_mib", "integer", "Profile size in MiB.", nullable=True),
        Field("params", "string", "Plugin parameters as they are.", nullable=True),
        Field("holders", "[object]", "Who holds it open: pid, command, domain.", nullable=True),
        Field("held_by", "string", "The domain that was started with it.", nullable=True),
        Field("problem", "object", "Why it is not as wished.", nullable=True),
        Field("seen_since", "time", "Of one that is not ours: when it was first seen.", nullable=True),
        Field("last_user", "string", "Of one that is not ours: who was last seen to use it.", nullable=True),
        Field("autostart", "string", "Who else starts it: mdevctl.", nullable=True),
        _DRIFT,
        _UNKNOWN,
    ),
)

FINDING = Resource(
    "finding",
    "A named state in which something is not as it should be.",
    (
        Field("code", "string", "The state; see the page on drift.", column="CODE"),
        Field("subject", "string", "A vGPU, a GPU or a domain.", column="SUBJECT"),
        Field("gpu", "string", "The GPU that it is about.", nullable=True),
        Field("repair", "string", "What is done about it: auto, ask or never.", column="REPAIR"),
        Field("since", "time", "When it was first seen.", nullable=True, column="SINCE"),
        Field("detail", "string", "What was found.", column="DETAIL"),
        Field("hint", "string", "What a person can do.", column="HINT"),
        Field("steps", "[string]", "What would mend it, in short; none where it is only told."),
    ),
)

DOMAIN = Resource(
    "domain",
    "A libvirt domain.",
    (
        Field("name", "string", "Its name.", column="DOMAIN"),
        Field("uuid", "uuid", "Its UUID.", wide=True, column="UUID"),
        Field("state", "string", "running, paused, shut-off or other.", column="STATE"),
        Field("vgpus", "[object]", "Its vGPUs: name, uuid, type, gpu, vf, state, attached.", column="VGPUS"),
        Field("hostdevs", "[object]", "Its mdev and PCI hostdevs: source, alias, where, vgpu."),
        Field("managed_save", "boolean", "Whether it has a managed-save image."),
    ),
)

STEP = Resource(
    "step",
    "One thing that is done to the host.",
    (
        Field("number", "integer", "Number within its round.", column="#"),
        Field("action", "string", "What kind of step.", column="ACTION"),
        Field("summary", "string", "One line for people.", column="WHAT"),
        Field("reason", "string", "Why it is needed.", column="WHY"),
        Field("lane", "string", "Steps of one lane run one after the other."),
        Field("needs", "[integer]", "Steps that come first."),
        Field("touches", "[string]", "Domains whose running guest notices.", wide=True, column="TOUCHES"),
        Field("round", "integer", "Plans of one operation are numbered from 1."),
        Field("state", "string", "planned, running, done or failed."),
        Field("problem", "object", "Why it failed.", nullable=True),
    ),
)

PLAN = Resource(
    "plan",
    "What an edit would do.",
    (
        Field("id", "string", "To run exactly this plan."),
        Field("revision", "integer", "The log's revision that it was made at."),
        Field("verdict", "string", "match, drift or unknown."),
        Field("steps", "[step]", "In an order in which they could run."),
        Field("changes", "[object]", "Documents that change: key, before, after."),
        Field("vgpus", "[object]", "Places chosen: name, type, gpu, vf."),
        Field(
            "mig",
            "[object]",
            "GPU instances: gpu, slices, kept, destroyed, created, compute_instances, source.",
        ),
        Field("touches", "[string]", "Domains whose running guest would notice."),
        Field("problems", "[object]", "What cannot be done: subject, code, detail, hint."),
        Field("incomplete", "boolean", "Whether the host is read again after them, and more may follow."),
        Field("notes", "[string]", "Worth knowing; it stands in nothing's way."),
    ),
)

OPERATION = Resource(
    "operation",
    "A change that was admitted.",
    (
        Field("id", "uuid", "Its id.", column="ID"),
        Field(
            "kind",
            "string",
            "create, delete, attach, detach, apply, adopt, mig, repair, replace, prune, restore, start.",
            column="KIND",
        ),
        Field("subject", "string", "What it is about.", column="SUBJECT"),
        Field("state", "string", "running, rolling-back, succeeded, failed, ...", column="STATE"),
        Field("requester", "object", "Who asked: uid, pid, name."),
        Field("started_at", "time", "When it was admitted.", column="STARTED"),
        Field("ended_at", "time", "When it ended.", nullable=True),
        Field("steps_done", "integer", "Steps that are done.", column="DONE"),
        Field("steps_total", "integer", "Steps planned so far.", column="OF"),
        Field("steps", "[step]", "The steps so far."),
        Field("problem", "object", "Why it failed.", nullable=True),
        Field("result", "object", "What came of it: vgpus (names), documents (keys), places (by name)."),
    ),
)

EVENT = Resource(
    "event",
    "An entry of the log.",
    (
        Field("revision", "integer", "Grows with each entry.", column="REV"),
        Field("at", "time", "When.", column="AT"),
        Field("kind", "string", "What kind of entry.", wide=True, column="KIND"),
        Field("subject", "string", "What it is about.", column="SUBJECT"),
        Field("summary", "string", "One line for people.", column="WHAT"),
        Field("operation", "uuid", "The operation that it belongs to.", nullable=True),
        Field("body", "object", "The entry itself."),
    ),
)

INFO = Resource(
    "info",
    "The API.",
    (
        Field("api", "string", "v1."),
        Field("version", "string", "The daemon's version."),
        Field("extensions", "[string]", "What was added since /v1 began."),
        Field("role", "string", "operate or read: what this caller may do."),
    ),
)

RESOURCES = {
    each.name: each
    for each in (HOST, GPU, TYPE, PROFILE, VGPU, FINDING, DOMAIN, STEP, PLAN, OPERATION, EVENT, INFO)
}

ROUTES = (
    Route("GET", "/v1", "What this API is, and what the caller may.", "info"),
    Route("GET", "/v1/openapi.json", "This API as OpenAPI 3.1.", "object"),
    Route("GET", "/v1/host", "The host.", "host"),
    Route("GET", "/v1/host/capture", "What sysfs, NVML and libvirt say, redacted.", "object"),
    Route("GET", "/v1/gpus", "Every GPU.", "gpu", many=True),
    Route("GET", "/v1/gpus/{gpu}", "One GPU, by address, UUID or index.", "gpu"),
    Route("GET", "/v1/types", "vGPU types; gpu=, creatable=1, catalog=1.", "type", many=True),
    Route("GET", "/v1/profiles", "Every profile.", "profile", many=True),
    Route("GET", "/v1/profiles/{name}", "One profile.", "profile"),
    Route("GET", "/v1/vgpus", "Every vGPU; foreign=1: that is not ours.", "vgpu", many=True),
    Route("GET", "/v1/vgpus/{vgpu}", "One vGPU, by name, id, mdev UUID or VF.", "vgpu"),
    Route("GET", "/v1/domains", "Every libvirt domain.", "domain", many=True),
    Route("GET", "/v1/domains/{domain}", "One domain, by name or UUID.", "domain"),
    Route("GET", "/v1/domains/{domain}/xml", "Its XML; live=1 for the running guest's.", "object"),
    Route("GET", "/v1/documents", "Every document in force.", "object", many=True),
    Route("GET", "/v1/generations", "The generation of every document, by kind and name.", "object"),
    Route("POST", "/v1/plans", "Show what an edit would do; changes nothing.", "plan", operate=True),
    Route("POST", "/v1/operations", "Run a shown plan, or an edit.", "operation", operate=True),
    Route("GET", "/v1/operations", "The newest operations.", "operation", many=True),
    Route(
        "GET",
        "/v1/operations/{id}",
        "One operation, by its id or its first characters; wait=SECONDS until it ended.",
        "operation",
    ),
    Route("POST", "/v1/operations/{id}/cancel", "Stop it and undo it.", "operation", operate=True),
    Route("GET", "/v1/events", "Log entries; since=REV, follow=1 streams NDJSON.", "event", many=True),
    Route("POST", "/v1/pause", "Stop background changes.", "host", operate=True),
    Route("POST", "/v1/resume", "Let background changes go on.", "host", operate=True),
    Route(
        "POST", "/v1/hook", "For libvirt's hook: may this domain start; it has ended.", "object", operate=True
    ),
    Route("POST", "/v1/sim/{action}", "What life does to a simulated host.", "object", operate=True),
)

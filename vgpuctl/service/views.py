"""What readers see: plain values with exactly the fields of `vgpuctl.surface`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from vgpuctl import __version__, errors
from vgpuctl.model import codec
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.card import Card, card_of, creatable_types, refusal, remaining, supported_types
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import Affect, ProfileDocument, VgpuWish, Wishes
from vgpuctl.model.domain import Domain, Hostdev, MdevSource, alias_for, vgpu_of_alias
from vgpuctl.model.fact import Fact, Unknown, known
from vgpuctl.model.gpu import Gpu, Holder, ObservedVgpu
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.plan import Plan, Problem
from vgpuctl.model.record import (
    AllocationDropped,
    AllocationPut,
    LogEntry,
    Noticed,
    OperationEnded,
    OperationRollingBack,
    OperationStarted,
    PauseSet,
    Record,
    StepEnded,
    StepStarted,
    WishDropped,
    WishPut,
)
from vgpuctl.model.situation import observed_for
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import AttachHostdev, CreateVgpu, Step, describe
from vgpuctl.model.types import VgpuType
from vgpuctl.service.engine import ShownPlan
from vgpuctl.service.ledger import Operation, StepRun

View = dict[str, Any]


def time_text(moment: datetime | None) -> str | None:
    """RFC 3339, UTC."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read(unknown: dict[str, str], name: str, fact: Fact[Any] | None) -> Any:
    """The value of a fact; where it is UNKNOWN, None and the reason in `unknown`."""
    if isinstance(fact, Unknown):
        unknown[name] = fact.reason
        return None
    return fact


@dataclass(frozen=True)
class Scene:
    """One consistent picture: an observation and what is remembered, from which all views are made."""

    snapshot: Snapshot
    wishes: Wishes
    allocations: Mapping[UUID, Allocation]
    catalog: Catalog
    busy: frozenset[str] = frozenset()
    """Names on which an operation works."""
    problems: tuple[Problem, ...] = ()

    @cached_property
    def cards(self) -> dict[GpuAddress, Card]:
        """Every card with its occupants."""
        return {
            gpu.address: card_of(
                gpu, self.catalog.find(gpu.device), self.allocations.values(), self.snapshot.boot_id
            )
            for gpu in self.snapshot.gpus
        }

    @cached_property
    def wished(self) -> dict[str, VgpuWish]:
        """Every wished vGPU."""
        return self.wishes.vgpus()

    @cached_property
    def places(self) -> dict[str, Allocation]:
        """Allocations by the name of their wish."""
        return {each.name: each for each in self.allocations.values()}

    @cached_property
    def domains(self) -> tuple[Domain, ...]:
        """Every domain; none where libvirt does not answer."""
        return known(self.snapshot.domains) or ()

    # -- host -------------------------------------------------------------------------------------

    def host(self, *, paused: bool, revision: int) -> View:
        """The `host` resource."""
        snapshot, unknown = self.snapshot, dict[str, str]()
        hypervisor = read(unknown, "libvirt_uri", snapshot.hypervisor)
        return {
            "hostname": snapshot.hostname,
            "kernel": snapshot.kernel,
            "boot_id": snapshot.boot_id,
            "driver_version": read(unknown, "driver_version", snapshot.driver_version),
            "libvirt_uri": hypervisor.uri if hypervisor else None,
            "libvirt_version": hypervisor.version if hypervisor else None,
            "simulated": snapshot.simulated,
            "paused": paused,
            "revision": revision,
            "gpus": len(snapshot.gpus),
            "vgpus": len(snapshot.vgpus()),
            "version": __version__,
            "problems": [problem_view(each) for each in self.problems],
            "unknown": unknown,
        }

    # -- GPUs and types ---------------------------------------------------------------------------

    def gpu(self, gpu: Gpu) -> View:
        """The `gpu` resource."""
        unknown: dict[str, str] = {}
        card = self.cards[gpu.address]
        allocated = []
        for occupant in card.occupants:
            ours = self.allocations.get(occupant.vgpu) if occupant.vgpu else None
            wish = self.wished.get(ours.name) if ours else None
            allocated.append(
                {
                    "name": occupant.name,
                    "type": occupant.type_name,
                    "fb_mib": occupant.fb_mib,
                    "vf": str(occupant.parent) if occupant.parent else None,
                    "state": ("present" if ours else "foreign") if occupant.exists else "reserved",
                    "owner": wish.owner if wish else None,
                    "domain": wish.domain if wish else None,
                }
            )
        usable = gpu.is_readable
        return {
            "index": gpu.index,
            "address": str(gpu.address),
            "uuid": read(unknown, "uuid", gpu.uuid),
            "model": gpu.model,
            "state": str(gpu.state),
            "state_reason": gpu.state_reason,
            "framework": str(gpu.framework) if gpu.framework else None,
            "numa_node": gpu.numa_node,
            "fb_mib": read(unknown, "fb_mib", gpu.fb_mib),
            "fb_shared_mib": max((each.fb_mib or 0 for each in supported_types(card)), default=0) or None,
            "fb_used_mib": sum(each["fb_mib"] or 0 for each in allocated),
            "vfs_max": gpu.vfs_max,
            "vfs_enabled": len(gpu.vfs),
            "vgpus": len(gpu.vgpus),
            "mig": read(unknown, "mig", gpu.mig),
            "mixed_size": read(unknown, "mixed_size", gpu.mixed_size),
            "driver": gpu.driver,
            "device_id": str(gpu.device),
            "creatable": [each.name for each in creatable_types(card)] if usable else None,
            "allocated": allocated,
            "notes": list(gpu.notes),
            "unknown": unknown,
        }

    def types_of(self, gpu: Gpu, *, creatable: bool) -> list[View]:
        """The `type` resources of one GPU."""
        card = self.cards[gpu.address]
        rows = []
        for each in supported_types(card):
            why_not = refusal(card, each)
            if not (creatable and why_not is not None):
                free = 0 if why_not else remaining(card, each)
                reason = why_not.message if why_not else None
                rows.append(type_view(each, gpu.model, gpu=str(gpu.address), free=free, why_not=reason))
        return rows

    def profile(self, profile: ProfileDocument) -> View:
        """The `profile` resource."""
        cards = self.cards.values()
        fits = (
            name
            for name in profile.types
            if any(each.name == name for card in cards for each in creatable_types(card))
        )
        own = self.wishes.file_profiles.get(profile.name) != profile
        return {
            "name": profile.name,
            "description": profile.description,
            "types": list(profile.types),
            "placement": {
                "policy": str(profile.placement.policy),
                "numa": str(profile.placement.numa),
            },
            "params": dict(profile.params),
            "source": "document" if own else "file",
            "creatable": next(fits, None),
        }

    # -- vGPUs ------------------------------------------------------------------------------------

    def vgpus(self) -> list[View]:
        """The `vgpu` resources: those wished, by name, then those of others."""
        rows = []
        ours: list[ObservedVgpu] = []
        troubles = {each.subject: each for each in self.problems}
        for name in sorted({*self.wished, *self.places}):
            allocation = self.places.get(name)
            observed = observed_for(allocation, self.snapshot) if allocation else None
            if observed is not None:
                ours.append(observed)
            rows.append(self._wished_vgpu(name, allocation, observed, troubles.get(name)))
        rows += [self._foreign_vgpu(each) for each in self.snapshot.vgpus() if each not in ours]
        return rows

    def _wished_vgpu(
        self,
        name: str,
        allocation: Allocation | None,
        observed: ObservedVgpu | None,
        trouble: Problem | None,
    ) -> View:
        unknown: dict[str, str] = {}
        wish = self.wished.get(name)
        parent = observed.parent if observed else allocation.parent if allocation else None
        framework = allocation.framework if allocation else None
        mdev = observed.mdev_uuid if observed else None
        gpu = self.snapshot.gpu_at(allocation.gpu.address) if allocation else None
        return {
            "name": name,
            "uuid": str(allocation.id) if allocation else None,
            "mdev_uuid": str(mdev) if mdev else None,
            "type": allocation.type_name if allocation else (wish.type if wish else None),
            "profile": wish.profile if wish else None,
            "gpu": str(allocation.gpu.address) if allocation else None,
            "gpu_uuid": allocation.gpu.uuid if allocation else None,
            "vf": str(parent) if parent and allocation and parent != allocation.gpu.address else None,
            "framework": str(framework) if framework else None,
            "state": self._state(name, gpu, observed, trouble, unknown),
            "domain": wish.domain if wish else None,
            "attached": self._attached(allocation) if allocation else [],
            "owner": wish.owner if wish else None,
            "created_at": time_text(wish.created_at if wish else None),
            "fb_mib": allocation.fb_mib if allocation else None,
            "params": read(unknown, "params", observed.params) if observed else None,
            "holders": holders_view(read(unknown, "holders", observed.holders)) if observed else None,
            "problem": problem_view(trouble) if trouble else None,
            "unknown": unknown,
        }

    def _state(
        self,
        name: str,
        gpu: Gpu | None,
        observed: ObservedVgpu | None,
        trouble: Problem | None,
        unknown: dict[str, str],
    ) -> str:
        if name in self.busy:
            return "pending"
        if observed is not None:
            return "present"
        if gpu is not None and not gpu.is_readable:
            unknown["state"] = gpu.state_reason
            return "unknown"
        if trouble is not None and trouble.error.exit_status == 4:
            return "conflict"
        return "absent"

    def _attached(self, allocation: Allocation) -> list[str]:
        """Where the hostdev of a vGPU stands."""
        alias = alias_for(allocation.id)

        def has(hostdevs: Iterable[Hostdev] | None) -> bool:
            return any(each.alias == alias or self._is(each, allocation) for each in hostdevs or ())

        live = any(has(domain.live) for domain in self.domains)
        config = any(has(domain.config) for domain in self.domains)
        return ["live"] * live + ["config"] * config

    def _is(self, hostdev: Hostdev, allocation: Allocation) -> bool:
        """Whether a hostdev without our alias names an adopted vGPU."""
        if not allocation.adopted or hostdev.alias is not None:
            return False
        if isinstance(hostdev.source, MdevSource):
            return hostdev.source.uuid == allocation.id
        return hostdev.source.address == allocation.parent

    def _foreign_vgpu(self, vgpu: ObservedVgpu) -> View:
        unknown: dict[str, str] = {}
        mdev = str(vgpu.mdev_uuid) if vgpu.mdev_uuid else None
        gpu = self.snapshot.gpu_at(vgpu.gpu)
        type_id = known(vgpu.type_id)
        known_type = gpu.type_numbered(type_id) if gpu and type_id is not None else None
        user = next(
            (
                domain.name
                for domain in self.domains
                for each in (*(domain.config or ()), *(domain.live or ()))
                if source_text(each) in (mdev, str(vgpu.parent))
            ),
            None,
        )
        return {
            "name": mdev or str(vgpu.parent),
            "uuid": None,
            "mdev_uuid": mdev,
            "type": read(unknown, "type", vgpu.type_name),
            "profile": None,
            "gpu": str(vgpu.gpu),
            "gpu_uuid": known(gpu.uuid) if gpu else None,
            "vf": str(vgpu.parent) if vgpu.parent != vgpu.gpu else None,
            "framework": str(vgpu.framework),
            "state": "foreign",
            "domain": user,
            "attached": [],
            "owner": None,
            "created_at": None,
            "fb_mib": known_type.fb_mib if known_type else None,
            "params": read(unknown, "params", vgpu.params),
            "holders": holders_view(read(unknown, "holders", vgpu.holders)),
            "problem": None,
            "unknown": unknown,
        }

    # -- domains ----------------------------------------------------------------------------------

    def domain(self, domain: Domain) -> View:
        """The `domain` resource."""
        hostdevs: dict[tuple[str, str | None], View] = {}
        for where, devices in (("live", domain.live), ("config", domain.config)):
            for each in devices or ():
                vgpu_id = vgpu_of_alias(each.alias)
                ours = self.allocations.get(vgpu_id) if vgpu_id else None
                row = hostdevs.setdefault(
                    (source_text(each), each.alias),
                    {
                        "source": source_text(each),
                        "alias": each.alias,
                        "where": [],
                        "vgpu": ours.name if ours else None,
                    },
                )
                row["where"].append(where)
        vgpus = [
            {key: row[key] for key in ("name", "uuid", "type", "gpu", "vf", "state", "attached")}
            for row in self.vgpus()
            if row["domain"] == domain.name
        ]
        return {
            "name": domain.name,
            "uuid": str(domain.uuid),
            "state": str(domain.state),
            "vgpus": vgpus,
            "hostdevs": list(hostdevs.values()),
            "managed_save": domain.managed_save,
        }


def drift(result: Plan, *, paused: bool) -> list[Problem]:
    """What nobody will mend unasked, of a plan for everything: one problem for each vGPU."""
    found: dict[str, Problem] = {}
    for step in result.steps:
        match step.effect:
            case AttachHostdev(name=name, domain=domain, affect=affect):
                where = "running guest" if affect == {Affect.LIVE} else "XML"
                error: errors.VgpuctlError = errors.DomainState(
                    f"the {where} of domain {domain} does not have vGPU {name}",
                    hint=f"vgpuctl attach {domain} --vgpu {name}",
                )
            case CreateVgpu(name=name) if paused:
                error = errors.Conflict(
                    f"vGPU {name} is not there, and background changes are paused", hint="vgpuctl resume"
                )
            case _:
                continue
        found.setdefault(name, Problem(name, error))
    told = {each.subject for each in result.problems}
    return [each for name, each in found.items() if name not in told]


def type_view(
    vgpu_type: VgpuType,
    model: str,
    *,
    gpu: str | None = None,
    free: int | None = None,
    why_not: str | None = None,
) -> View:
    """The `type` resource, of a GPU or of the catalogue."""
    return {
        "name": vgpu_type.name,
        "type_id": vgpu_type.type_id,
        "gpu": gpu,
        "model": model,
        "kind": str(vgpu_type.kind),
        "fb_mib": vgpu_type.fb_mib,
        "max_per_gpu": vgpu_type.max_per_gpu,
        "creatable": free,
        "heads": vgpu_type.heads,
        "max_resolution": vgpu_type.max_resolution,
        "licence": vgpu_type.licence,
        "raw_name": vgpu_type.raw_name,
        "why_not": why_not,
    }


def source_text(hostdev: Hostdev) -> str:
    """The mdev UUID or the PCI address that a hostdev names."""
    if isinstance(hostdev.source, MdevSource):
        return str(hostdev.source.uuid)
    return str(hostdev.source.address)


def holders_view(holders: tuple[Holder, ...] | None) -> list[View] | None:
    """Who holds a vGPU open."""
    if holders is None:
        return None
    return [{"pid": each.pid, "command": each.command, "domain": each.domain} for each in holders]


def problem_view(problem: Problem) -> View:
    """What stands in the way of a wish."""
    error = problem.error
    return {
        "subject": problem.subject,
        "code": error.code,
        "detail": error.message,
        "hint": error.hint,
    }


def step_view(step: Step, *, round_: int, state: str, problem: dict[str, Any] | None) -> View:
    """The `step` resource."""
    return {
        "number": step.number,
        "action": type(step.effect).__name__,
        "summary": describe(step.effect),
        "reason": step.reason,
        "lane": step.lane,
        "needs": list(step.needs),
        "touches": list(step.touches),
        "round": round_,
        "state": state,
        "problem": problem,
    }


def plan_view(shown: ShownPlan, revision: int, changes: list[View]) -> View:
    """The `plan` resource."""
    return {
        "id": shown.id,
        "revision": revision,
        "verdict": str(shown.plan.verdict),
        "steps": [step_view(each, round_=1, state="planned", problem=None) for each in shown.plan.steps],
        "changes": changes,
        "vgpus": [
            {
                "name": each.name,
                "type": each.type_name,
                "gpu": str(each.gpu.address),
                "vf": str(each.parent) if each.parent and each.parent != each.gpu.address else None,
            }
            for each in shown.plan.allocate
        ],
        "touches": list(shown.plan.touches),
        "problems": [problem_view(each) for each in shown.plan.problems],
        "incomplete": shown.plan.incomplete,
    }


def operation_view(operation: Operation, planned: Iterable[tuple[int, Step]] = ()) -> View:
    """The `operation` resource."""
    runs = [*operation.runs, *(StepRun(step, round_) for round_, step in planned)]
    runs.sort(key=lambda each: (each.round, each.step.number))
    requester = operation.started.requester
    return {
        "id": str(operation.id),
        "kind": operation.started.kind,
        "subject": operation.started.subject,
        "state": str(operation.state),
        "requester": {"uid": requester.uid, "pid": requester.pid, "name": requester.name},
        "started_at": time_text(operation.started_at),
        "ended_at": time_text(operation.ended_at),
        "steps_done": sum(each.state == "done" for each in runs),
        "steps_total": len(runs),
        "steps": [
            step_view(each.step, round_=each.round, state=each.state, problem=each.problem) for each in runs
        ],
        "problem": operation.problem,
        "result": operation.result,
    }


def event_view(entry: LogEntry) -> View:
    """The `event` resource."""
    record = entry.record
    kind = re.sub(r"(?<!^)(?=[A-Z])", "-", type(record).__name__).lower()
    subject, summary, operation = _tell(record)
    return {
        "revision": entry.revision,
        "at": time_text(entry.at),
        "kind": kind,
        "subject": subject,
        "summary": summary,
        "operation": str(operation) if operation else None,
        "body": codec.encode(record, type(record)),
    }


def _short(operation: UUID) -> str:
    return f"operation {str(operation)[:8]}"


def _tell(record: Record) -> tuple[str, str, UUID | None]:
    """Subject, one line for people, and the operation of a record."""
    match record:
        case WishPut(wish=wish):
            return str(wish.key), f"in force, generation {wish.generation}", None
        case WishDropped(key=key):
            return str(key), "no longer in force", None
        case AllocationPut(allocation=place):
            where = place.parent or f"GPU {place.gpu.address}"
            return place.name, f"{place.type_name} has its place on {where}", None
        case AllocationDropped(id=vgpu_id):
            return f"vGPU {str(vgpu_id)[:8]}", "its place is free again", None
        case OperationStarted(kind=kind, subject=subject, requester=who, id=key):
            return subject, f"{kind} admitted for {who.name}", key
        case StepStarted(step=step, operation=key):
            return step.lane, f"begins: {describe(step.effect)}", key
        case StepEnded(number=number, problem=problem, operation=key):
            how = f"failed: {problem.get('detail')}" if problem else "done"
            return f"step {number}", how, key
        case OperationRollingBack(id=key, problem=problem):
            return _short(key), f"is undone: {problem.get('detail')}", key
        case OperationEnded(id=key, state=state, problem=problem):
            return _short(key), f"{state}: {problem.get('detail')}" if problem else str(state), key
        case PauseSet(paused=paused):
            return "daemon", "background changes are paused" if paused else "background changes go on", None
        case Noticed(subject=subject, text=text):
            return subject, text, None

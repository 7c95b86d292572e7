"""One consistent picture of the host and of what is remembered, from which readers' views are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from vgpuctl import __version__
from vgpuctl.errors import UnsupportedHere, VgpuctlError
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.card import Card, card_of, creatable_types, refusal, remaining, supported_types
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import Affect, ProfileDocument, Repair, VgpuWish, Wishes
from vgpuctl.model.domain import Domain, vgpu_of_alias
from vgpuctl.model.drift import has_gpu, policy_of
from vgpuctl.model.fact import Fact, Unknown, known
from vgpuctl.model.finding import Drift, Finding
from vgpuctl.model.gpu import Gpu, GpuInstance, ObservedVgpu
from vgpuctl.model.mig.cutting import geometry_of
from vgpuctl.model.natural import natural
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.plan import Problem
from vgpuctl.model.situation import identity_of, observed_for
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.start import HookState
from vgpuctl.model.step import GPU_WIDE, Step, describe
from vgpuctl.service.views import (
    View,
    finding_view,
    holders_view,
    hook_problems,
    problem_view,
    read,
    source_text,
    time_text,
    type_view,
)


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
    findings: tuple[Finding, ...] = ()
    steps: tuple[Step, ...] = ()
    """What would mend all that can be mended."""
    repair: Repair = Repair.AUTO
    """The host's policy."""

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

    def drift(self, findings: Iterable[Finding]) -> list[View]:
        """What is not as it should be, each with the steps that would mend it."""
        rows = []
        for each in findings:
            steps: tuple[str, ...] = ()
            if each.repair is not Repair.NEVER:
                steps = tuple(describe(step.effect) for step in self.steps if _mends(step, each))
            rows.append(finding_view(each, steps))
        return rows

    # -- host -------------------------------------------------------------------------------------

    def host(
        self,
        *,
        paused: bool,
        revision: int,
        hook: HookState | None = None,
        unsaved: VgpuctlError | None = None,
    ) -> View:
        """The `host` resource; `hook` is None where libvirt calls no hooks, `unsaved` where all is saved."""
        snapshot, unknown = self.snapshot, dict[str, str]()
        problems = [*self.problems, *(hook_problems(hook) if hook is not None else ())]
        if unsaved is not None:
            problems.append(Problem("the state", unsaved))
        hypervisor = read(unknown, "libvirt_uri", snapshot.hypervisor)
        return {
            "hostname": snapshot.hostname,
            "kernel": snapshot.kernel,
            "boot_id": snapshot.boot_id,
            "driver_version": read(unknown, "driver_version", snapshot.driver_version),
            "libvirt_uri": hypervisor.uri if hypervisor else None,
            "libvirt_version": hypervisor.version if hypervisor else None,
            "hook": str(hook.life) if hook is not None else None,
            "simulated": snapshot.simulated,
            "paused": paused,
            "revision": revision,
            "gpus": len(snapshot.gpus),
            "vgpus": len(snapshot.vgpus()),
            "version": __version__,
            "repair": str(self.repair),
            "problems": [problem_view(each) for each in problems],
            "drift": self.drift(self.findings),
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
            "mig_pending": read(unknown, "mig_pending", gpu.mig_pending),
            "mig_slices": self._slices(card),
            "gpu_instances": self._instances(card, unknown),
            "mixed_size": read(unknown, "mixed_size", gpu.mixed_size),
            "driver": gpu.driver,
            "device_id": str(gpu.device),
            "creatable": [each.name for each in creatable_types(card)] if usable else None,
            "allocated": allocated,
            "notes": list(gpu.notes),
            "repair": str(policy_of(identity_of(gpu), self.wishes, self.repair)),
            "drift": self.drift(each for each in self.findings if has_gpu(gpu, each)),
            "unknown": unknown,
        }

    def _slices(self, card: Card) -> int | None:
        """How many memory slices a card has; None without MIG, and where nobody says."""
        if card.model is not None and not card.model.mig:
            return None
        try:
            geometry, _ = geometry_of(card, self.catalog)
        except UnsupportedHere:
            return None
        return geometry.memory_slices

    def _instances(self, card: Card, unknown: dict[str, str]) -> list[View] | None:
        """The GPU instances of a card with the vGPUs on them, as far as the driver tells."""
        names = {each.parent: each.name for each in card.occupants if each.exists}
        found = read(unknown, "gpu_instances", card.gpu.gpu_instances)
        if found is None:
            return None
        return [
            {
                "id": each.id,
                "profile": each.profile,
                "start": each.start,
                "size": each.size,
                "compute_instances": read(unknown, f"compute_instances of {each.id}", _compute(each)),
                "vgpus": [
                    names.get(vgpu.parent, str(vgpu.mdev_uuid or vgpu.parent))
                    for vgpu in card.gpu.vgpus
                    if vgpu.gpu_instance_id == each.id
                ],
            }
            for each in found
        ]

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
        ours: set[ObservedVgpu] = set()
        troubles = {each.subject: each for each in self.problems}
        for name in sorted({*self.wished, *self.places}, key=natural):
            allocation = self.places.get(name)
            observed = observed_for(allocation, self.snapshot) if allocation else None
            if observed is not None:
                ours.add(observed)
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
            "held_by": allocation.hold.domain if allocation and allocation.hold else None,
            "problem": problem_view(trouble) if trouble else None,
            "seen_since": None,
            "last_user": None,
            "autostart": self._autostart(allocation.id if allocation else None),
            "drift": self.drift(each for each in self.findings if name in each.names or name == each.subject),
            "unknown": unknown,
        }

    def _autostart(self, vgpu_id: UUID | None) -> str | None:
        """Who else starts an mdev."""
        if vgpu_id is None or self.snapshot.autostart_of(vgpu_id) is None:
            return None
        return "mdevctl"

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
        """Where the hostdev of a vGPU stands; that of an adopted one does not have our alias."""
        attachments = self.snapshot.attachments.standing_for(allocation, by_source=allocation.adopted)
        there = {each.where for each in attachments}
        return [str(where) for where in (Affect.LIVE, Affect.CONFIG) if where in there]

    def _foreign_vgpu(self, vgpu: ObservedVgpu) -> View:
        unknown: dict[str, str] = {}
        mdev = str(vgpu.mdev_uuid) if vgpu.mdev_uuid else None
        gpu = self.snapshot.gpu_at(vgpu.gpu)
        type_id = known(vgpu.type_id)
        known_type = gpu.type_numbered(type_id) if gpu and type_id is not None else None
        users = self.snapshot.attachments.naming_observed(vgpu)
        user = users[0].domain if users else None
        name = mdev or str(vgpu.parent)
        mine = [each for each in self.findings if each.key == (Drift.FOREIGN_VGPU, name)]
        return {
            "name": name,
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
            "held_by": None,
            "problem": None,
            "seen_since": time_text(mine[0].since) if mine else None,
            "last_user": mine[0].user if mine else user,
            "autostart": self._autostart(vgpu.mdev_uuid),
            "drift": self.drift(mine),
            "unknown": unknown,
        }

    # -- domains ----------------------------------------------------------------------------------

    @cached_property
    def _vgpus_of_domains(self) -> dict[str, list[View]]:
        """What a domain's view tells of its vGPUs."""
        found: dict[str, list[View]] = {}
        for row in self.vgpus():
            brief = {key: row[key] for key in ("name", "uuid", "type", "gpu", "vf", "state", "attached")}
            found.setdefault(row["domain"], []).append(brief)
        return found

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
        return {
            "name": domain.name,
            "uuid": str(domain.uuid),
            "state": str(domain.state),
            "vgpus": self._vgpus_of_domains.get(domain.name, []),
            "hostdevs": list(hostdevs.values()),
            "managed_save": domain.managed_save,
        }


def _mends(step: Step, finding: Finding) -> bool:
    """Whether a step is part of what mends a finding."""
    if isinstance(step.effect, GPU_WIDE):
        return str(step.effect.gpu.address) == finding.gpu
    return step.effect.name in finding.names


def _compute(instance: GpuInstance) -> Fact[list[str]]:
    """The profiles of its compute instances, by id."""
    there = instance.compute_instances
    return there if isinstance(there, Unknown) else [each.profile for each in there]

"""Whether a domain may start: who has its vGPUs, what stands where its XML names them, what is missing.

Decided from a glimpse of the kernel and from what is remembered; nothing here waits for anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.domain import MdevSource, PciSource
from vgpuctl.model.fact import Fact, Unknown, known
from vgpuctl.model.frameworks import rules_of
from vgpuctl.model.gpu import FrameworkKind, ObservedVgpu
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.plan import Plan
from vgpuctl.model.situation import gpu_of, identity_of, may_exist_unseen, observed_for
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.start import DomainStart, NamedVgpu, held, is_stale
from vgpuctl.model.step import CreateVgpu, RemoveVgpu, SetParams, SetVfs, describe
from vgpuctl.service.observations import Observations
from vgpuctl.service.planning import Planning
from vgpuctl.service.progress import Progress
from vgpuctl.service.turn import Turn

AGAIN = "start the domain again"


class StartCheck:
    """Says what stands against a start, and plans what it needs."""

    def __init__(
        self, turn: Turn, observations: Observations, planning: Planning, progress: Progress
    ) -> None:
        self._turn = turn
        self._observations = observations
        self._planning = planning
        self._progress = progress

    def places(
        self, start: DomainStart, starts: Fact[Mapping[UUID, str]], seen: Snapshot
    ) -> tuple[list[Allocation], frozenset[str]]:
        """The places of every vGPU of a start, and the names of those that are not there.

        Raises what stands against the start.  `starts` are those whose end the hook has not noted.
        """
        places, missing = [], set()
        for named in start.vgpus:
            allocation = self._turn.ledger.allocations.get(named.vgpu)
            if allocation is None:
                _check_unknown(named, seen)
                continue
            self.holder(allocation, start, starts, seen.boot_id)
            self._check_owner(allocation, start)
            if self._progress.under_way.removes(allocation.id):
                raise errors.Conflict(f"vGPU {allocation.name} is being removed", hint=AGAIN)
            there = observed_for(allocation, seen)
            if there is not None:
                _check_source(allocation, there.parent, named)
                if allocation.framework is not FrameworkKind.PASSTHROUGH:
                    _refuse_held(allocation.name, there)
            else:
                allocation = self._placed(allocation, named, seen)
                missing.add(allocation.name)
            places.append(allocation)
        return places, frozenset(missing)

    def holder(
        self,
        allocation: Allocation,
        start: DomainStart,
        starts: Fact[Mapping[UUID, str]],
        boot_id: str,
    ) -> None:
        """Refuse what another domain holds."""
        hold = allocation.hold
        if hold is None or hold.domain_uuid == start.uuid or is_stale(hold, boot_id, starts):
            return
        raise held(allocation.name, hold)

    def plan(self, places: list[Allocation], missing: frozenset[str], seen: Snapshot) -> Plan:
        """The plan for the missing vGPUs; raises what stands against it, also what takes too long."""
        own = {each.id: each for each in places}
        result = self._planning.start(missing, seen, own)
        if any(_may_move(each) for each in places if each.name in missing) and _is_full(result):
            # An mdev keeps its UUID, wherever it is: another GPU does as well.
            latest = self._observations.latest
            domains = latest.domains if latest is not None else seen.domains
            result = self._planning.start(missing, replace(seen, domains=domains), own, anywhere=True)
        made = {step.effect.name for step in result.steps if isinstance(step.effect, CreateVgpu)}
        for problem in result.problems:
            if problem.error.code != errors.LibvirtUnreachable.code:
                raise problem.error
            if problem.subject not in made:
                # The planner would ask libvirt before it took another place than the XML names.
                parent = next((each.parent for each in places if each.name == problem.subject), None)
                raise errors.Conflict(
                    f"vGPU {problem.subject} cannot be made on {parent}, which its XML names: it is not free",
                    hint="vgpuctl vgpu list shows who has it",
                )
        steps = []
        for step in result.steps:
            effect = step.effect
            if isinstance(effect, (SetVfs, RemoveVgpu)):
                raise errors.InvalidGpuState(
                    f"GPU {effect.gpu.address} has to be changed first: {describe(effect)}",
                    hint="vgpuctl host show says what is not as it should be",
                )
            if isinstance(effect, (CreateVgpu, SetParams)):
                self._check_vf(effect, own)
                steps.append(step)
        if not missing <= made or result.incomplete:
            raise errors.InvalidGpuState(
                f"vGPU {min(missing)} cannot be made now", hint="vgpuctl host show says why"
            )
        return replace(result, steps=tuple(steps), problems=())

    def _check_owner(self, allocation: Allocation, start: DomainStart) -> None:
        """Refuse a copy of another desktop's XML; a desktop that was renamed is still the same."""
        wish = self._turn.ledger.in_force().vgpus().get(allocation.name)
        if wish is None or wish.domain in (None, start.domain):
            return
        latest = self._observations.latest
        domains = known(latest.domains) if latest is not None else None
        owner = next((each for each in domains or () if each.name == wish.domain), None)
        if owner is not None and owner.uuid != start.uuid:
            raise errors.VgpuAttached(
                f"vGPU {allocation.name} belongs to domain {wish.domain}",
                hint=f"take it out of {start.domain} with virsh edit, and attach one of its own",
            )

    def _placed(self, allocation: Allocation, named: NamedVgpu, seen: Snapshot) -> Allocation:
        """The place on which a vGPU that is not there has to be made for this XML."""
        wish = self._turn.ledger.in_force().vgpus().get(allocation.name)
        if wish is None:
            raise errors.VgpuNotFound(
                f"vGPU {allocation.name} is not there, and no document wishes it any longer"
            )
        if may_exist_unseen(allocation, seen):
            gpu = gpu_of(allocation, seen)
            reason = f": {gpu.state_reason}" if gpu is not None and gpu.state_reason else ""
            raise errors.FactUnknown(f"whether vGPU {allocation.name} is there cannot be read{reason}")
        if isinstance(named.source, MdevSource):
            if named.source.uuid != allocation.id:
                raise errors.Conflict(f"its XML names another mdev than vGPU {allocation.name}")
            return allocation
        return self._on_the_named_vf(allocation, named.source, seen)

    def _on_the_named_vf(self, allocation: Allocation, source: PciSource, seen: Snapshot) -> Allocation:
        """The hook cannot change XML: the vGPU comes onto the VF that stands there, or not at all."""
        vf = source.address
        gpu = next((each for each in seen.gpus if any(each.address == vf for each in each.vfs)), None)
        if gpu is None and allocation.framework is FrameworkKind.PASSTHROUGH:
            return allocation
        if gpu is None:
            raise errors.InvalidGpuState(
                f"VF {vf}, which its XML names for vGPU {allocation.name}, is not there",
                hint="vgpuctl gpu list shows whether the VFs of its GPU are off",
            )
        if allocation.parent == vf and allocation.gpu.address == gpu.address:
            return allocation
        for other in self._turn.ledger.allocations.values():
            if other.parent == vf and other.id != allocation.id:
                raise errors.Conflict(
                    f"VF {vf}, which its XML names for vGPU {allocation.name}, is the place of {other.name}",
                    hint=f"vgpuctl attach {allocation.name} puts the right VF into the XML",
                )
        return replace(
            allocation, gpu=identity_of(gpu), parent=vf, framework=gpu.framework, created_boot=None
        )

    def _check_vf(self, effect: CreateVgpu | SetParams, own: Mapping[UUID, Allocation]) -> None:
        """Raise where a step is for another VF than the XML names, or the VFs are being turned."""
        gpu = effect.gpu.address
        if self._progress.under_way.turns_vfs(gpu):
            raise errors.InvalidGpuState(
                f"the VFs of GPU {gpu} are being turned on or off just now", hint=AGAIN
            )
        if isinstance(effect, CreateVgpu) and effect.vgpu in own and not _may_move(own[effect.vgpu]):
            wanted = own[effect.vgpu].parent
            if effect.parent != wanted:
                raise errors.Conflict(
                    f"VF {wanted}, which its XML names for vGPU {effect.name}, is not free",
                    hint="vgpuctl vgpu list shows who has it",
                )


def _check_unknown(named: NamedVgpu, seen: Snapshot) -> None:
    """A vGPU of which nothing is remembered: an mdev of exactly that UUID is it all the same."""
    there = seen.mdev(named.vgpu)
    if there is None or named.source != MdevSource(named.vgpu):
        raise errors.VgpuNotFound(
            f"its XML names vGPU {named.vgpu}, of which vgpuctl knows nothing",
            hint="take it out with virsh edit, and attach one: vgpuctl attach",
        )
    _refuse_held(str(named.vgpu), there)


def _may_move(allocation: Allocation) -> bool:
    """Whether the domain's XML names the vGPU and not the place where it stands."""
    kind = allocation.framework
    if kind is None or allocation.parent is None:
        return False
    return isinstance(rules_of(kind).hostdev(allocation.id, allocation.parent).source, MdevSource)


def _is_full(result: Plan) -> bool:
    codes = {errors.NoCapacity.code, errors.GpuNotFound.code, errors.InvalidGpuState.code}
    return any(each.error.code in codes for each in result.problems)


def _check_source(allocation: Allocation, parent: GpuAddress, named: NamedVgpu) -> None:
    """Raise where the XML names another device than that of the vGPU under its alias."""
    where: MdevSource | PciSource | None = None
    if allocation.framework is not None:
        where = rules_of(allocation.framework).hostdev(allocation.id, parent).source
    if where != named.source:
        raise errors.Conflict(
            f"its XML does not name the place of vGPU {allocation.name}, which is {parent}",
            hint="vgpuctl apply of its document puts the XML right",
        )


def _refuse_held(name: str, vgpu: ObservedVgpu) -> None:
    if isinstance(vgpu.holders, Unknown):
        raise errors.FactUnknown(
            f"whether somebody has vGPU {name} open cannot be read: {vgpu.holders.reason}"
        )
    if vgpu.holders:
        first = vgpu.holders[0]
        raise errors.VgpuBusy(
            f"vGPU {name} is held open by {first.domain or first.command} (pid {first.pid})",
            hint="stop the domain that has it",
        )

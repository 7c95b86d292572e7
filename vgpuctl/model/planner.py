"""From what is and what should be to a plan.  Pure: nothing here reads or writes a host.

Order of a plan: hostdevs come out of domains, vGPUs go, VFs go off, MIG mode turns, VFs go on, compute
and GPU instances go and come, vGPUs come, hostdevs go in.
Steps of one GPU or one domain never overlap (lanes); `needs` orders what crosses lanes and
what frees the room that a later step takes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model import frameworks
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.attachment import wanted_in
from vgpuctl.model.card import Card, after, allowed, card_of, free_parents, instance_of, landing
from vgpuctl.model.document import Affect, DocumentKind, GpuDocument, MigWish, VgpuWish
from vgpuctl.model.domain import Hostdev, PciSource, alias_for
from vgpuctl.model.fact import Unknown
from vgpuctl.model.frameworks import passthrough
from vgpuctl.model.gpu import FrameworkKind, Gpu, GpuInstance, GpuState, ObservedVgpu
from vgpuctl.model.mig.cutting import clearing, cutting, emptying, mode_change
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.plan import GpuLayout, Plan, Problem
from vgpuctl.model.situation import Situation, find_gpu, identity_of, observed_for
from vgpuctl.model.start import held
from vgpuctl.model.step import (
    GPU_WIDE,
    AttachHostdev,
    CreateVgpu,
    DetachHostdev,
    DisableAutostart,
    Effect,
    GpuWide,
    RemoveVgpu,
    SetMigMode,
    SetParams,
    SetVfs,
    Step,
    guests_of,
)


def plan(situation: Situation) -> Plan:
    """What has to be done."""
    return _Planner(situation).plan()


@dataclass(slots=True)
class _Planner:
    """One planning: the cards as they will be after the steps so far, and those steps."""

    situation: Situation
    cards: dict[GpuAddress, Card] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    allocate: dict[UUID, Allocation] = field(default_factory=dict)
    release: list[Allocation] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    layouts: list[GpuLayout] = field(default_factory=list)
    unsure: dict[GpuAddress, errors.FactUnknown] = field(default_factory=dict)
    """Cards of which it could not be told what MIG makes of them."""
    incomplete: bool = False

    def plan(self) -> Plan:
        snapshot, wishes = self.situation.snapshot, self.situation.wishes
        for gpu in snapshot.gpus:
            model = self.situation.catalog.find(gpu.device)
            allocations = self.situation.allocations.values()
            self.cards[gpu.address] = card_of(gpu, model, allocations, snapshot.boot_id)

        wanted = wishes.vgpus()
        kept: dict[str, Allocation] = {}
        for allocation in sorted(self.situation.allocations.values(), key=self.situation.existing_first):
            wish = wanted.get(allocation.name)
            if wish is not None and allocation.name not in kept and self.situation.honours(allocation, wish):
                kept[allocation.name] = allocation
            elif self.situation.concerns(allocation.name):
                self._remove(allocation)

        self._set_gpus_as_wished()
        for name, wish in wanted.items():
            if self.situation.concerns(name):
                try:
                    self._provide(wish, kept.get(name))
                except errors.NoCapacity as error:
                    self.problems.append(Problem(name, self._or_unsure(kept.get(name), error)))
                except errors.VgpuctlError as error:
                    self.problems.append(Problem(name, error))
        return Plan(
            steps=tuple(self.steps),
            allocate=tuple(self.allocate.values()),
            release=tuple(self.release),
            problems=tuple(self.problems),
            incomplete=self.incomplete,
            layouts=tuple(self.layouts),
        )

    # -- steps ------------------------------------------------------------------------------------

    def _add(
        self, effect: Effect, reason: str, *, needs: Iterable[int] = (), touches: Iterable[str] = ()
    ) -> int:
        """Append a step.  On a GPU it also waits for whatever makes room there before it."""
        number = len(self.steps) + 1
        before = set(needs)
        if isinstance(effect, (*GPU_WIDE, CreateVgpu, RemoveVgpu, SetParams)):
            for step in self.steps:
                if isinstance(step.effect, (*GPU_WIDE, RemoveVgpu)) and step.effect.gpu == effect.gpu:
                    before.add(step.number)
            address = effect.gpu.address
            if address in self.cards:
                self.cards[address] = after(self.cards[address], effect)
        elif isinstance(effect, AttachHostdev):
            # A guest may have room for one vGPU only (one ramfb, one PCI slot).
            before |= {
                step.number
                for step in self.steps
                if isinstance(step.effect, DetachHostdev) and step.effect.domain == effect.domain
            }
        step = Step(
            number=number,
            effect=effect,
            reason=reason,
            needs=tuple(sorted(before)),
            touches=tuple(touches),
        )
        self.steps.append(step)
        return number

    def _check(self, effect: GpuWide | CreateVgpu | RemoveVgpu | SetParams) -> None:
        """Raise what the rules of the card have against an effect."""
        refusal = allowed(self.cards[effect.gpu.address], effect)
        if refusal is not None:
            raise refusal

    # -- what goes --------------------------------------------------------------------------------

    def _remove(self, allocation: Allocation) -> None:
        """Take a vGPU out of the domains that have it from us, and remove it."""
        try:
            detached = self._detach(allocation, keep_in=None)
            vgpu = observed_for(allocation, self.situation.snapshot)
            if vgpu is None:
                self.situation.be_sure_that_it_is_gone(allocation)
                self._forget(allocation)
                if detached.steps:
                    # As long as some XML names it, it must not be forgotten.
                    self.incomplete = True
                else:
                    self.release.append(allocation)
                return
            assert allocation.framework is not None
            if allocation.hold is not None and not detached.from_guest:
                raise held(allocation.name, allocation.hold)
            effect = RemoveVgpu(
                vgpu=allocation.id,
                name=allocation.name,
                gpu=replace(allocation.gpu, address=vgpu.gpu),
                framework=allocation.framework,
                parent=vgpu.parent,
                type_id=allocation.type_id or 0,
                type_name=allocation.type_name,
            )
            if not detached.from_guest:
                self._check(effect)
            self._add(effect, "nobody wishes it any longer", needs=detached.steps)
        except errors.VgpuctlError as error:
            self.problems.append(Problem(allocation.name, error))

    def _forget(self, allocation: Allocation) -> None:
        """Free the place that an allocation without a vGPU kept on its card."""
        card = self.cards.get(allocation.gpu.address)
        if card is not None:
            rest = tuple(each for each in card.occupants if each.vgpu != allocation.id)
            self.cards[allocation.gpu.address] = replace(card, occupants=rest)

    @dataclass(frozen=True, slots=True)
    class _Detached:
        steps: tuple[int, ...]
        from_guest: bool

    def _detach(self, allocation: Allocation, *, keep_in: str | None) -> _Detached:
        """Detach a vGPU from every domain but `keep_in`; refuse where others attached it."""
        numbers: list[int] = []
        from_guest = False
        for domain in self.situation.domains(f"whether a domain uses vGPU {allocation.name}"):
            if domain.name == keep_in:
                continue
            live, config = self.situation.hostdevs_in(domain, allocation)
            hostdev = live or config
            if hostdev is None:
                continue
            if hostdev.alias != alias_for(allocation.id) and not allocation.adopted:
                raise errors.VgpuAttached(
                    f"domain {domain.name} has vGPU {allocation.name} in its XML, and not from us",
                    hint=f"take it out with virsh edit {domain.name}",
                    domain=domain.name,
                )
            if config is not None and domain.managed_save:
                raise errors.DomainState(
                    f"domain {domain.name} has a managed-save image, which needs vGPU {allocation.name}",
                    hint=f"start it, or drop the image: virsh managedsave-remove {domain.name}",
                    domain=domain.name,
                )
            affect = frozenset({Affect.LIVE} if live else set[Affect]()) | frozenset(
                {Affect.CONFIG} if config else set[Affect]()
            )
            from_guest = from_guest or live is not None
            effect = DetachHostdev(
                vgpu=allocation.id,
                name=allocation.name,
                domain=domain.name,
                hostdev=hostdev,
                affect=affect,
            )
            number = self._add(effect, "the desktop no longer wishes it", touches=guests_of(effect))
            numbers.append(number)
        return self._Detached(tuple(numbers), from_guest)

    # -- VFs and MIG ------------------------------------------------------------------------------

    def _set_gpus_as_wished(self) -> None:
        for key, wish in sorted(self.situation.wishes.documents.items()):
            if key.kind is not DocumentKind.GPU or not self.situation.concerns(str(key)):
                continue
            assert isinstance(wish.document, GpuDocument)
            try:
                gpu = find_gpu(self.situation.snapshot, wish.document.name)
                before = self.cards[gpu.address], len(self.steps), len(self.layouts), self.incomplete
                try:
                    self._set_gpu(gpu, wish.document)
                except errors.VgpuctlError as error:
                    # Half of the way to what cannot be had is not worth a step.
                    self.cards[gpu.address], steps, layouts, self.incomplete = before
                    del self.steps[steps:], self.layouts[layouts:]
                    if isinstance(error, errors.FactUnknown):
                        self.unsure[gpu.address] = error
                    raise
            except errors.VgpuctlError as error:
                self.problems.append(Problem(str(key), error))

    def _or_unsure(self, kept: Allocation | None, error: errors.NoCapacity) -> errors.VgpuctlError:
        """No room on a card whose instances are still to be cut, and cannot be told now, is not no room."""
        if kept is not None:
            return self.unsure.get(kept.gpu.address, error)
        return next(iter(self.unsure.values()), error)

    def _set_gpu(self, gpu: Gpu, document: GpuDocument) -> None:
        reason = "as its Gpu document says"
        if gpu.state is GpuState.PARKED and (document.vfs or document.mig is not None):
            self._bring_back(gpu, document.mig)
            return
        if document.mig is None:
            if document.vfs is not None:
                self._set_vfs(gpu, enabled=document.vfs, reason=reason)
            return
        vfs = self.cards[gpu.address].vfs_on if document.vfs is None else document.vfs
        if not gpu.is_readable:
            raise errors.FactUnknown(f"GPU {gpu.address} cannot be read: {gpu.state_reason}")
        if gpu.mig != document.mig.enabled:
            effect = mode_change(self.situation, self.cards, gpu.address, enabled=document.mig.enabled)
            self._clear_compute(gpu, "MIG mode takes it along")
            self._set_vfs(gpu, enabled=False, reason="MIG mode changes only while its VFs are off")
            for gone in emptying(self.cards[gpu.address]):
                self._check(gone)
                self._add(gone, "MIG mode is not turned off with it")
            self._check(effect)
            self._add(effect, reason)
            # Whoever asks next is to see what the driver says of the other mode.
            self.incomplete = True
        if vfs != self.cards[gpu.address].vfs_on:
            self._clear_compute(gpu, "sriov-manage takes it along")
        self._set_vfs(gpu, enabled=vfs, reason=reason)
        if document.mig.enabled and document.mig.has_layout:
            self._cut(gpu, document.mig)

    def _bring_back(self, gpu: Gpu, wish: MigWish | None) -> None:
        """Let sriov-manage finish; what the card is shows only on its driver, and is changed from there."""
        effect = SetVfs(gpu=identity_of(gpu), enabled=True)
        self._check(effect)
        self._add(effect, "sriov-manage was interrupted, and brings it back to its driver")
        self.incomplete = True
        if wish is not None:
            # A forecast: what it has room for once it is as wished.
            card = self.cards[gpu.address]
            there = replace(card.gpu, mig=wish.enabled, gpu_instances=())
            self.cards[gpu.address] = replace(card, gpu=there)
            if wish.enabled and wish.has_layout:
                self._cut(there, wish)

    def _clear_compute(self, gpu: Gpu, reason: str) -> None:
        """Destroy the compute instances of ours where all GPU instances go."""
        for effect in clearing(self.situation, self.cards[gpu.address]):
            self._check(effect)
            self._add(effect, reason)

    def _cut(self, gpu: Gpu, wish: MigWish) -> None:
        """Destroy and create GPU instances; only foretell it where the card is not yet as it will be."""
        later = any(
            isinstance(step.effect, (SetVfs, SetMigMode)) and step.effect.gpu.address == gpu.address
            for step in self.steps
        )
        cut = cutting(self.situation, self.cards[gpu.address], wish)
        self.layouts.append(cut.told(gpu, later=later))
        for effect in cut.effects:
            if later:
                self.cards[gpu.address] = after(self.cards[gpu.address], effect)
                self.incomplete = True
            else:
                self._check(effect)
                self._add(effect, "as its Gpu document says")

    def _set_vfs(self, gpu: Gpu, *, enabled: bool, reason: str) -> None:
        card = self.cards[gpu.address]
        gpu = card.gpu
        if not gpu.is_readable:
            raise errors.FactUnknown(f"GPU {gpu.address} cannot be read: {gpu.state_reason}")
        if card.vfs_on == enabled or (not enabled and gpu.vfs_max == 0):
            return
        if enabled and gpu.state is not GpuState.VFS_OFF:
            if gpu.vfs_max == 0:
                raise errors.UnsupportedHere(f"GPU {gpu.address} ({gpu.model}) has no VFs to turn on")
            raise errors.GpuState(f"GPU {gpu.address} is {gpu.state}: {gpu.state_reason}")
        effect = SetVfs(gpu=identity_of(gpu), enabled=enabled)
        self._check(effect)
        self._add(effect, reason)

    # -- what comes -------------------------------------------------------------------------------

    def _provide(self, wish: VgpuWish, allocation: Allocation | None) -> None:
        """Make one wished vGPU exist and stand in its domain."""
        if wish.domain is None and self.situation.desktops_change:
            self.situation.domains(f"whether a domain has vGPU {wish.name}")
        if allocation is None:
            if wish.domain is not None:
                self.situation.domain(wish.domain)
            allocation = self._allocate(wish)
        else:
            # At boot the vGPU comes first, and libvirt, whose domains need it, later.
            if wish.domain is not None and not isinstance(self.situation.snapshot.domains, Unknown):
                self.situation.domain(wish.domain)
            allocation = self.situation.relocated(allocation)
            if self.situation.stands_where_libvirt_refuses(allocation, wish):
                # The VFs have shown their framework only now, and nothing was made on them yet.
                self.release.append(allocation)
                self._forget(allocation)
                allocation = self._allocate(wish)
        self._be_sole_starter(allocation, wish)
        created = self._create(allocation, wish)
        allocation = self.allocate.get(allocation.id, allocation)
        if allocation.framework is None:
            self.incomplete = True
            return
        detached = (
            self._detach(allocation, keep_in=wish.domain) if self.situation.is_anywhere(allocation) else None
        )
        if wish.domain is not None:
            needs = created + (detached.steps if detached else ())
            self._attach(allocation, wish, needs)

    def _be_sole_starter(self, allocation: Allocation, wish: VgpuWish) -> None:
        """Switch off what starts the mdev beside us, where the document says so."""
        definition = self.situation.snapshot.autostart_of(allocation.id)
        if wish.sole_starter and definition is not None:
            effect = DisableAutostart(
                vgpu=allocation.id, name=allocation.name, gpu=allocation.gpu, parent=definition.parent
            )
            self._add(effect, "vgpuctl alone is to start it")

    def _allocate(self, wish: VgpuWish) -> Allocation:
        """Choose a place for a wish that has none."""
        types, policy, params = self.situation.requirements(wish)
        cards: list[Card] = list(self.cards.values())
        if wish.gpu is not None:
            cards = [self.cards[find_gpu(self.situation.snapshot, wish.gpu).address]]
        elif passthrough.WHOLE_GPU.name not in types:
            kept_off = self.situation.kept_off()
            cards = [each for each in cards if each.gpu.address not in kept_off] or cards
        taken = [each for each in cards if self.situation.libvirt_refusal(each.gpu.framework, wish) is None]
        choice = self.situation.choose(taken, types, policy, wish)
        if isinstance(choice, errors.VgpuctlError):
            refused = self.situation.choose(cards, types, policy, wish) if len(taken) < len(cards) else choice
            if isinstance(refused, errors.VgpuctlError):
                raise refused
            raise self.situation.unsupported(refused.card.gpu.framework, wish)
        vgpu_type = choice.vgpu_type
        framework = choice.card.gpu.framework
        if vgpu_type in (passthrough.WHOLE_GPU, passthrough.PLAIN_VF):
            framework = FrameworkKind.PASSTHROUGH
        return Allocation(
            id=wish.uuid or self.situation.new_id(wish.name),
            name=wish.name,
            type_name=vgpu_type.name,
            type_id=vgpu_type.type_id,
            fb_mib=vgpu_type.fb_mib,
            gpu=identity_of(choice.card.gpu),
            framework=framework if choice.parent is not None else None,
            parent=choice.parent,
            params=params,
            created_at=self.situation.now,
        )

    def _create(self, allocation: Allocation, wish: VgpuWish) -> tuple[int, ...]:
        """The steps after which the vGPU exists; records the allocation where it is new or changed."""
        snapshot = self.situation.snapshot
        params = self.situation.params(wish, allocation)
        present = observed_for(allocation, snapshot)
        if present is not None:
            gpu = self.cards[present.gpu].gpu
            there = instance_of(present, gpu) or allocation.instance
            kept = replace(allocation, params=params, instance=there)
            if kept != self.situation.allocations.get(allocation.id):
                self.allocate[kept.id] = kept
            return self._set_params(kept, present)
        self.situation.be_sure_that_it_is_gone(allocation)
        allocation = replace(allocation, params=params)
        self._forget(allocation)
        card = self.cards[allocation.gpu.address]
        gpu = card.gpu
        if allocation.type_name == passthrough.WHOLE_GPU.name:
            return (self._add_creation(allocation, gpu, gpu.address, FrameworkKind.PASSTHROUGH, 0),)
        if not card.vfs_on and gpu.state is GpuState.VFS_OFF:
            if gpu.address in self.situation.kept_off():
                raise errors.GpuState(
                    f"the VFs of GPU {gpu.address} are off, as its Gpu document says",
                    hint="apply that document with vfs: true, or choose another GPU",
                    gpu=str(gpu.address),
                )
            self._set_vfs(gpu, enabled=True, reason=f"vGPU {allocation.name} needs a VF")
            card = self.cards[gpu.address]
        if gpu.state is GpuState.VFS_OFF:
            # Types, framework and VFs show only when the VFs are on: the GPU is kept, the rest follows.
            self._keep_place(replace(allocation, framework=None, created_boot=None))
            return ()
        vgpu_type = gpu.type_named(allocation.type_name)
        if vgpu_type is None and allocation.type_id is not None:
            vgpu_type = gpu.type_numbered(allocation.type_id)
        framework = allocation.framework
        if framework is not FrameworkKind.PASSTHROUGH:
            framework = gpu.framework
        if framework is None:
            raise errors.GpuState(f"GPU {gpu.address} is {gpu.state}: {gpu.state_reason}")
        # A vGPU that has its GPU stays there: a parent that just refused is better than none.
        every = free_parents(card)
        free = [each for each in every if each not in self.situation.avoided] or every
        parent = allocation.parent if allocation.parent in free else next(iter(free), None)
        type_id = vgpu_type.type_id if vgpu_type is not None else allocation.type_id
        if parent is None or type_id is None:
            full = f"GPU {gpu.address} has no free place for vGPU {allocation.name} ({allocation.type_name})"
            raise errors.NoCapacity(full, gpu=str(gpu.address))
        hostdev = frameworks.hostdev(framework, allocation.id, parent)
        if wish.domain is not None and parent != allocation.parent and isinstance(hostdev.source, PciSource):
            # Its domain's XML names the VF, and would start with whatever stands there.
            self.situation.domain(wish.domain)
        instance = landing(card, vgpu_type, allocation.instance) if vgpu_type is not None else None
        return (self._add_creation(allocation, gpu, parent, framework, type_id, instance=instance),)

    def _add_creation(
        self,
        allocation: Allocation,
        gpu: Gpu,
        parent: GpuAddress,
        framework: FrameworkKind,
        type_id: int,
        *,
        instance: GpuInstance | None = None,
    ) -> int:
        allocation = replace(
            allocation,
            framework=framework,
            parent=parent,
            type_id=type_id,
            created_boot=None,
            lost=False,
            instance=instance.place if instance is not None else allocation.instance,
        )
        effect = CreateVgpu(
            vgpu=allocation.id,
            name=allocation.name,
            gpu=identity_of(gpu),
            framework=framework,
            parent=parent,
            type_id=type_id,
            type_name=allocation.type_name,
            params=allocation.params,
            instance=instance.place if instance is not None else None,
            instance_id=instance.id if instance is not None else None,
        )
        self._check(effect)
        self.allocate[allocation.id] = allocation
        return self._add(effect, "it is wished and does not exist")

    def _keep_place(self, allocation: Allocation) -> None:
        """Reserve room on a card whose VFs are still off."""
        if allocation != self.situation.allocations.get(allocation.id):
            self.allocate[allocation.id] = allocation
        gpu = self.cards[allocation.gpu.address].gpu
        released = {each.id for each in self.release}
        others = [*self.situation.allocations.values(), *self.allocate.values()]
        others = [each for each in others if each.id not in released]
        card = card_of(
            gpu,
            self.cards[gpu.address].model,
            {each.id: each for each in others}.values(),
            self.situation.snapshot.boot_id,
        )
        self.cards[gpu.address] = replace(card, vfs_on=self.cards[gpu.address].vfs_on)

    def _set_params(self, allocation: Allocation, vgpu: ObservedVgpu) -> tuple[int, ...]:
        """Write parameters that differ; a running guest takes them at its next start [UG17 2.8.5]."""
        if allocation.params is None or vgpu.params is None or allocation.adopted:
            return ()
        if isinstance(vgpu.params, Unknown) or vgpu.params.strip() == allocation.params:
            return ()
        assert allocation.framework is not None
        effect = SetParams(
            vgpu=allocation.id,
            name=allocation.name,
            gpu=allocation.gpu,
            framework=allocation.framework,
            parent=vgpu.parent,
            type_id=allocation.type_id or 0,
            params=allocation.params,
        )
        return (self._add(effect, f"they are {vgpu.params.strip()!r}"),)

    # -- domains ----------------------------------------------------------------------------------

    def _attach(self, allocation: Allocation, wish: VgpuWish, needs: tuple[int, ...]) -> None:
        assert wish.domain is not None
        assert allocation.framework is not None
        assert allocation.parent is not None
        domain = self.situation.domain(wish.domain)
        hypervisor = self.situation.snapshot.hypervisor
        if isinstance(hypervisor, Unknown):
            raise errors.LibvirtUnreachable(hypervisor.reason)
        hostdev = frameworks.hostdev(allocation.framework, allocation.id, allocation.parent)
        live, config = self.situation.hostdevs_in(domain, allocation)
        affect = wanted_in(wish.affect, domain, hypervisor)
        stale = {
            Affect.LIVE: live if live and not _is_as_made(live, hostdev) else None,
            Affect.CONFIG: config if config and not _is_as_made(config, hostdev) else None,
        }
        for where, old in stale.items():
            if old is not None:
                effect = DetachHostdev(
                    vgpu=allocation.id,
                    name=allocation.name,
                    domain=domain.name,
                    hostdev=old,
                    affect=frozenset({where}),
                )
                changed = "its hostdev was changed by hand"
                moved = "the vGPU stands elsewhere now"
                reason = changed if old.source == hostdev.source else moved
                number = self._add(effect, reason, touches=guests_of(effect))
                needs = (*needs, number)
        present = {Affect.LIVE: live, Affect.CONFIG: config}
        missing = frozenset(where for where in affect if present[where] is None or stale[where] is not None)
        if not missing:
            return
        if hypervisor.refusal(allocation.framework) is not None:
            raise self.situation.unsupported(allocation.framework, wish)
        effect_in = AttachHostdev(
            vgpu=allocation.id, name=allocation.name, domain=domain.name, hostdev=hostdev, affect=missing
        )
        self._add(effect_in, "the desktop wishes it", needs=needs, touches=guests_of(effect_in))


def _is_as_made(there: Hostdev, right: Hostdev) -> bool:
    """Whether a hostdev names what it should; one that we made also in the way in which we made it."""
    return there.source == right.source and (there.alias != right.alias or there.managed == right.managed)

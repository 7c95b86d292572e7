"""From what is and what should be to a plan.  Pure: nothing here reads or writes a host.

Order of a plan: hostdevs come out of domains, vGPUs go, VFs go off, MIG mode turns, VFs go on, compute
and GPU instances go and come, vGPUs come, hostdevs go in.
Steps of one GPU or one domain never overlap (lanes); `needs` orders what crosses lanes and
what frees the room that a later step takes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vgpuctl import errors
from vgpuctl.model import frameworks
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.attachment import wanted_in
from vgpuctl.model.card import Card, free_parents, instance_of, landing
from vgpuctl.model.document import Affect, VgpuWish
from vgpuctl.model.domain import Hostdev, PciSource, alias_for
from vgpuctl.model.draft import Draft
from vgpuctl.model.fact import Unknown
from vgpuctl.model.frameworks import passthrough
from vgpuctl.model.gpu import FrameworkKind, Gpu, GpuInstance, GpuState, ObservedVgpu
from vgpuctl.model.gpuwide import Unsure, set_gpus_as_wished, set_vfs
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.plan import Plan, Problem
from vgpuctl.model.situation import Situation, find_gpu, identity_of, observed_for
from vgpuctl.model.start import held
from vgpuctl.model.step import (
    AttachHostdev,
    CreateVgpu,
    DetachHostdev,
    DisableAutostart,
    RemoveVgpu,
    SetParams,
    guests_of,
)


def plan(situation: Situation) -> Plan:
    """What has to be done."""
    return _Planner(situation, Draft(situation)).plan()


@dataclass(slots=True)
class _Planner:
    """One planning."""

    situation: Situation
    draft: Draft

    def plan(self) -> Plan:
        wanted = self.situation.wishes.vgpus()
        kept: dict[str, Allocation] = {}
        for allocation in sorted(self.situation.allocations.values(), key=self.situation.existing_first):
            wish = wanted.get(allocation.name)
            if wish is not None and allocation.name not in kept and self.situation.honours(allocation, wish):
                kept[allocation.name] = allocation
            elif self.situation.concerns(allocation.name):
                self._remove(allocation)

        unsure = set_gpus_as_wished(self.draft)
        going = {each.effect.vgpu for each in self.draft.steps if isinstance(each.effect, RemoveVgpu)}
        for name, wish in wanted.items():
            if self.situation.concerns(name):
                if wish.uuid in going:
                    # Under the same id: what is to come is planned once what stands has gone.
                    self.draft.incomplete = True
                    continue
                try:
                    self._provide(wish, kept.get(name))
                except errors.NoCapacity as error:
                    told = _or_unsure(unsure, kept.get(name), self._counted(error))
                    self.draft.problems.append(Problem(name, told))
                except errors.VgpuctlError as error:
                    self.draft.problems.append(Problem(name, error))
        return self.draft.plan()

    def _counted(self, error: errors.NoCapacity) -> errors.NoCapacity:
        """The error, which tells what the cards hold, with how much of that is only planned here."""
        planned = len(self.draft.allocate.keys() - self.situation.allocations.keys())
        if planned:
            error.message += f" (counting {planned} that this very change makes)"
        return error

    # -- what goes --------------------------------------------------------------------------------

    def _remove(self, allocation: Allocation) -> None:
        """Take a vGPU out of the domains that have it from us, and remove it."""
        try:
            detached = self._detach(allocation, keep_in=None)
            vgpu = observed_for(allocation, self.situation.snapshot)
            if vgpu is None:
                self.situation.be_sure_that_it_is_gone(allocation)
                self.draft.forget(allocation)
                if detached.steps:
                    # As long as some XML names it, it must not be forgotten.
                    self.draft.incomplete = True
                else:
                    self.draft.release.append(allocation)
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
                self.draft.check(effect)
            self.draft.add(effect, "nobody wishes it any longer", needs=detached.steps)
        except errors.VgpuctlError as error:
            self.draft.problems.append(Problem(allocation.name, error))

    @dataclass(frozen=True, slots=True)
    class _Detached:
        steps: tuple[int, ...]
        from_guest: bool

    def _detach(self, allocation: Allocation, *, keep_in: str | None) -> _Detached:
        """Detach a vGPU from every domain but `keep_in`; refuse where others attached it."""
        numbers: list[int] = []
        from_guest = False
        for domain in self.situation.users(allocation):
            if domain.name == keep_in:
                continue
            live, config = self.situation.hostdevs_in(domain, allocation)
            hostdev = live or config
            assert hostdev is not None
            if hostdev.alias != alias_for(allocation.id) and not allocation.adopted:
                raise errors.VgpuAttached(
                    f"domain {domain.name} has vGPU {allocation.name} in its XML, and not from us",
                    hint=f"take it out with virsh edit {domain.name}",
                    domain=domain.name,
                )
            if config is not None and domain.managed_save:
                raise errors.InvalidDomainState(
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
            number = self.draft.add(effect, "the desktop no longer wishes it", touches=guests_of(effect))
            numbers.append(number)
        return self._Detached(tuple(numbers), from_guest)

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
                self.draft.release.append(allocation)
                self.draft.forget(allocation)
                allocation = self._allocate(wish)
        self._be_sole_starter(allocation, wish)
        created = self._create(allocation, wish)
        allocation = self.draft.allocate.get(allocation.id, allocation)
        if allocation.framework is None:
            self.draft.incomplete = True
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
            self.draft.add(effect, "vgpuctl alone is to start it")

    def _allocate(self, wish: VgpuWish) -> Allocation:
        """Choose a place for a wish that has none."""
        types, policy, params = self.situation.requirements(wish)
        cards: list[Card] = list(self.draft.cards.values())
        if wish.gpu is not None:
            cards = [self.draft.cards[find_gpu(self.situation.snapshot, wish.gpu).address]]
        elif passthrough.WHOLE_GPU.name not in types:
            kept_off = self.situation.kept_off
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
        allocation = replace(allocation, params=self.situation.params(wish, allocation))
        present = observed_for(allocation, self.situation.snapshot)
        if present is not None:
            return self._keep(allocation, present)
        self.situation.be_sure_that_it_is_gone(allocation)
        self.draft.forget(allocation)
        card = self.draft.cards[allocation.gpu.address]
        gpu = card.gpu
        if allocation.type_name == passthrough.WHOLE_GPU.name:
            return (self._add_creation(allocation, gpu, gpu.address, FrameworkKind.PASSTHROUGH, 0),)
        if gpu.state is GpuState.VFS_OFF:
            self._want_vfs(allocation, card)
            return ()
        framework = gpu.framework
        if allocation.framework is FrameworkKind.PASSTHROUGH:
            framework = FrameworkKind.PASSTHROUGH
        if framework is None:
            raise errors.InvalidGpuState(f"GPU {gpu.address} is {gpu.state}: {gpu.state_reason}")
        vgpu_type = gpu.type_named(allocation.type_name)
        if vgpu_type is None and allocation.type_id is not None:
            vgpu_type = gpu.type_numbered(allocation.type_id)
        parent = self._parent_for(allocation, card)
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

    def _keep(self, allocation: Allocation, present: ObservedVgpu) -> tuple[int, ...]:
        """The steps after which a vGPU that exists is as wished; records what is now known of its place."""
        gpu = self.draft.cards[present.gpu].gpu
        kept = replace(allocation, instance=instance_of(present, gpu) or allocation.instance)
        if kept.gpu.uuid is None and kept.gpu == replace(identity_of(gpu), uuid=None):
            kept = replace(kept, gpu=identity_of(gpu))
        if kept != self.situation.allocations.get(kept.id):
            self.draft.allocate[kept.id] = kept
        return self._set_params(kept, present)

    def _want_vfs(self, allocation: Allocation, card: Card) -> None:
        """Turn the VFs of a card on, and keep room on it; InvalidGpuState where its document says off.

        Types, framework and VFs show only when the VFs are on: the GPU is kept, the rest follows.
        """
        gpu = card.gpu
        if not card.vfs_on and gpu.address in self.situation.kept_off:
            raise errors.InvalidGpuState(
                f"the VFs of GPU {gpu.address} are off, as its Gpu document says",
                hint="apply that document with vfs: true, or choose another GPU",
                gpu=str(gpu.address),
            )
        set_vfs(self.draft, gpu, enabled=True, reason=f"vGPU {allocation.name} needs a VF")
        self.draft.keep_place(replace(allocation, framework=None, created_boot=None))

    def _parent_for(self, allocation: Allocation, card: Card) -> GpuAddress | None:
        """The parent that it had, while that is free, else another; None where the card is full.

        A vGPU that has its GPU stays there: a parent that just refused is better than none.
        """
        every = free_parents(card)
        free = [each for each in every if each not in self.situation.avoided] or every
        return allocation.parent if allocation.parent in free else next(iter(free), None)

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
        number = self.draft.add_allowed(effect, "it is wished and does not exist")
        self.draft.allocate[allocation.id] = allocation
        return number

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
        return (self.draft.add(effect, f"they are {vgpu.params.strip()!r}"),)

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
                number = self.draft.add(effect, reason, touches=guests_of(effect))
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
        self.draft.add(effect_in, "the desktop wishes it", needs=needs, touches=guests_of(effect_in))


def _is_as_made(there: Hostdev, right: Hostdev) -> bool:
    """Whether a hostdev names what it should; one that we made also in the way in which we made it."""
    return there.source == right.source and (there.alias != right.alias or there.managed == right.managed)


def _or_unsure(unsure: Unsure, kept: Allocation | None, error: errors.NoCapacity) -> errors.VgpuctlError:
    """No room on a card whose instances are still to be cut, and cannot be told now, is not no room."""
    if kept is not None:
        return unsure.get(kept.gpu.address, error)
    return next(iter(unsure.values()), error)

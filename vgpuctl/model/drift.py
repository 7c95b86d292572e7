"""Drift: what differs from what should be, from documents, places and a snapshot.  Pure.

Of a GPU that is not there, cannot be read, or is another one, that alone is told, and not each of its
vGPUs.  What cannot be read is no drift.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from vgpuctl.model import frameworks
from vgpuctl.model.allocation import Allocation, GpuIdentity
from vgpuctl.model.attachment import Attachments, wanted_in
from vgpuctl.model.card.instances import forgets_mode
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import GpuDocument, Repair, VgpuWish, Wishes
from vgpuctl.model.domain import Domain, Hypervisor
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.finding import MEANINGS, Drift, Finding
from vgpuctl.model.gpu import FrameworkKind, Gpu, GpuState, ObservedVgpu
from vgpuctl.model.mig.wish import has_unwished, is_met
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.situation import gpu_of, may_exist_unseen, names_gpu, observed_for
from vgpuctl.model.snapshot import Snapshot

_NOT_READY = frozenset({GpuState.NO_DRIVER, GpuState.NO_TYPES, GpuState.PARKED, GpuState.PASSED_THROUGH})
_OF_MIG = frozenset({Drift.MIG_MODE_DIFFERS, Drift.GPU_INSTANCES_DIFFER})
_OF_XML = frozenset(
    {
        Drift.DOMAIN_GONE,
        Drift.HOSTDEV_MISSING,
        Drift.HOSTDEV_CHANGED,
        Drift.HOSTDEV_STRAY,
        Drift.HOSTDEV_FOREIGN,
        Drift.HOSTDEV_UNOWNED,
    }
)
_STRENGTH = {Repair.NEVER: 0, Repair.ASK: 1, Repair.AUTO: 2}


def policy_of(gpu: GpuIdentity | None, wishes: Wishes, host: Repair) -> Repair:
    """The policy for what stands on a GPU: its document's, else the host's."""
    for wish in wishes.documents.values():
        document = wish.document
        if gpu is None or not isinstance(document, GpuDocument) or document.repair is None:
            continue
        if names_gpu(document.name, gpu.address, gpu.uuid):
            return document.repair
    return host


def is_unasked(allocation: Allocation | None, snapshot: Snapshot, policy: Repair) -> bool:
    """Whether a vGPU that is missing may be made without a question.

    What a boot took was taken from everybody: it is restored also where repair is asked for.
    """
    if policy is Repair.ASK:
        return allocation is not None and allocation.created_boot != snapshot.boot_id
    return policy is Repair.AUTO


def is_untouched(gpu: GpuAddress, allocations: Iterable[Allocation], snapshot: Snapshot) -> bool:
    """Whether nothing of ours was made on a GPU since the boot."""
    return all(each.created_boot != snapshot.boot_id for each in allocations if each.gpu.address == gpu)


def findings(
    snapshot: Snapshot,
    wishes: Wishes,
    allocations: Mapping[UUID, Allocation],
    host: Repair,
    catalog: Catalog,
) -> tuple[Finding, ...]:
    """Everything that is not as it should be, GPUs first."""
    return tuple(_Look(snapshot, wishes, allocations, host, catalog).all())


@dataclass(slots=True)
class _Look:
    snapshot: Snapshot
    wishes: Wishes
    allocations: Mapping[UUID, Allocation]
    host: Repair
    catalog: Catalog
    told: set[UUID] = field(default_factory=set)
    """Allocations of which a finding about their GPU tells enough."""
    owned: list[ObservedVgpu] = field(default_factory=list)

    def all(self) -> Iterator[Finding]:
        wished = self.wishes.vgpus()
        yield from self._gpus()
        names = set()
        for allocation in self.allocations.values():
            names.add(allocation.name)
            vgpu = observed_for(allocation, self.snapshot)
            if vgpu is not None:
                self.owned.append(vgpu)
            if allocation.id in self.told:
                continue
            wish = wished.get(allocation.name)
            if wish is None:
                if vgpu is not None:
                    yield self._about(allocation, Drift.UNWISHED, f"nobody wishes the vGPU on {vgpu.parent}")
            elif vgpu is None:
                yield from self._absent(allocation)
            elif wish.sole_starter and self.snapshot.autostart_of(allocation.id) is not None:
                yield self._about(allocation, Drift.ALSO_AUTOSTARTED, "mdevctl starts it too")
        for name in wished.keys() - names:
            text = "it has no place yet"
            yield self._finding(Drift.NOT_MADE, name, text, self.host, names=(name,))
        domains = self.snapshot.domains
        if not isinstance(domains, Unknown):
            yield from self._xml(wished, {each.name: each for each in domains})
        yield from self._foreign()

    def _finding(
        self,
        code: Drift,
        subject: str,
        detail: str,
        policy: Repair,
        *,
        gpu: GpuAddress | str | None = None,
        names: tuple[str, ...] = (),
        user: str | None = None,
    ) -> Finding:
        done = min(MEANINGS[code].most, policy, key=_STRENGTH.__getitem__)
        return Finding(
            code=code,
            subject=subject,
            detail=detail,
            repair=done,
            gpu=str(gpu) if gpu is not None else None,
            names=names,
            user=user,
        )

    def _about(self, allocation: Allocation, code: Drift, detail: str) -> Finding:
        policy = policy_of(allocation.gpu, self.wishes, self.host)
        if code is Drift.NOT_MADE and policy is Repair.ASK and is_unasked(allocation, self.snapshot, policy):
            policy = Repair.AUTO
        return self._finding(
            code, allocation.name, detail, policy, gpu=allocation.gpu.address, names=(allocation.name,)
        )

    # -- GPUs -------------------------------------------------------------------------------------

    def _gpus(self) -> Iterator[Finding]:
        groups: dict[GpuIdentity, list[Allocation]] = {}
        for allocation in self.allocations.values():
            groups.setdefault(allocation.gpu, []).append(allocation)
        gone: set[str] = set()
        for identity, places in groups.items():
            found = self._gpu(identity, places)
            if found is None:
                continue
            code, detail, at = found
            self.told |= {each.id for each in places}
            names = tuple(sorted(each.name for each in places))
            policy = policy_of(identity, self.wishes, self.host)
            gone |= {str(identity.address), str(at)}
            subject = identity.uuid or str(identity.address) if code is Drift.CARD_MOVED else str(at)
            yield self._finding(code, subject, detail, policy, gpu=at, names=names)
        yield from self._documents(gone)

    def _documents(self, told: Collection[str]) -> Iterator[Finding]:
        """What Gpu documents say and is not so, besides the GPUs of which enough is told."""
        for key, wish in sorted(self.wishes.documents.items()):
            document = wish.document
            if not isinstance(document, GpuDocument):
                continue
            policy, names = document.repair or self.host, (str(key),)
            gpus = self.snapshot.gpus
            gpu = next((e for e in gpus if names_gpu(document.name, e.address, known(e.uuid))), None)
            if gpu is None:
                unsaid = any(isinstance(each.uuid, Unknown) for each in gpus)
                if document.name in told or (unsaid and document.name.upper().startswith("GPU-")):
                    continue
                text, name = "its Gpu document names a GPU that is not on this host", document.name
                yield self._finding(Drift.GPU_GONE, name, text, policy, gpu=name, names=names)
            elif str(gpu.address) in told:
                continue
            else:
                for code, text, most in (*self._vfs(document, gpu), *self._mig(document, gpu)):
                    # What a boot took is made again also where repair is asked for.
                    done = policy if policy is Repair.NEVER else most
                    yield self._finding(code, str(gpu.address), text, done, gpu=gpu.address, names=names)

    def _vfs(self, document: GpuDocument, gpu: Gpu) -> Iterator[tuple[Drift, str, Repair]]:
        if document.vfs and gpu.state is GpuState.VFS_OFF:
            text = f"the VFs of GPU {gpu.address} are off, and its document says on"
            yield Drift.VFS_DIFFER, text, Repair.AUTO
        elif document.vfs is False and gpu.vfs:
            text = f"the VFs of GPU {gpu.address} are on, and its document says off"
            yield Drift.VFS_DIFFER, text, Repair.ASK

    def _mig(self, document: GpuDocument, gpu: Gpu) -> Iterator[tuple[Drift, str, Repair]]:
        wish = document.mig
        if wish is None or is_met(wish, gpu):
            return
        if gpu.mig == wish.enabled:
            text = f"the GPU instances of GPU {gpu.address} are not those of its document"
            most = Repair.ASK if has_unwished(wish, gpu) else Repair.AUTO
            yield Drift.GPU_INSTANCES_DIFFER, text, most
            return
        is_on, wanted = ("on", "off") if gpu.mig else ("off", "on")
        text = f"MIG mode of GPU {gpu.address} is {is_on}, and its document says {wanted}"
        in_use = self._use_of(gpu)
        resets = not forgets_mode(self.catalog.find(gpu.device))
        untouched = is_untouched(gpu.address, self.allocations.values(), self.snapshot)
        is_lost = gpu.state is GpuState.VFS_OFF and untouched
        if in_use is not None:
            yield Drift.MIG_MODE_DIFFERS, f"{text}; {in_use}", Repair.NEVER
        elif wish.enabled and is_lost and not resets:
            yield Drift.MIG_MODE_DIFFERS, text, Repair.AUTO
        else:
            yield Drift.MIG_MODE_DIFFERS, f"{text}; that resets it" if resets else text, Repair.ASK

    def _use_of(self, gpu: Gpu) -> str | None:
        """Who would notice when the mode of a GPU changes; None for nobody."""
        passed = sum(
            each.framework is FrameworkKind.PASSTHROUGH and observed_for(each, self.snapshot) is not None
            for each in self.allocations.values()
            if gpu_of(each, self.snapshot) == gpu
        )
        count = len(gpu.vgpus) + passed
        if count:
            return f"it carries {count} vGPU{'' if count == 1 else 's'}"
        if isinstance(gpu.holders, Unknown):
            return f"who has it open is not known: {gpu.holders.reason}"
        return f"{gpu.holders[0].command} (pid {gpu.holders[0].pid}) has it open" if gpu.holders else None

    def _gpu(self, identity: GpuIdentity, places: list[Allocation]) -> tuple[Drift, str, GpuAddress] | None:
        gpu = gpu_of(places[0], self.snapshot)
        count = f"{len(places)} vGPU{'' if len(places) == 1 else 's'}"
        if gpu is None:
            who = f" ({identity.uuid})" if identity.uuid else ""
            return Drift.GPU_GONE, f"GPU {identity.address}{who} with {count} is gone", identity.address
        if not gpu.is_readable:
            return Drift.GPU_UNREADABLE, f"GPU {gpu.address}: {gpu.state_reason}", gpu.address
        uuid = known(gpu.uuid)
        is_other = uuid is not None and identity.uuid is not None and uuid != identity.uuid
        if gpu.device != identity.device or is_other:
            text = f"{uuid or gpu.device} stands at {gpu.address}, where {identity.uuid or identity.device}"
            return Drift.CARD_CHANGED, f"{text} with {count} was", gpu.address
        if gpu.address != identity.address:
            text = f"the card with {count} stands at {gpu.address}; it was at {identity.address}"
            return Drift.CARD_MOVED, text, gpu.address
        if gpu.state in _NOT_READY and self._needs_types(places):
            return Drift.GPU_NOT_READY, f"GPU {gpu.address} is {gpu.state}: {gpu.state_reason}", gpu.address
        made = [each for each in places if each.created_boot == self.snapshot.boot_id and self._on_vf(each)]
        if gpu.state is GpuState.VFS_OFF and made:
            text = f"the VFs of GPU {gpu.address} are off; {count} stood on them in this boot"
            return Drift.DRIVER_RELOADED, text, gpu.address
        return None

    def _on_vf(self, allocation: Allocation) -> bool:
        return allocation.parent is not None and allocation.parent != allocation.gpu.address

    def _needs_types(self, places: list[Allocation]) -> bool:
        return any(each.framework is not FrameworkKind.PASSTHROUGH for each in places)

    # -- vGPUs ------------------------------------------------------------------------------------

    def _absent(self, allocation: Allocation) -> Iterator[Finding]:
        if may_exist_unseen(allocation, self.snapshot):
            return
        gpu = gpu_of(allocation, self.snapshot)
        assert gpu is not None
        definition = self.snapshot.autostart_of(allocation.id)
        if definition is not None and allocation.framework is not FrameworkKind.VENDOR_VFIO:
            text = f"mdevctl is to start it on {definition.parent}"
            yield self._about(allocation, Drift.LEFT_TO_MDEVCTL, text)
        elif allocation.created_boot != self.snapshot.boot_id:
            yield self._about(allocation, Drift.NOT_MADE, "it was not made in this boot")
        elif self._on_vf(allocation) and allocation.parent not in {each.address for each in gpu.vfs}:
            text = f"VF {allocation.parent}, on which it stood, is gone"
            yield self._about(allocation, Drift.VF_GONE, text)
        elif self._is_taken(allocation):
            text = f"somebody else's vGPU stands on {allocation.parent}"
            yield self._about(allocation, Drift.VF_TAKEN, text)
        else:
            text = f"it stood on {allocation.parent}, and somebody removed it"
            yield self._about(allocation, Drift.VGPU_VANISHED, text)

    def _is_taken(self, allocation: Allocation) -> bool:
        assert allocation.parent is not None
        return self._on_vf(allocation) and bool(self.snapshot.on(allocation.parent))

    def _foreign(self) -> Iterator[Finding]:
        places = {each.parent: each for each in self.allocations.values()}
        owned = {(each.parent, each.mdev_uuid) for each in self.owned}
        for vgpu in self.snapshot.vgpus():
            if (vgpu.parent, vgpu.mdev_uuid) in owned:
                continue
            if isinstance(vgpu.type_id, Unknown) and vgpu.parent in places:
                continue  # it may be ours
            name = str(vgpu.mdev_uuid or vgpu.parent)
            kind = known(vgpu.type_name) or "vGPU of unknown type"
            gpu = self.snapshot.gpu_at(vgpu.gpu)
            identity = None
            if gpu is not None:
                identity = GpuIdentity(address=gpu.address, device=gpu.device, uuid=known(gpu.uuid))
            text = f"a {kind} on {vgpu.parent} that vgpuctl did not make"
            yield self._finding(
                Drift.FOREIGN_VGPU,
                name,
                text,
                policy_of(identity, self.wishes, self.host),
                gpu=vgpu.gpu,
                user=user_of(vgpu, self.snapshot.attachments),
            )

    # -- XML --------------------------------------------------------------------------------------

    def _xml(self, wished: dict[str, VgpuWish], domains: dict[str, Domain]) -> Iterator[Finding]:
        hypervisor = known(self.snapshot.hypervisor)
        for name, wish in wished.items():
            if wish.domain is not None and wish.domain not in domains and hypervisor is not None:
                text = f"libvirt has no domain {wish.domain}"
                place = next((each for each in self.allocations.values() if each.name == name), None)
                gpu = place.gpu if place is not None else None
                policy = policy_of(gpu, self.wishes, self.host)
                at = gpu.address if gpu is not None else None
                yield self._finding(Drift.DOMAIN_GONE, name, text, policy, gpu=at, names=(name,))
        for allocation in self.allocations.values():
            wish_of = wished.get(allocation.name)
            domain = domains.get(wish_of.domain or "") if wish_of is not None else None
            yield from self._hostdevs(allocation, wish_of, domain, hypervisor)
        for vgpu_id, places in self.snapshot.attachments.ids().items():
            if vgpu_id not in self.allocations:
                for name in dict.fromkeys(each.domain for each in places):
                    text = f"domain {name} has a hostdev of vGPU {vgpu_id}, which is not known here"
                    yield self._finding(Drift.HOSTDEV_UNOWNED, name, text, self.host)

    def _hostdevs(
        self,
        allocation: Allocation,
        wish: VgpuWish | None,
        domain: Domain | None,
        hypervisor: Hypervisor | None,
    ) -> Iterator[Finding]:
        attachments = self.snapshot.attachments
        home = domain.name if domain is not None else None
        mine = attachments.of(allocation.id)
        exists = observed_for(allocation, self.snapshot) is not None
        stray = next((each.domain for each in mine if each.domain != home), None)
        if stray is not None and (wish is not None or not exists):
            text = f"domain {stray} has its hostdev, and no document gives it to that domain"
            yield self._about(allocation, Drift.HOSTDEV_STRAY, text)
        if not exists:
            return
        assert allocation.framework is not None
        assert allocation.parent is not None
        right = frameworks.hostdev(allocation.framework, allocation.id, allocation.parent)
        others = (each for each in attachments.naming(right.source) if each.vgpu != allocation.id)
        foreign = next((each.domain for each in others if each.domain != home), None)
        if foreign is not None:
            text = f"domain {foreign} has a hostdev that names it, and not from us"
            yield self._about(allocation, Drift.HOSTDEV_FOREIGN, text)
        at_home = [each.hostdev for each in mine if each.domain == home]
        if any((each.source, each.managed) != (right.source, right.managed) for each in at_home):
            yield self._about(allocation, Drift.HOSTDEV_CHANGED, f"its hostdev in domain {home} was changed")
        if wish is None or domain is None or hypervisor is None:
            return
        standing = attachments.standing_for(allocation, by_source=True)
        there = {each.where for each in standing if each.domain == home}
        missing = wanted_in(wish.affect, domain, hypervisor) - there
        if missing:
            where = " and ".join(sorted(missing))
            text = f"domain {home} does not have it in its XML ({where})"
            yield self._about(allocation, Drift.HOSTDEV_MISSING, text)


def user_of(vgpu: ObservedVgpu, attachments: Attachments) -> str | None:
    """Who uses a vGPU that is not ours: the domain whose XML names it, else who holds it open."""
    for attachment in attachments.naming_observed(vgpu):
        return attachment.domain
    for holder in known(vgpu.holders) or ():
        return holder.domain or f"{holder.command} (pid {holder.pid})"
    return None


def has_gpu(gpu: Gpu, finding: Finding) -> bool:
    """Whether a finding is about what stands on that GPU."""
    return finding.gpu in (str(gpu.address), known(gpu.uuid))


def is_unread(finding: Finding, snapshot: Snapshot) -> bool:
    """Whether it may be so still: what would show it could not be read, and nothing else tells of that."""
    if finding.code in _OF_XML:
        return isinstance(snapshot.domains, Unknown)
    if finding.code not in _OF_MIG:
        return False
    return any(
        gpu.is_readable and has_gpu(gpu, finding) and (isinstance(gpu.mig, Unknown) or _is_cut_unread(gpu))
        for gpu in snapshot.gpus
    )


def _is_cut_unread(gpu: Gpu) -> bool:
    return gpu.mig is True and isinstance(gpu.gpu_instances, Unknown)

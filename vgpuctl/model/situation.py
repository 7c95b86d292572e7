"""What a plan is made from, and what can be asked of it: who stands where, what a wish needs.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model import frameworks, placement
from vgpuctl.model.allocation import Allocation, GpuIdentity
from vgpuctl.model.attachment import Attachment
from vgpuctl.model.card import Card, stands_on
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import Affect, GpuDocument, Placement, ProfileDocument, VgpuWish, Wishes
from vgpuctl.model.domain import Domain, Hostdev
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import FrameworkKind, Gpu, ObservedVgpu
from vgpuctl.model.mig.compute import asked_for
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import CreateComputeInstance
from vgpuctl.model.typename import nearest


@dataclass(frozen=True, kw_only=True)
class Situation:
    """All that a plan is made from.

    `scope` are the names of vGPUs, and the keys of `Gpu` documents, that may be changed; None is
    everything.  `avoid` are parents and GPUs on which a creation has just failed.  `new_id` gives the
    id of a new allocation by name.  `former` are the `Gpu` documents that the change replaces, `made` the
    compute instances that its operation has made.  `desktops_change` says that a Desktop document was
    put, dropped or put back: what the domains have must be known.
    """

    snapshot: Snapshot
    wishes: Wishes
    allocations: Mapping[UUID, Allocation]
    catalog: Catalog
    now: datetime
    new_id: Callable[[str], UUID]
    scope: frozenset[str] | None = None
    avoid: frozenset[GpuAddress] = frozenset()
    desktops_change: bool = False
    former: tuple[GpuDocument, ...] = ()
    made: tuple[CreateComputeInstance, ...] = ()

    @cached_property
    def avoided(self) -> frozenset[GpuAddress]:
        """Parents to keep off where there are others: refused just now, or promised to a foreign mdev.

        A VF that mdevctl is about to fill must not be taken from under it.
        """
        promised = {
            each.parent
            for each in known(self.snapshot.definitions) or ()
            if each.autostart and each.uuid not in self.allocations and self.snapshot.mdev(each.uuid) is None
        }
        if not promised:
            return self.avoid
        vfs = (vf.address for gpu in self.snapshot.gpus for vf in gpu.vfs)
        return self.avoid | {each for each in vfs if str(each) in promised}

    def concerns(self, name: str) -> bool:
        """Whether this plan may change what goes by that name."""
        return self.scope is None or name in self.scope

    def existing_first(self, allocation: Allocation) -> tuple[str, bool, str]:
        """An operation that could not be undone leaves two places of one name: what exists is kept."""
        is_absent = observed_for(allocation, self.snapshot) is None
        return allocation.name, is_absent, str(allocation.id)

    def honours(self, allocation: Allocation, wish: VgpuWish) -> bool:
        """Whether an allocation is still what its wish asks for."""
        try:
            types, _, _ = self.requirements(wish)
        except errors.ProfileUnknown:
            # The profile is gone; the desktop keeps what it has.
            return True
        names = {each.casefold() for each in types}
        if allocation.type_name.casefold() not in names or (wish.uuid not in (None, allocation.id)):
            return False
        if wish.gpu is None or names_gpu(wish.gpu, allocation.gpu.address, allocation.gpu.uuid):
            return True  # what stands at that address now may be another card: `relocated` tells
        try:
            return stands_on(allocation.gpu, find_gpu(self.snapshot, wish.gpu))
        except errors.GpuNotFound:
            return False

    def requirements(self, wish: VgpuWish) -> tuple[tuple[str, ...], Placement, str | None]:
        """The types, the placement and the parameters that a wish asks for."""
        if wish.type is not None:
            return (wish.type,), Placement(), None
        assert wish.profile is not None
        profile = profile_named(self.wishes, wish.profile)
        params = ",".join(f"{key}={value}" for key, value in profile.params)
        return profile.types, profile.placement, params or None

    def params(self, wish: VgpuWish, allocation: Allocation) -> str | None:
        """The parameters wished now; where the profile is gone, those that were."""
        try:
            return self.requirements(wish)[2]
        except errors.ProfileUnknown:
            return allocation.params

    def gpu_of(self, allocation: Allocation) -> Gpu | None:
        """The card of an allocation, wherever it is."""
        return gpu_of(allocation, self.snapshot)

    def relocated(self, allocation: Allocation) -> Allocation:
        """Keep an allocation; follow its card to another slot, stop where another card stands."""
        gpu = self.gpu_of(allocation)
        if gpu is None:
            raise errors.GpuNotFound(
                f"the GPU of vGPU {allocation.name} ({allocation.gpu.address}) is not on this host"
            )
        if not gpu.is_readable:
            raise errors.FactUnknown(f"GPU {gpu.address} cannot be read: {gpu.state_reason}")
        if gpu.device != allocation.gpu.device or self._is_another(gpu, allocation):
            old = allocation.gpu.uuid or gpu.address
            raise errors.CardChanged(
                f"another card stands at {gpu.address}, where vGPU {allocation.name} was allocated",
                hint=f"put it back, or let the other stand in: vgpuctl gpu replace {old} {gpu.address}",
                was=allocation.gpu.uuid,
                now=known(gpu.uuid),
            )
        if gpu.address == allocation.gpu.address:
            return allocation
        return replace(allocation, gpu=identity_of(gpu), parent=None, framework=None, created_boot=None)

    def _is_another(self, gpu: Gpu, allocation: Allocation) -> bool:
        uuid = known(gpu.uuid)
        return uuid is not None and allocation.gpu.uuid is not None and uuid != allocation.gpu.uuid

    def be_sure_that_it_is_gone(self, allocation: Allocation) -> None:
        """UNKNOWN is not gone: an unreadable GPU may still have it."""
        if allocation.created_boot is None or not may_exist_unseen(allocation, self.snapshot):
            return
        gpu = self.gpu_of(allocation)
        reason = f" ({gpu.state_reason})" if gpu is not None and gpu.state_reason else ""
        raise errors.FactUnknown(
            f"whether vGPU {allocation.name} still exists is not known: "
            f"{allocation.parent} cannot be read{reason}",
            gpu=str(allocation.gpu.address),
        )

    def compute_of(self, gpu: Gpu) -> dict[GiPlace, Counter[str]]:
        """The compute instances that are ours: asked for, now or before, or made by this operation."""
        uuid = known(gpu.uuid)
        documents = [*self.former, *(each.document for each in self.wishes.documents.values())]
        found = asked_for(
            each
            for each in documents
            if isinstance(each, GpuDocument) and names_gpu(each.name, gpu.address, uuid)
        )
        for effect in self.made:
            if stands_on(effect.gpu, gpu):
                place = GiPlace(effect.start, effect.profile)
                found[place] = found.get(place, Counter()) | Counter({effect.compute: effect.number})
        return found

    def compute_before(self, gpu: Gpu) -> dict[GiPlace, Counter[str]]:
        """What the document said before this change; where none is replaced, what it says."""
        former = [each for each in self.former if names_gpu(each.name, gpu.address, known(gpu.uuid))]
        now = [each.document for each in self.wishes.documents.values()]
        return asked_for(
            each
            for each in former or now
            if isinstance(each, GpuDocument) and names_gpu(each.name, gpu.address, known(gpu.uuid))
        )

    @cached_property
    def kept_off(self) -> frozenset[GpuAddress]:
        """The GPUs whose document says that their VFs are off."""
        found = set()
        for wish in self.wishes.documents.values():
            if isinstance(wish.document, GpuDocument) and wish.document.vfs is False:
                try:
                    gpu = find_gpu(self.snapshot, wish.document.name)
                except errors.GpuNotFound:
                    continue
                if gpu.vfs_max:
                    found.add(gpu.address)
        return frozenset(found)

    def choose(
        self, cards: list[Card], types: tuple[str, ...], policy: Placement, wish: VgpuWish
    ) -> placement.Choice | errors.VgpuctlError:
        """The best of these cards for a wish, near the NUMA node of its domain."""
        return placement.choose(
            cards,
            types,
            policy,
            numa_node=self.domain(wish.domain).numa_node if wish.domain is not None else None,
            avoid=self.avoided,
            catalog=self.catalog,
        )

    def libvirt_refusal(self, framework: FrameworkKind | None, wish: VgpuWish) -> str | None:
        """Why libvirt would not take a vGPU of that framework into the domain of the wish."""
        hypervisor = known(self.snapshot.hypervisor)
        if wish.domain is None or framework is None or hypervisor is None:
            return None
        return hypervisor.refusal(framework)

    def unsupported(self, framework: FrameworkKind | None, wish: VgpuWish) -> errors.UnsupportedHere:
        """The refusal of a vGPU that libvirt would not take."""
        return errors.UnsupportedHere(
            f"vGPU {wish.name} cannot be attached to {wish.domain}: {self.libvirt_refusal(framework, wish)}",
            hint="take a type of a GPU with another framework; vgpuctl gpu list shows them",
            framework=str(framework),
        )

    def stands_where_libvirt_refuses(self, allocation: Allocation, wish: VgpuWish) -> bool:
        """Whether a place can only be given up: libvirt would not take its vGPU, and none was made."""
        gpu = self.snapshot.gpu_at(allocation.gpu.address)
        framework = gpu.framework if gpu is not None else None
        return (
            allocation.created_boot is None
            and wish.gpu is None
            and wish.uuid is None
            and allocation.framework is not FrameworkKind.PASSTHROUGH
            and self.libvirt_refusal(framework, wish) is not None
            and observed_for(allocation, self.snapshot) is None
        )

    def domains(self, why: str) -> tuple[Domain, ...]:
        """Every domain; LibvirtUnreachable, saying what is therefore not known, where it does not answer."""
        domains = self.snapshot.domains
        if isinstance(domains, Unknown):
            raise errors.LibvirtUnreachable(
                f"libvirt does not answer, so it is not known {why}: {domains.reason}"
            )
        return domains

    def domain(self, name: str) -> Domain:
        """The domain of that name; raises DomainNotFound and LibvirtUnreachable."""
        domains = self.domains(f"whether there is a domain {name}")
        found = next((each for each in domains if each.name == name), None)
        if found is None and isinstance(self.snapshot.hypervisor, Unknown):
            raise errors.LibvirtUnreachable(self.snapshot.hypervisor.reason)
        if found is None:
            raise no_domain(name, domains)
        return found

    def is_anywhere(self, allocation: Allocation) -> bool:
        """Whether any domain names the vGPU; libvirt away leaves attached ones alone."""
        return bool(self._standing_for(allocation))

    def users(self, allocation: Allocation) -> list[Domain]:
        """The domains that name the vGPU; raises LibvirtUnreachable."""
        names = {each.domain for each in self._standing_for(allocation)}
        domains = self.domains(f"whether a domain uses vGPU {allocation.name}")
        return [each for each in domains if each.name in names]

    def hostdevs_in(self, domain: Domain, allocation: Allocation) -> tuple[Hostdev | None, Hostdev | None]:
        """The hostdev that stands for a vGPU in a domain's guest and in its config."""
        here = [each for each in self._standing_for(allocation) if each.domain == domain.name]
        found = {each.where: each.hostdev for each in reversed(here)}
        return found.get(Affect.LIVE), found.get(Affect.CONFIG)

    def _standing_for(self, allocation: Allocation) -> list[Attachment]:
        # A VF may carry our vGPU today and have carried another's yesterday: by source only what exists.
        exists = observed_for(allocation, self.snapshot) is not None
        return self.snapshot.attachments.standing_for(allocation, by_source=exists)


def identity_of(gpu: Gpu) -> GpuIdentity:
    """Who and where an observed GPU is."""
    return GpuIdentity(address=gpu.address, device=gpu.device, uuid=known(gpu.uuid))


def observed_for(allocation: Allocation, snapshot: Snapshot) -> ObservedVgpu | None:
    """The vGPU that stands for an allocation now.

    An mdev is known by its UUID, wherever it is.  A vendor-VFIO vGPU has no name in the kernel: only
    the one that we created, in this boot, on that VF and of that type, is ours.
    """
    if allocation.framework is None or allocation.parent is None:
        return None
    if allocation.framework is FrameworkKind.PASSTHROUGH:
        return _passed_through(allocation, allocation.parent, snapshot)
    owns = frameworks.rules_of(allocation.framework).owns
    named = snapshot.mdev(allocation.id)
    candidates = (named,) if named is not None else snapshot.on(allocation.parent)
    return next((each for each in candidates if owns(allocation, each, snapshot.boot_id)), None)


def may_exist_unseen(allocation: Allocation, snapshot: Snapshot) -> bool:
    """Whether its vGPU, not observed, may exist: its GPU, or what stands on its VF, could not be read."""
    gpu = gpu_of(allocation, snapshot)
    if gpu is not None and not gpu.is_readable:
        return True
    if allocation.framework is not FrameworkKind.VENDOR_VFIO or allocation.parent is None:
        return False
    if allocation.created_boot != snapshot.boot_id:
        return False
    there = snapshot.on(allocation.parent)
    return any(isinstance(each.type_id, Unknown) for each in there)


def gpu_of(allocation: Allocation, snapshot: Snapshot) -> Gpu | None:
    """The card of an allocation: by UUID wherever it is, else by address."""
    if allocation.gpu.uuid is not None:
        for gpu in snapshot.gpus:
            if known(gpu.uuid) == allocation.gpu.uuid:
                return gpu
    return snapshot.gpu_at(allocation.gpu.address)


def _passed_through(allocation: Allocation, parent: GpuAddress, snapshot: Snapshot) -> ObservedVgpu | None:
    """Passthrough leaves no trace in the kernel: it exists once its function was seen to be there."""
    gpu = snapshot.gpu_at(allocation.gpu.address)
    if gpu is None or allocation.created_boot != snapshot.boot_id:
        return None
    if parent not in {gpu.address, *(vf.address for vf in gpu.vfs)}:
        return None
    return ObservedVgpu(
        gpu=gpu.address,
        parent=parent,
        framework=FrameworkKind.PASSTHROUGH,
        type_id=allocation.type_id,
        type_name=allocation.type_name,
        mdev_uuid=None,
        holders=gpu.holders if parent == gpu.address else (),
    )


def find_gpu(snapshot: Snapshot, reference: str) -> Gpu:
    """The GPU that an address, a UUID or an index names; raises GpuNotFound."""
    wanted = reference.strip().lower()
    for gpu in snapshot.gpus:
        if wanted == str(gpu.index) or names_gpu(wanted, gpu.address, known(gpu.uuid)):
            return gpu
    have = ", ".join(str(gpu.address) for gpu in snapshot.gpus) or "none"
    raise errors.GpuNotFound(f"no GPU {reference!r} on this host", hint=f"the GPUs here: {have}")


def names_gpu(reference: str, address: GpuAddress, uuid: str | None) -> bool:
    """Whether an address (as sysfs, nvidia-smi or lspci prints it) or a UUID means that GPU."""
    wanted = reference.strip().lower()
    forms = (str(address), f"0000{address}", str(address).removeprefix("0000:"), (uuid or "").lower())
    return bool(wanted) and wanted in forms


def no_domain(reference: str, domains: Iterable[Domain]) -> errors.DomainNotFound:
    """That none of the domains has this name or UUID, with near names."""
    names = [each.name for each in domains]
    near = nearest(reference, names)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif names:
        hint = "vgpuctl domain list shows them"
    else:
        hint = "libvirt has no domains here; vgpuctl host show names that libvirt"
    return errors.DomainNotFound(f"libvirt has no domain {reference!r}", hint=hint, domain=reference)


def profile_named(wishes: Wishes, name: str) -> ProfileDocument:
    """The profile of that name; raises ProfileUnknown with near names."""
    profile = wishes.profile(name)
    if profile is not None:
        return profile
    near = nearest(name, wishes.profiles())
    hint = f"did you mean {' or '.join(near)}?" if near else "vgpuctl profile list shows what there is"
    raise errors.ProfileUnknown(f"no profile {name!r}", hint=hint)

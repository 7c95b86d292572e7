"""What an edit is applied to, what it comes to, and how it finds what it names.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model import frameworks
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import (
    DesktopDocument,
    Document,
    DocumentKey,
    DocumentKind,
    Repair,
    VgpuWish,
    Wish,
    Wishes,
)
from vgpuctl.model.domain import Domain
from vgpuctl.model.fact import Unknown
from vgpuctl.model.frameworks import passthrough
from vgpuctl.model.gpu import ObservedVgpu
from vgpuctl.model.situation import no_domain, profile_named
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.typename import lookup, nearest


@dataclass(frozen=True, slots=True)
class Context:
    """What an edit is applied to."""

    wishes: Wishes
    allocations: Mapping[UUID, Allocation]
    snapshot: Snapshot
    catalog: Catalog
    owner: str
    now: datetime
    new_id: Callable[[str], UUID]
    repair: Repair = Repair.AUTO
    """The host's policy."""

    def type_names(self) -> Iterable[str]:
        """Every type that the catalogue knows."""
        return self.catalog.type_names()


@dataclass(slots=True)
class Change:
    """What an edit comes to.

    `put` and `drop` are documents; `adopted` the places of vGPUs that are taken over as they stand,
    `rehomed` those that are on another GPU from now on; `names` the vGPUs that the request was about.
    One that goes only `forward` is never undone; a `lenient` one leaves out what cannot be done.
    `notes` are worth knowing and stand in nothing's way.
    """

    kind: str
    subject: str
    put: dict[DocumentKey, Document] = field(default_factory=dict)
    drop: set[DocumentKey] = field(default_factory=set)
    adopted: list[Allocation] = field(default_factory=list)
    rehomed: list[Allocation] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    forward: bool = False
    lenient: bool = False
    notes: list[str] = field(default_factory=list)

    def wishes_after(self, wishes: Wishes, now: datetime) -> Wishes:
        """The wishes that are in force with this change; unchanged documents keep their generation."""
        documents = {key: wish for key, wish in wishes.documents.items() if key not in self.drop}
        for key, document in self.put.items():
            before = documents.get(key)
            if before is not None and before.document == document:
                continue
            documents[key] = Wish(
                document=document,
                generation=before.generation + 1 if before else 1,
                created_at=before.created_at if before else now,
                changed_at=now,
            )
        return Wishes(documents, wishes.file_profiles)


def find_domain(snapshot: Snapshot, reference: str) -> Domain:
    """The domain that a name or a UUID names; raises DomainNotFound with near names."""
    if isinstance(snapshot.domains, Unknown):
        raise errors.LibvirtUnreachable(f"libvirt does not answer: {snapshot.domains.reason}")
    for domain in snapshot.domains:
        if reference in (domain.name, str(domain.uuid)):
            return domain
    if isinstance(snapshot.hypervisor, Unknown):
        raise errors.LibvirtUnreachable(snapshot.hypervisor.reason)
    raise no_domain(reference, snapshot.domains)


def find_wish(context: Context, reference: str) -> VgpuWish:
    """The wished vGPU that a name, our id or a VF's address names; says so when it is foreign."""
    wished = context.wishes.vgpus()
    if reference in wished:
        return wished[reference]
    for allocation in context.allocations.values():
        named = {str(allocation.id)} | places_named(allocation)
        if reference.lower() in named and allocation.name in wished:
            return wished[allocation.name]
    if any(reference.lower() in names_of(vgpu) for vgpu in context.snapshot.vgpus()):
        raise errors.VgpuForeign(
            f"vGPU {reference} was not made by vgpuctl",
            hint=f"vgpuctl adopt {reference} takes it over",
        )
    near = nearest(reference, wished)
    raise errors.VgpuNotFound(
        f"no vGPU {reference!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else "vgpuctl vgpu list shows them",
    )


def places_named(allocation: Allocation) -> set[str]:
    """The VF by which a vGPU can be named; a PF carries several."""
    kind = allocation.framework
    is_alone = kind is not None and frameworks.rules_of(kind).ONE_VGPU_PER_PARENT
    return {str(allocation.parent)} if is_alone else set()


def names_of(vgpu: ObservedVgpu) -> set[str]:
    """What a vGPU that is not ours goes by: its mdev UUID, its VF's address; a PF carries several."""
    vf = vgpu.parent if vgpu.parent != vgpu.gpu else None
    return {str(each) for each in (vgpu.mdev_uuid, vf) if each is not None}


def name_taken(name: str) -> errors.NameTaken:
    """What to raise where a new vGPU may not be called so."""
    return errors.NameTaken(f"there is a vGPU {name!r} already", hint="choose another --name", name=name)


def check_source(context: Context, profile: str | None, vgpu_type: str | None) -> str | None:
    """Refuse an unknown profile or type before anything else looks at it; the type's own name."""
    if profile is not None:
        profile_named(context.wishes, profile)
    return check_type(context, vgpu_type) if vgpu_type is not None else None


def check_type(context: Context, name: str) -> str:
    """The type that `name` means: `L40S-8Q`, `l40s-8q`, `NVIDIA L40S-8Q`, `nvidia-1152` or `1152`.

    Raises TypeUnknown, with near names, for a type that no card and no catalogue knows.
    """
    offered = [each for gpu in context.snapshot.gpus for each in gpu.types]
    number = name.strip().lower().removeprefix("nvidia-")
    if number.isdecimal():
        numbered = {each.name for each in offered if each.type_id == int(number)}
        if len(numbered) == 1:
            return numbered.pop()
    here = {each.name for each in offered} | {passthrough.WHOLE_GPU.name, passthrough.PLAIN_VF.name}
    found = name if name in here else lookup(name, here)
    if found is not None:
        return found
    everywhere = here | set(context.type_names())
    found = lookup(name, everywhere)
    if found is not None:
        return found
    near = nearest(name, sorted(here)) or nearest(name, sorted(everywhere))
    raise errors.TypeUnknown(
        f"no vGPU type {name!r}",
        hint=f"did you mean {', '.join(near)}?" if near else "vgpuctl type list shows them",
        near=list(near),
    )


def desktop_of(context: Context, domain: str) -> DesktopDocument:
    """The Desktop document of a domain; an empty one where there is none."""
    wish = context.wishes.documents.get(DocumentKey(DocumentKind.DESKTOP, domain))
    if wish is not None and isinstance(wish.document, DesktopDocument):
        return wish.document
    return DesktopDocument(name=domain, vgpus=(), owner=context.owner)

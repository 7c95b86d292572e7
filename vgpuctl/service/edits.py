"""What an edit makes of the documents.  Pure: an edit changes wishes, the planner does the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model import frameworks
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.document import (
    Affect,
    DesktopDocument,
    DesktopVgpu,
    Document,
    DocumentKey,
    DocumentKind,
    VgpuDocument,
    VgpuWish,
    Wish,
    Wishes,
    key_of,
)
from vgpuctl.model.domain import Domain, vgpu_of_alias
from vgpuctl.model.edit import (
    AdoptVgpus,
    ApplyDocuments,
    AttachVgpu,
    CreateVgpus,
    DeleteVgpu,
    DetachVgpu,
    Edit,
)
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.frameworks import passthrough
from vgpuctl.model.gpu import ObservedVgpu
from vgpuctl.model.situation import find_gpu, identity_of, observed_for, profile_named
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.typename import lookup, nearest

MOST_AT_ONCE = 4096
"""More vGPUs than a host can have, so that a mistyped count is refused and not planned."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an edit is applied to."""

    wishes: Wishes
    allocations: Mapping[UUID, Allocation]
    snapshot: Snapshot
    type_names: Callable[[], Iterable[str]]
    owner: str
    now: datetime
    new_id: Callable[[str], UUID]


@dataclass(slots=True)
class Change:
    """What an edit comes to.

    `put` and `drop` are documents; `adopted` the places of vGPUs that are taken over as they stand;
    `names` the vGPUs that the request was about.
    """

    kind: str
    subject: str
    put: dict[DocumentKey, Document] = field(default_factory=dict)
    drop: set[DocumentKey] = field(default_factory=set)
    adopted: list[Allocation] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

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


def change(edit: Edit, context: Context) -> Change:
    """The change of documents that `edit` asks for; raises what is wrong with it."""
    match edit:
        case CreateVgpus():
            return _create(edit, context)
        case DeleteVgpu():
            return _delete(edit, context)
        case AttachVgpu():
            return _attach(edit, context)
        case DetachVgpu():
            return _detach(edit, context)
        case ApplyDocuments():
            return _apply(edit, context)
        case AdoptVgpus():
            return _adopt(edit, context)


def find_domain(snapshot: Snapshot, reference: str) -> Domain:
    """The domain that a name or a UUID names; raises DomainNotFound with near names."""
    if isinstance(snapshot.domains, Unknown):
        raise errors.LibvirtUnreachable(f"libvirt does not answer: {snapshot.domains.reason}")
    for domain in snapshot.domains:
        if reference in (domain.name, str(domain.uuid)):
            return domain
    if isinstance(snapshot.hypervisor, Unknown):
        raise errors.LibvirtUnreachable(snapshot.hypervisor.reason)
    near = nearest(reference, [each.name for each in snapshot.domains])
    raise errors.DomainNotFound(
        f"libvirt has no domain {reference!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else "vgpuctl domain list shows them",
    )


def find_wish(context: Context, reference: str) -> VgpuWish:
    """The wished vGPU that a name, our id or a VF's address names; says so when it is foreign."""
    wished = context.wishes.vgpus()
    if reference in wished:
        return wished[reference]
    for allocation in context.allocations.values():
        named = {str(allocation.id), str(allocation.parent)}
        if reference.lower() in named and allocation.name in wished:
            return wished[allocation.name]
    if any(reference.lower() in _names_of(vgpu) for vgpu in context.snapshot.vgpus()):
        raise errors.VgpuForeign(
            f"vGPU {reference} was not made by vgpuctl",
            hint=f"vgpuctl adopt {reference} takes it over",
        )
    near = nearest(reference, wished)
    raise errors.VgpuNotFound(
        f"no vGPU {reference!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else "vgpuctl vgpu list shows them",
    )


def _names_of(vgpu: ObservedVgpu) -> set[str]:
    return {str(vgpu.mdev_uuid), str(vgpu.parent)} - {"None"}


def _check_source(context: Context, profile: str | None, vgpu_type: str | None) -> str | None:
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


def _create(edit: CreateVgpus, context: Context) -> Change:
    edit = replace(edit, type=_check_source(context, edit.profile, edit.type))
    if edit.gpu is not None:
        find_gpu(context.snapshot, edit.gpu)
    if not 1 <= edit.count <= MOST_AT_ONCE:
        raise errors.InvalidInput(f"count is {edit.count}; it can be 1 to {MOST_AT_ONCE}")
    taken = set(context.wishes.vgpus())
    if edit.name is not None and edit.count == 1:
        names = [edit.name]
    else:
        stem = edit.name or (edit.profile or edit.type or "").lower()
        names = list(_numbered(stem, edit.count, set() if edit.name else taken))
    result = Change("create", names[0] if edit.count == 1 else f"{edit.count} vGPUs", names=names)
    for name in names:
        if name in taken:
            raise errors.NameTaken(
                f"there is a vGPU {name!r} already", hint="choose another --name", name=name
            )
        document = VgpuDocument(
            name=name, profile=edit.profile, type=edit.type, gpu=edit.gpu, owner=context.owner
        )
        result.put[key_of(document)] = document
    return result


def _numbered(stem: str, count: int, taken: set[str]) -> Iterator[str]:
    number = 0
    while count:
        number += 1
        if f"{stem}-{number}" not in taken:
            count -= 1
            yield f"{stem}-{number}"


def _delete(edit: DeleteVgpu, context: Context) -> Change:
    wished = context.wishes.vgpus()
    for allocation in context.allocations.values():
        # What an operation could not undo: nobody wishes it, and it still has its place.
        named = {allocation.name, str(allocation.id), str(allocation.parent)}
        if edit.vgpu in named and edit.vgpu not in wished and allocation.name not in wished:
            return Change("delete", allocation.name, names=[allocation.name])
    wish = find_wish(context, edit.vgpu)
    if wish.domain is not None:
        raise errors.VgpuAttached(
            f"vGPU {wish.name} belongs to domain {wish.domain}",
            hint=f"vgpuctl detach {wish.domain} --vgpu {wish.name}",
            domain=wish.domain,
        )
    return Change("delete", wish.name, drop={wish.source}, names=[wish.name])


def _desktop(context: Context, domain: str) -> DesktopDocument:
    wish = context.wishes.documents.get(DocumentKey(DocumentKind.DESKTOP, domain))
    if wish is not None and isinstance(wish.document, DesktopDocument):
        return wish.document
    return DesktopDocument(name=domain, vgpus=(), owner=context.owner)


def _attach(edit: AttachVgpu, context: Context) -> Change:
    domain = find_domain(context.snapshot, edit.domain)
    if edit.affect == frozenset({Affect.LIVE}) and not domain.state.is_active:
        raise errors.DomainState(
            f"domain {domain.name} is {domain.state}: there is no running guest to attach to",
            hint="without --live the vGPU is there at the next start",
        )
    desktop = _desktop(context, domain.name)
    if edit.vgpu is not None:
        entry = _reference(edit.vgpu, domain.name, edit.affect, context)
        if entry is None:
            return _again(edit, desktop, find_wish(context, edit.vgpu).name)
    else:
        edit = replace(edit, type=_check_source(context, edit.profile, edit.type))
        if edit.gpu is not None:
            find_gpu(context.snapshot, edit.gpu)
        taken = set(context.wishes.vgpus())
        name = domain.name
        if name in taken:
            name = next(_numbered(domain.name, 1, {*taken, f"{domain.name}-1"}))
        entry = DesktopVgpu(name=name, profile=edit.profile, type=edit.type, gpu=edit.gpu, affect=edit.affect)
    changed = replace(desktop, vgpus=(*desktop.vgpus, entry))
    return Change("attach", domain.name, put={key_of(changed): changed}, names=[entry.vgpu or entry.name])


def _again(edit: AttachVgpu, desktop: DesktopDocument, name: str) -> Change:
    """Attach what the desktop has already: also in the definition in which it was not to stand."""
    entries = tuple(
        replace(each, affect=each.affect | edit.affect if edit.affect and each.affect else None)
        if name in (each.vgpu, each.name)
        else each
        for each in desktop.vgpus
    )
    changed = replace(desktop, vgpus=entries)
    return Change("attach", desktop.name, put={key_of(changed): changed}, names=[name])


def _reference(
    vgpu: str, domain: str, affect: frozenset[Affect] | None, context: Context
) -> DesktopVgpu | None:
    """The entry that gives an existing vGPU to a domain; None when the domain has it already."""
    wish = find_wish(context, vgpu)
    if wish.domain == domain:
        return None
    if wish.domain is not None:
        raise errors.VgpuAttached(
            f"vGPU {wish.name} belongs to domain {wish.domain}",
            hint=f"vgpuctl detach {wish.domain} --vgpu {wish.name}",
            domain=wish.domain,
        )
    return DesktopVgpu(name=wish.name, vgpu=wish.name, affect=affect)


def _detach(edit: DetachVgpu, context: Context) -> Change:
    key = DocumentKey(DocumentKind.DESKTOP, edit.domain)
    if key not in context.wishes.documents:
        domain = find_domain(context.snapshot, edit.domain)
        key = DocumentKey(DocumentKind.DESKTOP, domain.name)
    desktop = _desktop(context, key.name)
    strays = _strays(key.name, context)
    going: list[DesktopVgpu] = []
    if edit.vgpu is None:
        going = list(desktop.vgpus)
    elif edit.vgpu in strays:
        strays = [edit.vgpu]
    else:
        strays = []
        wish = find_wish(context, edit.vgpu)
        going = [each for each in desktop.vgpus if wish.name in (each.vgpu, each.name)]
        if not going:
            where = f"it belongs to {wish.domain}" if wish.domain else "no domain has it"
            raise errors.Conflict(f"domain {key.name} has no vGPU {wish.name}: {where}")
    result = Change("detach", key.name, names=[each.vgpu or each.name for each in going] + strays)
    rest = tuple(each for each in desktop.vgpus if each not in going)
    if rest:
        result.put[key] = replace(desktop, vgpus=rest)
    elif key in context.wishes.documents:
        result.drop.add(key)
    return result


def _strays(domain: str, context: Context) -> list[str]:
    """The vGPUs that stand in a domain's XML from us and that no document gives it.

    An operation that could not be undone leaves them.
    """
    wished = context.wishes.vgpus()
    named = {
        vgpu_of_alias(hostdev.alias)
        for each in known(context.snapshot.domains) or ()
        if each.name == domain
        for hostdev in (*(each.config or ()), *(each.live or ()))
    }
    return sorted(
        each.name
        for each in context.allocations.values()
        if each.id in named and (each.name not in wished or wished[each.name].domain != domain)
    )


def _apply(edit: ApplyDocuments, context: Context) -> Change:
    for key, generation in edit.generations:
        wish = context.wishes.documents.get(key)
        if wish is None or wish.generation != generation:
            have = "is not there" if wish is None else f"has generation {wish.generation}"
            raise errors.GenerationMismatch(f"{key} {have}; the request was made for {generation}")
    count = len(edit.documents)
    result = Change("apply", f"{count} document{'' if count == 1 else 's'}")
    for document in edit.documents:
        key = key_of(document)
        before = context.wishes.documents.get(key)
        if isinstance(document, (VgpuDocument, DesktopDocument)) and not document.owner:
            owner = getattr(before.document, "owner", "") if before else ""
            document = replace(document, owner=owner or context.owner)  # noqa: PLW2901
        if isinstance(document, VgpuDocument) and document.uuid is None and before is not None:
            assert isinstance(before.document, VgpuDocument)
            document = replace(document, uuid=before.document.uuid)  # noqa: PLW2901
        result.put[key] = document
    if edit.prune:
        kinds = {key.kind for key in result.put}
        result.drop = {key for key in context.wishes.documents if key.kind in kinds and key not in result.put}
    after = result.wishes_after(context.wishes, context.now)
    _check_together(after, context)
    result.names = [name for name, wish in after.vgpus().items() if wish.source in result.put]
    return result


def _check_together(wishes: Wishes, context: Context) -> None:
    """Refuse documents that contradict each other, all contradictions at once."""
    faults: list[dict[str, str]] = []

    def fault(key: DocumentKey, path: str, message: str) -> None:
        faults.append({"document": str(key), "path": path, "message": message})

    names: dict[str, DocumentKey] = {}
    users: dict[str, DocumentKey] = {}
    for key, wish in sorted(wishes.documents.items()):
        entries: list[tuple[str, str, str | None, str | None]] = []
        if isinstance(wish.document, VgpuDocument):
            entries = [("", wish.document.name, wish.document.profile, wish.document.type)]
        elif isinstance(wish.document, DesktopDocument):
            for number, entry in enumerate(wish.document.vgpus):
                path = f"vgpus[{number}]"
                if entry.vgpu is None:
                    entries.append((f"{path}.", entry.name, entry.profile, entry.type))
                elif DocumentKey(DocumentKind.VGPU, entry.vgpu) not in wishes.documents:
                    fault(key, f"{path}.vgpu", f"there is no Vgpu document {entry.vgpu!r}")
                elif users.setdefault(entry.vgpu, key) != key:
                    fault(key, f"{path}.vgpu", f"{users[entry.vgpu]} uses {entry.vgpu!r} already")
        for path, name, profile, vgpu_type in entries:
            if names.setdefault(name, key) != key:
                fault(key, f"{path}name", f"{names[name]} has a vGPU {name!r} already")
            try:
                _check_source(replace(context, wishes=wishes), profile, vgpu_type)
            except errors.NotFound as error:
                where = "profile" if profile is not None else "type"
                fault(key, path + where, "; ".join(filter(None, (error.message, error.hint))))
    if faults:
        several = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        first = faults[0]
        raise errors.InvalidInput(
            f"{first['document']}: {first['path']}: {first['message']}{several}", faults=faults
        )


def foreign_vgpus(context: Context) -> list[ObservedVgpu]:
    """The vGPUs that exist and that no allocation of ours stands for."""
    ours = [observed_for(each, context.snapshot) for each in context.allocations.values()]
    return [vgpu for vgpu in context.snapshot.vgpus() if vgpu not in ours]


def _adopt(edit: AdoptVgpus, context: Context) -> Change:
    foreign = foreign_vgpus(context)
    if edit.vgpu is not None:
        wanted = [each for each in foreign if edit.vgpu.lower() in _names_of(each)]
        if not wanted:
            find_wish(context, edit.vgpu)
            raise errors.Conflict(f"vGPU {edit.vgpu} is vgpuctl's already")
        foreign = wanted
    result = Change("adopt", edit.vgpu or f"{len(foreign)} vGPUs")
    taken = set(context.wishes.vgpus())
    for vgpu in foreign:
        _adopt_one(vgpu, context, result, taken)
    return result


def _adopt_one(vgpu: ObservedVgpu, context: Context, result: Change, taken: set[str]) -> None:
    """Take over one vGPU as it stands, with the domain whose config names it."""
    type_id, type_name = vgpu.type_id, vgpu.type_name
    if isinstance(type_id, Unknown) or isinstance(type_name, Unknown) or type_id is None:
        raise errors.FactUnknown(f"the type of the vGPU on {vgpu.parent} could not be read")
    gpu = context.snapshot.gpu_at(vgpu.gpu)
    assert gpu is not None
    users = _users_of(vgpu, context.snapshot)
    if len(users) > 1:
        raise errors.VgpuAttached(
            f"the vGPU on {vgpu.parent} stands in the XML of several domains: {', '.join(users)}",
            hint="leave it in one of them, then adopt it",
            domains=list(users),
        )
    aliases = [alias for _, alias in next(iter(users.values()), ())]
    proposed = next((found for each in aliases if (found := vgpu_of_alias(each)) is not None), None)
    vgpu_id = vgpu.mdev_uuid or proposed or context.new_id(f"adopt {vgpu.parent}")
    name = f"adopted-{vgpu_id}" if vgpu.mdev_uuid else f"adopted-{vgpu.parent}"
    while name in taken:
        name += "-again"
    taken.add(name)
    known_type = gpu.type_numbered(type_id)
    params = known(vgpu.params) if vgpu.params is not None else None
    result.adopted.append(
        Allocation(
            id=vgpu_id,
            name=name,
            type_name=type_name,
            type_id=type_id,
            fb_mib=known_type.fb_mib if known_type else None,
            gpu=identity_of(gpu),
            framework=vgpu.framework,
            parent=vgpu.parent,
            params=params,
            created_at=context.now,
            created_boot=context.snapshot.boot_id,
            adopted=True,
        )
    )
    document = VgpuDocument(
        name=name, type=type_name, gpu=str(gpu.address), uuid=vgpu_id, owner=context.owner
    )
    result.put[key_of(document)] = document
    result.names.append(name)
    for domain, places in users.items():
        key = DocumentKey(DocumentKind.DESKTOP, domain)
        pending = result.put.get(key)
        desktop = pending if isinstance(pending, DesktopDocument) else _desktop(context, domain)
        # As it stands: adopting puts nothing into a definition of a running domain that does not have it.
        affect = frozenset(where for where, _ in places)
        runs = find_domain(context.snapshot, domain).state.is_active
        entry = DesktopVgpu(name=name, vgpu=name, affect=affect if runs and len(affect) == 1 else None)
        result.put[key] = replace(desktop, vgpus=(*desktop.vgpus, entry))


def _users_of(vgpu: ObservedVgpu, snapshot: Snapshot) -> dict[str, list[tuple[Affect, str | None]]]:
    """The domains whose XML names a vGPU: in which definitions, and by which alias."""
    vgpu_id = vgpu.mdev_uuid or UUID(int=0)
    source = frameworks.hostdev(vgpu.framework, vgpu_id, vgpu.parent).source
    found: dict[str, list[tuple[Affect, str | None]]] = {}
    for domain in known(snapshot.domains) or ():
        for where, hostdevs in ((Affect.CONFIG, domain.config), (Affect.LIVE, domain.live)):
            for hostdev in hostdevs or ():
                if hostdev.source == source:
                    found.setdefault(domain.name, []).append((where, hostdev.alias))
    return found

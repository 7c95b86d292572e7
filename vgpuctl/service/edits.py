"""What an edit makes of the documents.  Pure: an edit changes wishes, the planner does the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.document import (
    Affect,
    DesktopDocument,
    DesktopVgpu,
    DocumentKey,
    DocumentKind,
    GpuDocument,
    VgpuDocument,
    Wishes,
    key_of,
)
from vgpuctl.model.edit import (
    AdoptVgpus,
    ApplyDocuments,
    AttachVgpu,
    CreateVgpus,
    DeleteVgpu,
    DetachVgpu,
    Edit,
    ImportMigParted,
    PruneVgpus,
    RepairDrift,
    ReplaceGpu,
    SetMig,
)
from vgpuctl.model.fact import known
from vgpuctl.model.situation import find_gpu, names_gpu
from vgpuctl.service.adoption import adopt
from vgpuctl.service.change import (
    Change,
    Context,
    check_source,
    desktop_of,
    find_domain,
    find_wish,
    name_taken,
    places_named,
)
from vgpuctl.service.mending import mend, prune
from vgpuctl.service.migedits import import_mig_parted, set_mig
from vgpuctl.service.replacement import replace_gpu

MOST_AT_ONCE = 4096
"""More vGPUs than a host can have, so that a mistyped count is refused and not planned."""


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
            return adopt(edit, context)
        case RepairDrift():
            return mend(edit, context)
        case ReplaceGpu():
            return replace_gpu(edit, context)
        case PruneVgpus():
            return prune(context)
        case SetMig():
            return set_mig(edit, context)
        case ImportMigParted():
            return import_mig_parted(edit, context)


def _create(edit: CreateVgpus, context: Context) -> Change:
    edit = replace(edit, type=check_source(context, edit.profile, edit.type))
    if edit.gpu is not None:
        edit = replace(edit, gpu=_kept(edit.gpu, context))
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
            raise name_taken(name)
        document = VgpuDocument(
            name=name, profile=edit.profile, type=edit.type, gpu=edit.gpu, owner=context.owner
        )
        result.put[key_of(document)] = document
    return result


def _kept(reference: str, context: Context) -> str:
    """How a document names a GPU: by its UUID where it was so named, else by its whole address."""
    gpu = find_gpu(context.snapshot, reference)
    uuid = known(gpu.uuid)
    return uuid if uuid is not None and reference.strip().lower() == uuid.lower() else str(gpu.address)


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
        named = {allocation.name, str(allocation.id)} | places_named(allocation)
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


def _attach(edit: AttachVgpu, context: Context) -> Change:
    domain = find_domain(context.snapshot, edit.domain)
    if edit.affect == frozenset({Affect.LIVE}) and not domain.state.is_active:
        raise errors.InvalidDomainState(
            f"domain {domain.name} is {domain.state}: there is no running guest to attach to",
            hint="without --live the vGPU is there at the next start",
        )
    desktop = desktop_of(context, domain.name)
    if edit.vgpu is not None:
        entry = _reference(edit.vgpu, domain.name, edit.affect, context)
        if entry is None:
            return _again(edit, desktop, find_wish(context, edit.vgpu).name)
    else:
        edit = replace(edit, type=check_source(context, edit.profile, edit.type))
        if edit.gpu is not None:
            edit = replace(edit, gpu=_kept(edit.gpu, context))
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
    desktop = desktop_of(context, key.name)
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
    attachments = context.snapshot.attachments
    return sorted(
        each.name
        for each in context.allocations.values()
        if any(at.domain == domain for at in attachments.of(each.id))
        and (each.name not in wished or wished[each.name].domain != domain)
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
    _refuse_two_of_one_gpu(after, result, context)
    result.names = [name for name, wish in after.vgpus().items() if wish.source in result.put]
    return result


def _refuse_two_of_one_gpu(wishes: Wishes, result: Change, context: Context) -> None:
    """One by its address and one by its UUID would be in force against each other."""
    for gpu in context.snapshot.gpus:
        keys = [
            str(key)
            for key, wish in sorted(wishes.documents.items())
            if isinstance(wish.document, GpuDocument)
            and names_gpu(wish.document.name, gpu.address, known(gpu.uuid))
        ]
        if len(keys) > 1 and any(str(key) in keys for key in result.put):
            raise errors.InvalidInput(
                f"{' and '.join(keys)} are of one GPU, {gpu.address}",
                hint="keep one of them: vgpuctl apply --prune drops what is not in the file",
            )


def _check_together(wishes: Wishes, context: Context) -> None:
    """Refuse documents that contradict each other, all contradictions at once."""
    faults: list[dict[str, str]] = []

    def fault(key: DocumentKey, path: str, message: str) -> None:
        faults.append({"document": str(key), "path": path, "message": message})

    ids: dict[UUID, DocumentKey] = {}
    ours = {each.id: each.name for each in context.allocations.values()}
    names: dict[str, DocumentKey] = {}
    users: dict[str, DocumentKey] = {}
    for key, wish in sorted(wishes.documents.items()):
        entries: list[tuple[str, str, str | None, str | None]] = []
        if isinstance(wish.document, VgpuDocument):
            entries = [("", wish.document.name, wish.document.profile, wish.document.type)]
            uuid = wish.document.uuid
            if uuid is not None and ids.setdefault(uuid, key) != key:
                fault(key, "uuid", f"{ids[uuid]} has it already")
            elif uuid in ours and ours[uuid] != wish.document.name:
                fault(key, "uuid", f"vGPU {ours[uuid]} has it already")
            elif uuid is not None and uuid not in ours and context.snapshot.mdev(uuid) is not None:
                fault(key, "uuid", f"an mdev of that UUID is there: vgpuctl adopt {uuid} takes it over")
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
                check_source(replace(context, wishes=wishes), profile, vgpu_type)
            except errors.NotFound as error:
                where = "profile" if profile is not None else "type"
                fault(key, path + where, "; ".join(filter(None, (error.message, error.hint))))
    if faults:
        several = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        first = faults[0]
        raise errors.InvalidInput(
            f"{first['document']}: {first['path']}: {first['message']}{several}", faults=faults
        )

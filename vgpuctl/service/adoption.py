"""Taking over vGPUs that somebody else made, as they stand."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.attachment import Attachment
from vgpuctl.model.document import (
    DesktopDocument,
    DesktopVgpu,
    DocumentKey,
    DocumentKind,
    VgpuDocument,
    VgpuWish,
    key_of,
)
from vgpuctl.model.edit import AdoptVgpus
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.gpu import ObservedVgpu
from vgpuctl.model.situation import identity_of, observed_for
from vgpuctl.service.change import (
    Change,
    Context,
    desktop_of,
    find_domain,
    find_wish,
    name_taken,
    names_of,
)


def foreign_vgpus(context: Context) -> list[ObservedVgpu]:
    """The vGPUs that exist and that no allocation of ours stands for."""
    ours = [observed_for(each, context.snapshot) for each in context.allocations.values()]
    return [vgpu for vgpu in context.snapshot.vgpus() if vgpu not in ours]


def adopt(edit: AdoptVgpus, context: Context) -> Change:
    """A `Vgpu` document and a place for each vGPU taken over, and its desktop where a domain names it."""
    foreign = foreign_vgpus(context)
    if edit.vgpu is not None:
        wanted = [each for each in foreign if edit.vgpu.lower() in names_of(each)]
        if not wanted:
            wish = find_wish(context, edit.vgpu)
            if edit.name not in (None, wish.name):
                raise _named_already(edit.vgpu, wish.name)
            if edit.sole_starter:
                return _own_start(wish, context)
            raise errors.Conflict(f"vGPU {edit.vgpu} is vgpuctl's already")
        foreign = wanted
    result = Change("adopt", edit.vgpu or f"{len(foreign)} vGPUs", forward=True)
    # One that nobody wishes any more has its name too: it would be removed to make way for this one.
    taken = {*context.wishes.vgpus(), *(each.name for each in context.allocations.values())}
    for vgpu in foreign:
        _adopt_one(vgpu, context, result, taken, edit)
    return result


def _own_start(wish: VgpuWish, context: Context) -> Change:
    """Switch off the autostart of one that is ours already."""
    document = context.wishes.documents[wish.source].document
    if not isinstance(document, VgpuDocument):
        raise errors.Conflict(f"vGPU {wish.name} was made for {wish.domain}: nobody else starts it")
    changed = replace(document, sole_starter=True)
    return Change("adopt", wish.name, put={key_of(changed): changed}, names=[wish.name], forward=True)


def _adopt_one(
    vgpu: ObservedVgpu, context: Context, result: Change, taken: set[str], edit: AdoptVgpus
) -> None:
    """Take over one vGPU as it stands, with the domain whose XML names it."""
    type_id, type_name = _type_of(vgpu)
    attachments = _attachments_of(vgpu, context)
    proposed = _id_in_xml(attachments, context, result)
    vgpu_id = vgpu.mdev_uuid or proposed or context.new_id(f"adopt {vgpu.parent}")
    name = _name(vgpu, vgpu_id, context, taken, edit.name)
    taken.add(name)
    gpu = context.snapshot.gpu_at(vgpu.gpu)
    assert gpu is not None
    known_type = gpu.type_numbered(type_id)
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
            params=known(vgpu.params) if vgpu.params is not None else None,
            created_at=context.now,
            created_boot=context.snapshot.boot_id,
            adopted=True,
        )
    )
    definition = context.snapshot.autostart_of(vgpu_id)
    if definition is not None and not edit.sole_starter:
        result.notes.append(
            f"mdevctl (and libvirt's nodedev by it) starts {vgpu_id} on {definition.parent}; vgpuctl leaves "
            f"that to it. To switch it off: vgpuctl adopt {vgpu.mdev_uuid} --disable-autostart"
        )
    document = VgpuDocument(
        name=name,
        type=type_name,
        gpu=known(gpu.uuid) or str(gpu.address),
        uuid=vgpu_id,
        owner=context.owner,
        sole_starter=edit.sole_starter and definition is not None,
    )
    result.put[key_of(document)] = document
    result.names.append(name)
    if attachments:
        _put_in_desktop(name, attachments, context, result)


def _type_of(vgpu: ObservedVgpu) -> tuple[int, str]:
    """The type's id and name; raises FactUnknown."""
    if isinstance(vgpu.type_id, Unknown) or isinstance(vgpu.type_name, Unknown) or vgpu.type_id is None:
        raise errors.FactUnknown(f"the type of the vGPU on {vgpu.parent} could not be read")
    return vgpu.type_id, vgpu.type_name


def _attachments_of(vgpu: ObservedVgpu, context: Context) -> list[Attachment]:
    """Where a vGPU stands in XML, in one domain at most; raises VgpuAttached."""
    found = context.snapshot.attachments.naming_observed(vgpu)
    domains = list(dict.fromkeys(each.domain for each in found))
    if len(domains) > 1:
        raise errors.VgpuAttached(
            f"the vGPU on {vgpu.parent} stands in the XML of several domains: {', '.join(domains)}",
            hint="leave it in one of them, then adopt it",
            domains=domains,
        )
    return found


def _id_in_xml(attachments: list[Attachment], context: Context, result: Change) -> UUID | None:
    """The id that our alias gives a vGPU; None where there is none, or another vGPU has it."""
    found = next((each.vgpu for each in attachments if each.vgpu is not None), None)
    is_taken = found in context.allocations or any(each.id == found for each in result.adopted)
    return None if is_taken else found


def _name_in_force(vgpu_id: UUID, context: Context) -> str | None:
    """The name of the document that has that UUID already, whose place was lost; None where none has."""
    for wish in context.wishes.documents.values():
        if isinstance(wish.document, VgpuDocument) and wish.document.uuid == vgpu_id:
            return wish.document.name
    return None


def _name(vgpu: ObservedVgpu, vgpu_id: UUID, context: Context, taken: set[str], wanted: str | None) -> str:
    """What to call it; raises Conflict where it has another name, NameTaken where another has that."""
    in_force = _name_in_force(vgpu_id, context)
    if in_force is not None:
        if wanted not in (None, in_force):
            raise _named_already(str(vgpu_id), in_force)
        return in_force
    if wanted is not None:
        if wanted in taken:
            raise name_taken(wanted)
        return wanted
    name = f"adopted-{vgpu.mdev_uuid or vgpu.parent}"
    while name in taken:
        name += "-again"
    return name


def _named_already(reference: str, name: str) -> errors.Conflict:
    return errors.Conflict(f"vGPU {reference} has a document already, and is called {name}", name=name)


def _put_in_desktop(name: str, attachments: list[Attachment], context: Context, result: Change) -> None:
    """Write a vGPU into the document of the domain that has it.

    As it stands: adopting puts nothing into a definition of a running domain that does not have it.
    """
    domain = attachments[0].domain
    key = DocumentKey(DocumentKind.DESKTOP, domain)
    pending = result.put.get(key)
    desktop = pending if isinstance(pending, DesktopDocument) else desktop_of(context, domain)
    if any(each.vgpu == name for each in desktop.vgpus):
        return
    affect = frozenset(each.where for each in attachments)
    runs = find_domain(context.snapshot, domain).state.is_active
    entry = DesktopVgpu(name=name, vgpu=name, affect=affect if runs and len(affect) == 1 else None)
    result.put[key] = replace(desktop, vgpus=(*desktop.vgpus, entry))

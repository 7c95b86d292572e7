"""The body of a plan or an operation: JSON to `model.edit`, or the id of a plan that was shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from vgpuctl.api.documents import exactly_one, parse_documents
from vgpuctl.api.faults import Fault, Path, did_you_mean, dotted, faults_of, refuse
from vgpuctl.api.migparted import parse_mig_parted
from vgpuctl.api.migwish import cross_mig, mig_wish
from vgpuctl.api.schema import (
    EDITS,
    AdoptShape,
    ApplyShape,
    AttachShape,
    CreateShape,
    DeleteShape,
    DetachShape,
    ImportMigPartedShape,
    PlanReferenceShape,
    PruneShape,
    RepairShape,
    ReplaceShape,
    SetMigShape,
    Shape,
)
from vgpuctl.errors import InvalidInput
from vgpuctl.model.document import Affect, Document, DocumentKey, DocumentKind, key_of
from vgpuctl.model.edit import (
    AdoptVgpus,
    ApplyDocuments,
    AttachVgpu,
    CreateVgpus,
    DeleteVgpu,
    DetachVgpu,
    Edit,
    PruneVgpus,
    RepairDrift,
    ReplaceGpu,
    SetMig,
)

_GENERATION = re.compile(r'(?:W/)?"(?:(?P<kind>[A-Za-z]+)/(?P<name>[^"]+)=)?(?P<generation>[0-9]{1,18})"')


def parse_edit(body: Any, *, if_match: str | None = None) -> Edit:
    """The edit that `body` asks for; InvalidInput with every fault.

    `if_match` is the If-Match header: `"Kind/name=generation"`, several with commas between, or a
    bare generation where one document is applied.
    """
    if not isinstance(body, dict):
        raise refuse("request", [Fault("", "must be a JSON object with an action")])
    action = body.get("action")
    model = EDITS.get(action) if isinstance(action, str) else None
    if model is None:
        right = f"must be one of {', '.join(EDITS)}"
        near = did_you_mean(action, EDITS) if isinstance(action, str) else ""
        message = f"{right}; {near}" if near.startswith("did") else right
        raise refuse("request", [Fault("action", message)])
    if model is ApplyShape:
        return _apply(body, if_match)
    if if_match is not None:
        raise refuse("request", [Fault("If-Match", "goes with the action apply only")])
    return _edit(_check(body, model, list(_cross(model, body))))


def parse_plan_reference(body: Any) -> str | None:
    """The id of the shown plan that `body` wants to be run, or None when it is an edit."""
    if not isinstance(body, dict) or "plan" not in body or "action" in body:
        return None
    shape = _check(body, PlanReferenceShape, [])
    assert isinstance(shape, PlanReferenceShape)
    return shape.plan


def _check(body: dict[str, Any], model: type[Shape], found: list[tuple[Path, str]]) -> Shape:
    shape: Shape | None = None
    try:
        shape = model.model_validate(body)
    except ValidationError as error:
        found = faults_of(error, model) + found
    if shape is None or found:
        raise refuse("request", [Fault(dotted(path), message) for path, message in found])
    return shape


def _cross(model: type[Shape], body: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    if model is CreateShape:
        yield from exactly_one(body, ("profile", "type"))
    elif model is AttachShape:
        yield from exactly_one(body, ("profile", "type", "vgpu"))
        if body.get("vgpu") is not None and body.get("gpu") is not None:
            yield ("gpu",), "has no place beside vgpu: that vGPU has its GPU"
    elif model is AdoptShape:
        if body.get("name") is not None and body.get("vgpu") is None:
            yield ("name",), "is of one vGPU: it goes with vgpu"
    elif model is SetMigShape:
        yield from ((("mig", *path), message) for path, message in cross_mig(body.get("mig")))


def _edit(shape: Shape) -> Edit:
    match shape:
        case CreateShape():
            return CreateVgpus(
                profile=shape.profile, type=shape.type, gpu=shape.gpu, name=shape.name, count=shape.count
            )
        case DeleteShape():
            return DeleteVgpu(vgpu=shape.vgpu)
        case AttachShape():
            return AttachVgpu(
                domain=shape.domain,
                profile=shape.profile,
                type=shape.type,
                vgpu=shape.vgpu,
                gpu=shape.gpu,
                affect=None if shape.affect is None else frozenset(Affect(each) for each in shape.affect),
            )
        case DetachShape():
            return DetachVgpu(domain=shape.domain, vgpu=shape.vgpu)
        case AdoptShape():
            return AdoptVgpus(vgpu=shape.vgpu, name=shape.name, sole_starter=shape.sole_starter)
        case RepairShape():
            return RepairDrift(subject=shape.subject)
        case ReplaceShape():
            return ReplaceGpu(old=shape.old, new=shape.new)
        case PruneShape():
            return PruneVgpus()
        case SetMigShape():
            return SetMig(gpu=shape.gpu, mig=mig_wish(shape.mig))
        case ImportMigPartedShape():
            return parse_mig_parted(shape.source, shape.config)
        case _:
            raise InvalidInput(f"no edit: {type(shape).__name__}")


def _apply(body: dict[str, Any], if_match: str | None) -> ApplyDocuments:
    """An apply, with the faults of the request and of its documents told together."""
    faults: list[Fault] = []
    documents: tuple[Document, ...] = ()
    found = list(exactly_one(body, ("documents", "source")))
    given, source = body.get("documents"), body.get("source")
    try:
        # The documents are checked by their own parser, which numbers and names them.
        _check({**body, "documents": None if isinstance(given, list) else given}, ApplyShape, found)
    except InvalidInput as error:
        faults += [_again(each) for each in error.facts["faults"]]
    try:
        if isinstance(given, list):
            documents = parse_documents(given, "documents")
        elif isinstance(source, str):
            documents = parse_documents(source, "source")
    except InvalidInput as error:
        faults += [_again(each) for each in error.facts["faults"]]
    generations = _generations(body.get("generations"), if_match, documents, faults)
    if faults:
        raise refuse("request", faults)
    return ApplyDocuments(documents=documents, prune=body.get("prune", False), generations=generations)


def _again(shown: dict[str, Any]) -> Fault:
    return Fault(shown["path"], shown["message"], shown["document"], shown.get("line"))


def _generations(
    given: Any, if_match: str | None, documents: tuple[Document, ...], faults: list[Fault]
) -> tuple[tuple[DocumentKey, int], ...]:
    found: dict[DocumentKey, int] = {}
    for text, generation in given.items() if isinstance(given, dict) else ():
        kind, slash, name = text.partition("/")
        if kind not in set(DocumentKind) or not slash or not name:
            faults.append(Fault(f"generations.{text}", "a key looks like Vgpu/office-1"))
        elif isinstance(generation, int):
            found[DocumentKey(DocumentKind(kind), name)] = generation
    for part in (if_match or "").split(",") if if_match else ():
        match = _GENERATION.fullmatch(part.strip())
        kind = match["kind"] if match else None
        if match is None or (kind is not None and kind not in set(DocumentKind)):
            faults.append(Fault("If-Match", f'{part.strip()} is no generation; write "Vgpu/office-1=3"'))
        elif kind is not None:
            found[DocumentKey(DocumentKind(kind), match["name"])] = int(match["generation"])
        elif len(documents) == 1:
            found[key_of(documents[0])] = int(match["generation"])
        elif documents:
            faults.append(Fault("If-Match", 'several documents: name each, as in "Vgpu/office-1=3"'))
    return tuple(found.items())

"""Documents in and out: YAML or JSON text to the records of `model.document`, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from vgpuctl.api.faults import Fault, Path, did_you_mean, dotted, faults_of, refuse
from vgpuctl.api.migwish import cross_mig, mig_wish, plain_mig
from vgpuctl.api.schema import (
    API_VERSION,
    DOCUMENTS,
    DesktopShape,
    GpuShape,
    ProfileShape,
    Shape,
    VgpuShape,
)
from vgpuctl.api.text import Read, decode, is_json, read_json, read_yaml
from vgpuctl.errors import InvalidInput
from vgpuctl.model.document import (
    Affect,
    DesktopDocument,
    DesktopVgpu,
    Document,
    DocumentKey,
    GpuDocument,
    NumaPolicy,
    Placement,
    PlacementPolicy,
    ProfileDocument,
    Repair,
    VgpuDocument,
    key_of,
)

MAX_DOCUMENTS = 10_000


def parse_documents(text: str | bytes | Sequence[Any], source: str) -> tuple[Document, ...]:
    """The documents in `text` (YAML or JSON) or in a list of plain values.

    Raises InvalidInput with every fault of every document; `source` names where it came from.
    """
    items = [_Item(number, read, path) for number, (read, path) in enumerate(_items(text, source), start=1)]
    if not items:
        raise refuse(source, [Fault("", "holds no document")])
    if len(items) > MAX_DOCUMENTS:
        raise refuse(source, [Fault("", f"holds {len(items)} documents; at most {MAX_DOCUMENTS} are taken")])
    faults: list[Fault] = []
    documents: list[tuple[_Item, Document]] = []
    for item in items:
        shape = item.check(faults)
        if shape is not None:
            documents.append((item, _document(shape)))
    faults.extend(_taken(documents))
    if faults:
        raise refuse(source, faults)
    return tuple(document for _, document in documents)


def dump_documents(documents: Iterable[Document]) -> list[dict[str, Any]]:
    """Plain dicts that `parse_documents` reads back as the same documents; defaults are left out."""
    return [_plain(document) for document in documents]


def dump_document(document: Document | None) -> dict[str, Any] | None:
    """One document as a plain dict; None stays None."""
    return None if document is None else _plain(document)


def exactly_one(value: Mapping[str, Any], keys: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """A fault unless exactly one of `keys` is given."""
    given = [key for key in keys if value.get(key) is not None]
    if len(given) != 1:
        names = ", ".join(keys[:-1]) + f" and {keys[-1]}"
        yield (given[-1] if given else keys[0],), f"give exactly one of {names}"


def _items(text: str | bytes | Sequence[Any], source: str) -> Iterator[tuple[Read, Path]]:
    """Every document, with the text that it stands in and its path there."""
    if not isinstance(text, str | bytes):
        reads = [Read(value=list(text))]
    else:
        text = decode(text, source)
        reads = [Read(value=read_json(text, source))] if is_json(text) else read_yaml(text, source)
    for read in reads:
        if isinstance(read.value, list):
            yield from ((Read(item, read.lines, read.faults), (i,)) for i, item in enumerate(read.value))
        elif read.value is not None or read.faults:
            yield read, ()


@dataclass(frozen=True, slots=True)
class _Item:
    """One document before it is known to be one."""

    number: int
    read: Read
    path: Path

    @property
    def label(self) -> str:
        value = self.read.value
        if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
            return f"document {self.number}"
        return f"document {self.number} ({value['kind']}/{value.get('name', '?')})"

    def fault(self, path: Path, message: str) -> Fault:
        return Fault(dotted(path), message, self.label, self.read.line_of((*self.path, *path)))

    def check(self, faults: list[Fault]) -> Shape | None:
        """The document's shape, or None; what is wrong with it goes to `faults`."""
        depth = len(self.path)
        found = [(path[depth:], message) for path, message in self.read.faults if path[:depth] == self.path]
        model, wrong = _model_of(self.read.value)
        found += wrong
        shape: Shape | None = None
        if model is not None:
            found += _cross(model, self.read.value)
            try:
                shape = model.model_validate(self.read.value)
            except ValidationError as error:
                found += faults_of(error, model)
        faults.extend(self.fault(path, message) for path, message in _ordered(found))
        return None if found else shape


def _ordered(found: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """Each fault once, in a stable order."""
    return sorted(set(found), key=lambda each: ([str(part) for part in each[0]], each[1]))


def _model_of(value: Any) -> tuple[type[Shape] | None, list[tuple[Path, str]]]:
    if not isinstance(value, dict):
        return None, [((), "must be a mapping with apiVersion, kind and name")]
    kind = value.get("kind")
    if isinstance(kind, str) and kind in DOCUMENTS:
        return DOCUMENTS[kind], []
    kinds = ", ".join(DOCUMENTS)
    wrong: list[tuple[Path, str]] = []
    if kind is None:
        wrong.append((("kind",), f"is required: one of {kinds}"))
    else:
        near = did_you_mean(str(kind), DOCUMENTS)
        wrong.append((("kind",), f"must be one of {kinds}" + (f"; {near}" if near.startswith("did") else "")))
    if value.get("apiVersion") != API_VERSION:
        wrong.append((("apiVersion",), f"must be '{API_VERSION}'"))
    return None, wrong


def _cross(model: type[Shape], value: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """What is wrong between keys; pydantic would say it only once each key is right."""
    if model is VgpuShape:
        yield from exactly_one(value, ("profile", "type"))
    elif model is GpuShape:
        yield from (((("mig", *path), message)) for path, message in cross_mig(value.get("mig")))
    elif model is ProfileShape:
        types = value.get("types")
        seen: set[str] = set()
        for i, each in enumerate(types if isinstance(types, list) else []):
            if isinstance(each, str) and each in seen:
                yield ("types", i), f"{each} stands twice"
            elif isinstance(each, str):
                seen.add(each)
    elif model is DesktopShape:
        entries = value.get("vgpus")
        for i, entry in enumerate(entries if isinstance(entries, list) else []):
            if isinstance(entry, dict):
                for path, message in _cross_entry(entry):
                    yield ("vgpus", i, *path), message


def _cross_entry(entry: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    yield from exactly_one(entry, ("profile", "type", "vgpu"))
    if entry.get("vgpu") is not None and entry.get("gpu") is not None:
        yield ("gpu",), "has no place beside vgpu: that vGPU has its GPU"


def _taken(documents: Sequence[tuple[_Item, Document]]) -> Iterator[Fault]:
    """Names that stand twice: of documents, and of vGPUs across all documents."""
    keys: dict[DocumentKey, _Item] = {}
    vgpus: dict[str, str] = {}
    for item, document in documents:
        key = key_of(document)
        if key in keys:
            yield item.fault(("name",), f"document {keys[key].number} has the same kind and name")
            continue
        keys[key] = item
        for path, name in _vgpu_names(document):
            if name in vgpus:
                yield item.fault(path, f"vGPU {name} stands in {vgpus[name]} already; vGPU names are unique")
            vgpus.setdefault(name, str(key))


def _vgpu_names(document: Document) -> Iterator[tuple[Path, str]]:
    if isinstance(document, VgpuDocument):
        yield ("name",), document.name
    elif isinstance(document, DesktopDocument):
        for i, entry in enumerate(document.vgpus):
            if entry.vgpu is None:
                yield ("vgpus", i, "name"), entry.name


def _document(shape: Shape) -> Document:
    match shape:
        case GpuShape():
            return GpuDocument(
                name=shape.name,
                vfs=shape.vfs,
                repair=Repair(shape.repair) if shape.repair else None,
                mig=mig_wish(shape.mig) if shape.mig else None,
            )
        case VgpuShape():
            return VgpuDocument(
                name=shape.name,
                profile=shape.profile,
                type=shape.type,
                gpu=shape.gpu,
                uuid=UUID(shape.uuid) if shape.uuid else None,
                owner=shape.owner,
                sole_starter=shape.sole_starter,
            )
        case DesktopShape():
            return DesktopDocument(name=shape.name, vgpus=_desktop_vgpus(shape), owner=shape.owner)
        case ProfileShape():
            return ProfileDocument(
                name=shape.name,
                types=tuple(shape.types),
                placement=Placement(
                    PlacementPolicy(shape.placement.policy), NumaPolicy(shape.placement.numa)
                ),
                params=tuple(sorted(shape.params.items())),
                description=shape.description,
            )
        case _:
            raise InvalidInput(f"no document: {type(shape).__name__}")


def _desktop_vgpus(shape: DesktopShape) -> tuple[DesktopVgpu, ...]:
    """The entries of a desktop; one without a name is called after the domain and its position."""
    return tuple(
        DesktopVgpu(
            name=entry.name or entry.vgpu or (shape.name if i == 0 else f"{shape.name}-{i + 1}"),
            profile=entry.profile,
            type=entry.type,
            vgpu=entry.vgpu,
            gpu=entry.gpu,
            affect=None if entry.affect is None else frozenset(Affect(each) for each in entry.affect),
        )
        for i, entry in enumerate(shape.vgpus)
    )


def _plain(document: Document) -> dict[str, Any]:
    key = key_of(document)
    plain: dict[str, Any] = {"apiVersion": API_VERSION, "kind": key.kind.value, "name": key.name}
    match document:
        case GpuDocument():
            plain["vfs"] = document.vfs
            plain |= _given(repair=document.repair.value if document.repair is not None else None)
            if document.mig is not None:
                plain["mig"] = plain_mig(document.mig)
        case VgpuDocument():
            plain |= _given(
                profile=document.profile,
                type=document.type,
                gpu=document.gpu,
                uuid=None if document.uuid is None else str(document.uuid),
                owner=document.owner or None,
                sole_starter=document.sole_starter or None,
            )
        case DesktopDocument():
            plain["vgpus"] = [_plain_entry(entry) for entry in document.vgpus]
            plain |= _given(owner=document.owner or None)
        case ProfileDocument():
            plain |= _given(description=document.description or None)
            plain["types"] = list(document.types)
            placement = document.placement
            if placement != Placement():
                plain["placement"] = {"policy": placement.policy.value, "numa": placement.numa.value}
            plain |= _given(params=dict(document.params) or None)
    return plain


def _plain_entry(entry: DesktopVgpu) -> dict[str, Any]:
    affect = None if entry.affect is None else sorted(each.value for each in entry.affect)
    return _given(
        name=entry.name,
        profile=entry.profile,
        type=entry.type,
        vgpu=entry.vgpu,
        gpu=entry.gpu,
        affect=affect,
    )


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}

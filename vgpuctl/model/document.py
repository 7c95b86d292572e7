"""Wishes: the small documents in which users say what they want (`vgpuctl/v1`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Union
from uuid import UUID

from vgpuctl.model.giprofile import GiPlace


class PlacementPolicy(StrEnum):
    """Which of several fitting GPUs is taken: the fullest, or the emptiest."""

    PACK = "pack"
    SPREAD = "spread"


class NumaPolicy(StrEnum):
    """Whether a GPU has to be on the NUMA node that the domain is pinned to."""

    IGNORE = "ignore"
    PREFER = "prefer"
    REQUIRE = "require"


class Affect(StrEnum):
    """Which of a domain's two definitions an attachment stands in."""

    LIVE = "live"
    CONFIG = "config"


class Repair(StrEnum):
    """What is done about something that is not as it should be."""

    AUTO = "auto"
    """It is mended unasked, as far as that can hurt nobody."""
    ASK = "ask"
    """It is told, with the plan that would mend it."""
    NEVER = "never"
    """It is told."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How a GPU is chosen."""

    policy: PlacementPolicy = PlacementPolicy.PACK
    numa: NumaPolicy = NumaPolicy.IGNORE


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileDocument:
    """A named profile: the types that a desktop may get, in order of preference.

    `params` are plugin parameters, written to `vgpu_params` as a whole.
    """

    name: str
    types: tuple[str, ...]
    placement: Placement = Placement()
    params: tuple[tuple[str, str], ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True, order=True)
class ComputeWish:
    """The compute instances that are wanted in the GPU instance at a place: so many of each profile."""

    place: GiPlace
    counts: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MigWish:
    """What is wanted of a GPU's MIG mode and its GPU instances.

    At most one of the three is given: `instances`, each with its first memory slice; `profiles`, so
    many of each; `vgpus`, so many of each vGPU type, from which the instances follow.  With none,
    whatever is cut is left alone.  The first two are the whole layout, the third a least one.
    `compute` belongs to `instances`; of a GPU instance without an entry nothing is said.
    """

    enabled: bool = True
    instances: tuple[GiPlace, ...] | None = None
    profiles: tuple[tuple[str, int], ...] | None = None
    vgpus: tuple[tuple[str, int], ...] | None = None
    compute: tuple[ComputeWish, ...] = ()

    @property
    def has_layout(self) -> bool:
        """Whether it says anything of instances."""
        return any(each is not None for each in (self.instances, self.profiles, self.vgpus))


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuDocument:
    """What is wanted of one GPU.  `name` is its address or UUID.

    `vfs` None leaves its VFs as they are; `repair` None is the host's policy; without `mig`, MIG is
    left alone.
    """

    name: str
    vfs: bool | None = True
    repair: Repair | None = None
    mig: MigWish | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VgpuDocument:
    """A vGPU that stands for itself: it is there whether or not a domain uses it.

    Exactly one of `profile` and `type` is set.  `uuid` fixes our id; it is set when a vGPU is adopted.
    `gpu` (address or UUID) restricts the choice; `owner` is the name of whoever asked.  With
    `sole_starter` nobody but vgpuctl starts it: an autostart of mdevctl is switched off.
    """

    name: str
    profile: str | None = None
    type: str | None = None
    gpu: str | None = None
    uuid: UUID | None = None
    owner: str = ""
    sole_starter: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DesktopVgpu:
    """A vGPU of a desktop: an own one (profile or type), or a `Vgpu` document's, by name.

    `affect` is None for the usual: the config, and the running guest too where there is one.
    """

    name: str
    profile: str | None = None
    type: str | None = None
    vgpu: str | None = None
    gpu: str | None = None
    affect: frozenset[Affect] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DesktopDocument:
    """The vGPUs that a libvirt domain has.  `name` is the domain's name."""

    name: str
    vgpus: tuple[DesktopVgpu, ...]
    owner: str = ""


Document = Union[GpuDocument, VgpuDocument, DesktopDocument, ProfileDocument]


class DocumentKind(StrEnum):
    """The `kind:` of a document."""

    GPU = "Gpu"
    VGPU = "Vgpu"
    DESKTOP = "Desktop"
    PROFILE = "Profile"


_KINDS: dict[type, DocumentKind] = {
    GpuDocument: DocumentKind.GPU,
    VgpuDocument: DocumentKind.VGPU,
    DesktopDocument: DocumentKind.DESKTOP,
    ProfileDocument: DocumentKind.PROFILE,
}


@dataclass(frozen=True, slots=True, order=True)
class DocumentKey:
    """Kind and name: what makes two documents the same one."""

    kind: DocumentKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def key_of(document: Document) -> DocumentKey:
    """The key under which `document` is kept."""
    return DocumentKey(_KINDS[type(document)], document.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A document as it is kept: with its generation, which grows with every change."""

    document: Document
    generation: int
    created_at: datetime
    changed_at: datetime

    @property
    def key(self) -> DocumentKey:
        """Kind and name of the document."""
        return key_of(self.document)


@dataclass(frozen=True, slots=True, kw_only=True)
class VgpuWish:
    """One vGPU that somebody wants, taken out of whichever document says so.

    `name` is unique among all wished vGPUs.  `domain` is None for a vGPU that no desktop uses.
    """

    name: str
    source: DocumentKey
    profile: str | None
    type: str | None
    gpu: str | None
    uuid: UUID | None
    owner: str
    created_at: datetime
    domain: str | None = None
    affect: frozenset[Affect] | None = None
    sole_starter: bool = False


@dataclass(frozen=True, slots=True)
class Wishes:
    """All documents that are in force, and the profiles that files define beside them."""

    documents: dict[DocumentKey, Wish] = field(default_factory=dict)
    file_profiles: dict[str, ProfileDocument] = field(default_factory=dict)

    def profile(self, name: str) -> ProfileDocument | None:
        """The profile of that name; a document wins over a file."""
        wish = self.documents.get(DocumentKey(DocumentKind.PROFILE, name))
        if wish is not None and isinstance(wish.document, ProfileDocument):
            return wish.document
        return self.file_profiles.get(name)

    def profiles(self) -> dict[str, ProfileDocument]:
        """Every profile by name; documents win over files."""
        own = {
            wish.document.name: wish.document
            for wish in self.documents.values()
            if isinstance(wish.document, ProfileDocument)
        }
        return self.file_profiles | own

    def vgpus(self) -> dict[str, VgpuWish]:
        """Every wished vGPU by name, joined with the desktop that uses it."""
        found: dict[str, VgpuWish] = {}
        for key, wish in self.documents.items():
            if isinstance(wish.document, VgpuDocument):
                document = wish.document
                found[document.name] = VgpuWish(
                    name=document.name,
                    source=key,
                    profile=document.profile,
                    type=document.type,
                    gpu=document.gpu,
                    uuid=document.uuid,
                    owner=document.owner,
                    created_at=wish.created_at,
                    sole_starter=document.sole_starter,
                )
        for key, wish in self.documents.items():
            if not isinstance(wish.document, DesktopDocument):
                continue
            desktop = wish.document
            for entry in desktop.vgpus:
                if entry.vgpu is None:
                    found[entry.name] = VgpuWish(
                        name=entry.name,
                        source=key,
                        profile=entry.profile,
                        type=entry.type,
                        gpu=entry.gpu,
                        uuid=None,
                        owner=desktop.owner,
                        created_at=wish.created_at,
                        domain=desktop.name,
                        affect=entry.affect,
                    )
                elif entry.vgpu in found:
                    found[entry.vgpu] = replace(found[entry.vgpu], domain=desktop.name, affect=entry.affect)
        return found

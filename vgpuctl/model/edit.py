"""Edits: what a user asks for in one request.  Each changes documents, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from vgpuctl.model.document import Affect, Document, DocumentKey, MigWish


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVgpus:
    """New `Vgpu` documents: `count` of them, named `name`, or `name-1`, `name-2` ... for several."""

    profile: str | None = None
    type: str | None = None
    gpu: str | None = None
    name: str | None = None
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteVgpu:
    """Drop a `Vgpu` document: by name, id, mdev UUID or VF address."""

    vgpu: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachVgpu:
    """Add a vGPU to a desktop: a new one (profile or type), or an existing one by name or id."""

    domain: str
    profile: str | None = None
    type: str | None = None
    vgpu: str | None = None
    gpu: str | None = None
    affect: frozenset[Affect] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachVgpu:
    """Take vGPUs away from a desktop: the named one, or all."""

    domain: str
    vgpu: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyDocuments:
    """Put documents in force.  With `prune`, other documents of ours of the same kinds go."""

    documents: tuple[Document, ...]
    prune: bool = False
    generations: tuple[tuple[DocumentKey, int], ...] = ()
    """Generations that the caller has seen (If-Match): another one is GenerationMismatch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptVgpus:
    """Take over vGPUs that somebody else made: the named one, or (None) all.

    `name` is what the one taken over is called, else that follows from its id.  `sole_starter`
    switches off what starts them beside us; also for one that is ours already.
    """

    vgpu: str | None = None
    name: str | None = None
    sole_starter: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairDrift:
    """Mend what is not as wished: of a vGPU or a GPU, or (None) whatever can be mended."""

    subject: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceGpu:
    """Give the places on a card that is gone (address or UUID) to the card that stands in for it."""

    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneVgpus:
    """Remove vGPUs of ours that no document wishes any longer and that nobody holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMig:
    """Put what is wanted of a GPU's MIG into its document: an address, a UUID or an index."""

    gpu: str
    mig: MigWish


@dataclass(frozen=True, slots=True, kw_only=True)
class MigPartedRule:
    """One entry of a mig-parted configuration.

    `filters` are PCI ids, device above vendor as in `0x233010DE`, empty for every GPU; `indices` are
    those of NVML among all GPUs, None for all.  `compute` are compute instances, so many of each
    profile, which come on top of `mig` and need GPU instances of their own.
    """

    filters: tuple[int, ...]
    indices: tuple[int, ...] | None
    mig: MigWish
    compute: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportMigParted:
    """Put a configuration of mig-parted's into the documents of the GPUs that it means."""

    config: str
    rules: tuple[MigPartedRule, ...]


Edit = Union[
    CreateVgpus,
    DeleteVgpu,
    AttachVgpu,
    DetachVgpu,
    ApplyDocuments,
    AdoptVgpus,
    RepairDrift,
    ReplaceGpu,
    PruneVgpus,
    SetMig,
    ImportMigParted,
]

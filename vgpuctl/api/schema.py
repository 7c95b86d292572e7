"""The shapes of what users send: documents and edits, as pydantic models.

Only the edge uses them; inside, the frozen records of `model` stand.  Keys are those of the wire.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from vgpuctl.model.pci import PciAddress, parse_address

API_VERSION = "vgpuctl/v1"

_LONGEST, _LONGEST_NEW = 128, 100
_DOMAIN = r"[^/\x00-\x1f\x7f]{1,255}"
_TYPE = r"[A-Za-z0-9][A-Za-z0-9 ._()+-]{0,63}"
_GPU = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}"
_GI_PROFILE = r"[1-9][0-9]*g\.[0-9]+gb(?:[+-][a-z]+(?:\.[a-z]+)*)*"
_COMPUTE = rf"([1-9][0-9]?c\.)?{_GI_PROFILE}"
_MOST_INSTANCES = 64
_PARAM = r"[A-Za-z0-9_.-]{1,64}"
_PARAM_VALUE = r"[^,=\s\x00-\x1f\x7f]{1,128}"


def _match(pattern: str, text: str, right: str) -> str:
    if re.fullmatch(pattern, text) is None:
        shown = text if len(text) <= 40 else text[:40] + "..."
        raise ValueError(f"{shown!r} is no name here; {right}")
    return text


def _named(longest: int) -> str:
    return rf"[A-Za-z0-9][A-Za-z0-9._:-]{{0,{longest - 1}}}"


def _name(text: str, *, longest: int = _LONGEST) -> str:
    right = f"use 1 to {longest} letters, digits, . _ : -, with a letter or digit first"
    return _match(_named(longest), text, right)


def _domain(text: str) -> str:
    if text != text.strip():
        raise ValueError("a domain's name neither begins nor ends with a space")
    return _match(_DOMAIN, text, "a domain's name has 1 to 255 characters, no / and no line break")


def _type(text: str) -> str:
    return _match(_TYPE, text, "a vGPU type is named like L40S-8Q")


def _gi_profile(text: str) -> str:
    return _match(
        _GI_PROFILE, text.lower(), "a GPU-instance profile is named like 2g.20gb or 1g.10gb+me"
    ).lower()


def _compute(text: str) -> str:
    return _match(
        _COMPUTE,
        text.lower(),
        "a compute-instance profile is named like 1c.3g.40gb, or 3g.40gb for the whole",
    )


def _gpu(text: str) -> str:
    """An address in its full form; UUIDs and names of mdev parents as they are."""
    _match(_GPU, text, "a GPU is named by its address (0000:41:00.0) or its UUID (GPU-...)")
    address = parse_address(text)
    return str(address) if isinstance(address, PciAddress) else text


def _gpu_or_index(text: str) -> str:
    return text if re.fullmatch(r"[0-9]{1,3}", text) else _gpu(text)


def _quoted_address(value: object) -> object:
    """A number here was an address, before a YAML 1.1 parser took it for base 60."""
    if isinstance(value, float):
        raise ValueError("must be text; an address such as 41:00.0 has to stand in quotes")  # noqa: TRY004
    return value


def _reference(text: str) -> str:
    return _match(r"[^/\x00-\x1f\x7f]{1,255}", text, "name it by name, id, mdev UUID or VF")


def _param(text: str) -> str:
    return _match(_PARAM, text, "a parameter's name has letters, digits, and . _ -")


def _param_value(value: object) -> str:
    """Plugin parameters are text `key=value,key=value`; a flag is 0 or 1 there."""
    if isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, str | int | float):
        raise ValueError("must be one text or number")  # noqa: TRY004
    text = str(value)
    if re.fullmatch(_PARAM_VALUE, text) is None:
        raise ValueError("must be 1 to 128 characters without comma, =, space or line break")
    return text


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise ValueError(f"{text!r} is no UUID") from None


Name = Annotated[
    str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{_named(_LONGEST)}$"})
]
NewName = Annotated[
    str,
    AfterValidator(partial(_name, longest=_LONGEST_NEW)),
    WithJsonSchema({"type": "string", "pattern": f"^{_named(_LONGEST_NEW)}$"}),
]
"""A name that others are made from: `name-1`, `name-2` ..."""
DomainName = Annotated[
    str, AfterValidator(_domain), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 255})
]
TypeName = Annotated[str, AfterValidator(_type), WithJsonSchema({"type": "string", "pattern": f"^{_TYPE}$"})]
GiProfileName = Annotated[
    str, AfterValidator(_gi_profile), WithJsonSchema({"type": "string", "pattern": f"^{_GI_PROFILE}$"})
]
ComputeName = Annotated[
    str, AfterValidator(_compute), WithJsonSchema({"type": "string", "pattern": f"^{_COMPUTE}$"})
]
_GPU_SCHEMA = WithJsonSchema({"type": "string", "description": "PCI address, GPU UUID, or mdev parent"})
GpuName = Annotated[str, AfterValidator(_gpu), BeforeValidator(_quoted_address), _GPU_SCHEMA]
GpuReference = Annotated[str, AfterValidator(_gpu_or_index), BeforeValidator(_quoted_address), _GPU_SCHEMA]
Reference = Annotated[
    str, AfterValidator(_reference), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 255})
]
ParamName = Annotated[
    str, AfterValidator(_param), WithJsonSchema({"type": "string", "pattern": f"^{_PARAM}$"})
]
ParamValue = Annotated[
    str, BeforeValidator(_param_value), WithJsonSchema({"type": ["string", "number", "boolean"]})
]
UuidText = Annotated[str, AfterValidator(_uuid), WithJsonSchema({"type": "string", "format": "uuid"})]
Affects = Annotated[
    list[Literal["live", "config"]], Field(min_length=1, json_schema_extra={"uniqueItems": True})
]
_Owner = Annotated[str, Field(max_length=255)]


class Shape(BaseModel):
    """Strict, closed and frozen: an unknown key or a wrong type is a fault."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PlacementShape(Shape):
    """How a GPU is chosen."""

    policy: Literal["pack", "spread"] = "pack"
    numa: Literal["ignore", "prefer", "require"] = "ignore"


class ProfileShape(Shape):
    """A named profile: vGPU types in order of preference."""

    apiVersion: Literal["vgpuctl/v1"]  # noqa: N815
    kind: Literal["Profile"]
    name: NewName
    types: Annotated[list[TypeName], Field(min_length=1, max_length=256)]
    placement: PlacementShape = PlacementShape()
    params: dict[ParamName, ParamValue] = Field(default_factory=dict)
    description: Annotated[str, Field(max_length=1000)] = ""


class GpuInstanceShape(Shape):
    """A GPU instance at a place."""

    profile: GiProfileName
    start: Annotated[int, Field(ge=0, le=63)]
    compute_instances: dict[ComputeName, Annotated[int, Field(ge=0, le=_MOST_INSTANCES)]] | None = None


class MigShape(Shape):
    """MIG of a GPU; at most one of instances, profiles and vgpus."""

    enabled: bool = True
    instances: Annotated[list[GpuInstanceShape], Field(max_length=_MOST_INSTANCES)] | None = None
    profiles: dict[GiProfileName, Annotated[int, Field(ge=0, le=_MOST_INSTANCES)]] | None = None
    vgpus: dict[TypeName, Annotated[int, Field(ge=0, le=4096)]] | None = None


class GpuShape(Shape):
    """What is wanted of one GPU."""

    apiVersion: Literal["vgpuctl/v1"]  # noqa: N815
    kind: Literal["Gpu"]
    name: GpuName
    vfs: bool | None = True
    repair: Literal["auto", "ask", "never"] | None = None
    mig: MigShape | None = None


class VgpuShape(Shape):
    """A vGPU that stands for itself; exactly one of profile and type."""

    apiVersion: Literal["vgpuctl/v1"]  # noqa: N815
    kind: Literal["Vgpu"]
    name: Name
    profile: Name | None = None
    type: TypeName | None = None
    gpu: GpuName | None = None
    uuid: UuidText | None = None
    owner: _Owner = ""
    sole_starter: bool = False


class DesktopVgpuShape(Shape):
    """A vGPU of a desktop; exactly one of profile, type and vgpu.

    As a rule it is called after the domain, hence its name is as free as a domain's.
    """

    name: DomainName | None = None
    profile: Name | None = None
    type: TypeName | None = None
    vgpu: Name | None = None
    gpu: GpuName | None = None
    affect: Affects | None = None


class DesktopShape(Shape):
    """The vGPUs that a libvirt domain has."""

    apiVersion: Literal["vgpuctl/v1"]  # noqa: N815
    kind: Literal["Desktop"]
    name: DomainName
    vgpus: Annotated[list[DesktopVgpuShape], Field(max_length=16)]
    owner: _Owner = ""


class CreateShape(Shape):
    """New `Vgpu` documents; exactly one of profile and type."""

    action: Literal["create-vgpu"]
    profile: Name | None = None
    type: TypeName | None = None
    gpu: GpuReference | None = None
    name: NewName | None = None
    count: Annotated[int, Field(ge=1, le=4096)] = 1


class DeleteShape(Shape):
    """Drop a `Vgpu` document."""

    action: Literal["delete-vgpu"]
    vgpu: Reference


class AttachShape(Shape):
    """Give a domain a vGPU; exactly one of profile, type and vgpu."""

    action: Literal["attach"]
    domain: DomainName
    profile: Name | None = None
    type: TypeName | None = None
    vgpu: Reference | None = None
    gpu: GpuReference | None = None
    affect: Affects | None = None


class DetachShape(Shape):
    """Take vGPUs away from a domain: the named one, or all."""

    action: Literal["detach"]
    domain: DomainName
    vgpu: Reference | None = None


class ApplyShape(Shape):
    """Put documents in force; exactly one of documents and source (YAML text)."""

    action: Literal["apply"]
    documents: list[ProfileShape | GpuShape | VgpuShape | DesktopShape] | None = None
    source: str | None = None
    prune: bool = False
    generations: dict[str, int] = Field(default_factory=dict)


class AdoptShape(Shape):
    """Take over vGPUs that somebody else made: the named one, or (null) all."""

    action: Literal["adopt"]
    vgpu: Reference | None = None
    name: NewName | None = None
    sole_starter: bool = False


class RepairShape(Shape):
    """Mend drift: of a vGPU or a GPU, or (null) whatever can be mended."""

    action: Literal["repair"]
    subject: Reference | None = None


class ReplaceShape(Shape):
    """Give the places on a card that is gone to the card that stands in for it."""

    action: Literal["replace-gpu"]
    old: GpuName
    new: GpuReference


class PruneShape(Shape):
    """Remove vGPUs of ours that no document wishes and nobody holds."""

    action: Literal["prune"]


class SetMigShape(Shape):
    """Put what is wanted of a GPU's MIG into its document."""

    action: Literal["set-mig"]
    gpu: GpuReference
    mig: MigShape


class ImportMigPartedShape(Shape):
    """Put a configuration of a mig-parted file (YAML text) into the documents of the GPUs that it means."""

    action: Literal["import-mig-parted"]
    source: str
    config: Annotated[str, Field(max_length=255)] | None = None


class PlanReferenceShape(Shape):
    """Run exactly a plan that was shown."""

    plan: Annotated[str, Field(min_length=1, max_length=64)]


class HookVgpuShape(Shape):
    """A vGPU of ours in a domain's XML, and the device that stands there; exactly one of mdev and vf."""

    vgpu: Annotated[str, Field(max_length=64)]
    mdev: Annotated[str, Field(max_length=64)] | None = None
    vf: Annotated[str, Field(max_length=64)] | None = None


class HookShape(Shape):
    """What libvirt's hook asks before a domain starts, and tells when it has ended."""

    operation: Literal["prepare", "release"]
    domain: DomainName
    uuid: UuidText
    token: Annotated[str, Field(max_length=64)]
    vgpus: Annotated[list[HookVgpuShape], Field(max_length=64)]
    limit_s: Annotated[float, Field(gt=0, le=60)] = 15.0
    saved: bool = False


DOCUMENTS: dict[str, type[Shape]] = {
    "Gpu": GpuShape,
    "Vgpu": VgpuShape,
    "Desktop": DesktopShape,
    "Profile": ProfileShape,
}
EDITS: dict[str, type[Shape]] = {
    "create-vgpu": CreateShape,
    "delete-vgpu": DeleteShape,
    "attach": AttachShape,
    "detach": DetachShape,
    "apply": ApplyShape,
    "adopt": AdoptShape,
    "repair": RepairShape,
    "replace-gpu": ReplaceShape,
    "prune": PruneShape,
    "set-mig": SetMigShape,
    "import-mig-parted": ImportMigPartedShape,
}

"""What libvirt's hook sends: JSON to `model.start`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from vgpuctl.api.faults import Fault, dotted, faults_of, refuse
from vgpuctl.api.schema import HookShape, HookVgpuShape
from vgpuctl.model.domain import ALIAS_PREFIX, HostdevSource, MdevSource, PciSource, vgpu_of_alias
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.start import DomainRelease, DomainStart, NamedVgpu


@dataclass(frozen=True, slots=True)
class HookStart:
    """A start, and how long the hook waits for the answer."""

    start: DomainStart
    limit_s: float


def parse_hook(body: Any) -> HookStart | DomainRelease:
    """What the hook asks or tells; an alias that only looks like one of ours is left out."""
    try:
        shape = HookShape.model_validate(body)
    except ValidationError as error:
        raise refuse(
            "request", [Fault(dotted(path), message) for path, message in faults_of(error, HookShape)]
        ) from None
    named = [found for each in shape.vgpus if (found := _named(each)) is not None]
    if shape.operation == "release":
        return DomainRelease(
            domain=shape.domain,
            uuid=UUID(shape.uuid),
            token=shape.token,
            vgpus=tuple(each.vgpu for each in named),
            saved=shape.saved,
        )
    start = DomainStart(domain=shape.domain, uuid=UUID(shape.uuid), token=shape.token, vgpus=tuple(named))
    return HookStart(start, shape.limit_s)


def _named(shape: HookVgpuShape) -> NamedVgpu | None:
    vgpu = vgpu_of_alias(ALIAS_PREFIX + shape.vgpu)
    source: HostdevSource
    try:
        if shape.mdev is not None:
            source = MdevSource(UUID(shape.mdev))
        elif shape.vf is not None:
            source = PciSource(PciAddress.parse(shape.vf))
        else:
            return None
    except ValueError as error:
        raise refuse("request", [Fault("vgpus", str(error))]) from None
    return NamedVgpu(vgpu, source) if vgpu is not None else None

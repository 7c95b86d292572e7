"""NvmlHost as JSON, and back: between the helper process and us, and in captures.

A fact that is not known is `{"unknown": reason}`; nothing else in here is an object with that key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.types import TypeKind, VgpuType
from vgpuctl.ports.nvml import NvmlGpu, NvmlHost, NvmlVgpu

T = TypeVar("T")

_UNKNOWN = "unknown"


def encode(answer: Fact[NvmlHost]) -> dict[str, Any]:
    """The JSON value of an answer of NVML."""
    if isinstance(answer, Unknown):
        return {_UNKNOWN: answer.reason}
    return {
        "driver_version": _encode_fact(answer.driver_version),
        "gpus": [_encode_gpu(gpu) for gpu in answer.gpus],
    }


def decode(value: Any) -> Fact[NvmlHost]:
    """The answer that `value` encodes; raises ValueError when it is none."""
    try:
        return _decode_fact(value, _decode_host)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an answer of NVML: {error!r}") from error


def _encode_gpu(gpu: NvmlGpu) -> dict[str, Any]:
    return {
        "address": str(gpu.address),
        "uuid": _encode_fact(gpu.uuid),
        "name": _encode_fact(gpu.name),
        "fb_mib": _encode_fact(gpu.fb_mib),
        "mig_current": _encode_fact(gpu.mig_current),
        "mig_pending": _encode_fact(gpu.mig_pending),
        "virtualization_mode": _encode_fact(gpu.virtualization_mode),
        "host_vgpu_mode": _encode_fact(gpu.host_vgpu_mode),
        "mixed_size": _encode_fact(gpu.mixed_size),
        "types": _encode_fact(gpu.types, lambda types: [asdict(each) for each in types]),
        "active": _encode_fact(gpu.active, lambda active: [_encode_vgpu(each) for each in active]),
    }


def _encode_vgpu(vgpu: NvmlVgpu) -> dict[str, Any]:
    return {
        "type_id": _encode_fact(vgpu.type_id),
        "vf": _encode_fact(vgpu.vf, str),
        "mdev_uuid": _encode_fact(vgpu.mdev_uuid),
        "vm_uuid": _encode_fact(vgpu.vm_uuid),
        "fb_used_mib": _encode_fact(vgpu.fb_used_mib),
    }


def _decode_host(value: Any) -> NvmlHost:
    return NvmlHost(
        driver_version=_decode_fact(value["driver_version"], str),
        gpus=tuple(_decode_gpu(gpu) for gpu in value["gpus"]),
    )


def _decode_gpu(value: Any) -> NvmlGpu:
    return NvmlGpu(
        address=PciAddress.parse(value["address"]),
        uuid=_decode_fact(value["uuid"], str),
        name=_decode_fact(value["name"], str),
        fb_mib=_decode_fact(value["fb_mib"], int),
        mig_current=_decode_fact(value["mig_current"], bool),
        mig_pending=_decode_fact(value["mig_pending"], bool),
        virtualization_mode=_decode_fact(value["virtualization_mode"], int),
        host_vgpu_mode=_decode_fact(value["host_vgpu_mode"], int),
        mixed_size=_decode_fact(value["mixed_size"], bool),
        types=_decode_fact(value["types"], lambda types: tuple(_decode_type(each) for each in types)),
        active=_decode_fact(value["active"], lambda active: tuple(_decode_vgpu(each) for each in active)),
    )


def _decode_vgpu(value: Any) -> NvmlVgpu:
    return NvmlVgpu(
        type_id=_decode_fact(value["type_id"], int),
        vf=_decode_fact(value["vf"], PciAddress.parse),
        mdev_uuid=_decode_fact(value["mdev_uuid"], str),
        vm_uuid=_decode_fact(value["vm_uuid"], str),
        fb_used_mib=_decode_fact(value["fb_used_mib"], int),
    )


def _decode_type(value: Any) -> VgpuType:
    return VgpuType(**{**value, "kind": TypeKind(value["kind"])})


def _encode_fact(fact: Fact[T], encode_value: Callable[[T], Any] = lambda value: value) -> Any:
    return {_UNKNOWN: fact.reason} if isinstance(fact, Unknown) else encode_value(fact)


def _decode_fact(value: Any, decode_value: Callable[[Any], T]) -> Fact[T]:
    if isinstance(value, dict) and value.keys() == {_UNKNOWN}:
        return Unknown(str(value[_UNKNOWN]))
    return decode_value(value)

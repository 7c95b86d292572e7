"""A GPU joined from its sources: the kernel, NVML, the catalogue, and the open VFIO handles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from vgpuctl.host.frameworks.parents import NVIDIA
from vgpuctl.host.frameworks.typefacts import disagreements, enriched, sized
from vgpuctl.host.sighting import NO_DEVICE, Sighting, state_of
from vgpuctl.model.catalog import GpuModel
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.gpu import FrameworkKind, Gpu, GpuState, Holder, ObservedVgpu
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.types import VgpuType
from vgpuctl.ports.nvml import NvmlGpu, NvmlHost

T = TypeVar("T")

Holders = Mapping[str, tuple[Holder, ...]]
_DRIVER_NODE: Final = "/dev/nvidia"


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """What is known beside the kernel's word on a GPU."""

    nvml: Fact[NvmlHost]
    model: GpuModel | None
    handles: Fact[Holders]


def joined(seen: Sighting, index: int, others: Others) -> Gpu:
    """The GPU; what no source says is Unknown with the reason of the one that should have."""
    nvml = _nvml_gpu(seen.address, others.nvml)
    types, notes = _types(seen, nvml, others.model)
    state, reason = state_of(seen)
    names = {each.type_id: each.name for each in types if each.type_id is not None}
    return Gpu(
        address=seen.address,
        index=index,
        device=seen.device,
        uuid=_uuid(seen, nvml),
        model=_model_name(seen, nvml, others.model),
        driver=seen.driver,
        numa_node=seen.numa_node,
        state=state,
        state_reason=reason,
        framework=seen.framework,
        vfs_max=seen.vfs_total,
        vfs=seen.vfs,
        fb_mib=nvml.fb_mib if isinstance(nvml, NvmlGpu) else nvml,
        mig=_mode(seen, nvml, others.model, of_mig=True),
        mig_pending=_mig_fact(seen, nvml, others.model, "mig_pending", otherwise=False),
        gi_profiles=_mig_fact(seen, nvml, others.model, "gi_profiles", otherwise=()),
        gpu_instances=_mig_fact(seen, nvml, others.model, "gpu_instances", otherwise=()),
        mixed_size=_mode(seen, nvml, others.model, of_mig=False),
        types=types,
        creatable=seen.view.creatable,
        vgpus=tuple(_vgpu(each, names, seen, others.handles) for each in seen.view.vgpus),
        holders=_own_holders(seen, others.handles),
        notes=(*notes, *_surprises(seen, others.model)),
    )


def _nvml_gpu(address: GpuAddress, nvml: Fact[NvmlHost]) -> NvmlGpu | Unknown:
    if isinstance(nvml, Unknown):
        return nvml
    found = next((each for each in nvml.gpus if each.address == address), None)
    return found if found is not None else Unknown("NVML does not list this GPU")


def _uuid(seen: Sighting, nvml: NvmlGpu | Unknown) -> Fact[str]:
    if isinstance(nvml, NvmlGpu) and not isinstance(nvml.uuid, Unknown):
        return nvml.uuid
    if seen.words.uuid is not None:
        return seen.words.uuid
    if seen.device.vendor != NVIDIA:
        return Unknown("only an NVIDIA GPU has a UUID")
    return nvml.uuid if isinstance(nvml, NvmlGpu) else nvml


def _model_name(seen: Sighting, nvml: NvmlGpu | Unknown, model: GpuModel | None) -> str:
    if isinstance(nvml, NvmlGpu) and not isinstance(nvml.name, Unknown):
        return nvml.name
    if seen.words.model is not None:
        return seen.words.model
    if model is not None:
        return model.name
    return str(seen.device) if any((seen.device.vendor, seen.device.device)) else str(seen.address)


def _mode(seen: Sighting, nvml: NvmlGpu | Unknown, model: GpuModel | None, *, of_mig: bool) -> Fact[bool]:
    """MIG or mixed-size mode; false without a question for a model that has no such mode."""
    if seen.device.vendor != NVIDIA:
        return False
    if isinstance(nvml, NvmlGpu):
        answer = nvml.mig_current if of_mig else nvml.mixed_size
        if not isinstance(answer, Unknown):
            return answer
    else:
        answer = nvml
    if model is not None and not (model.mig if of_mig else model.mixed_size):
        return False
    return answer


def _mig_fact(
    seen: Sighting, nvml: NvmlGpu | Unknown, model: GpuModel | None, name: str, *, otherwise: T
) -> Fact[T]:
    """A fact of MIG's; `otherwise` for a model that has none."""
    if seen.device.vendor != NVIDIA or (model is not None and not model.mig):
        return otherwise
    found: Fact[T] = nvml if isinstance(nvml, Unknown) else getattr(nvml, name)
    return found


def _types(
    seen: Sighting, nvml: NvmlGpu | Unknown, model: GpuModel | None
) -> tuple[tuple[VgpuType, ...], tuple[str, ...]]:
    """The supported types, the kernel's word first, and where it disagrees with the catalogue.

    The vendor framework's files name no type that is in use or used up, so there (and while VFs are
    off) the list is NVML's, else the catalogue's.
    """
    told = () if isinstance(nvml, Unknown) or isinstance(nvml.types, Unknown) else nvml.types
    catalogue = model.types if model is not None else ()
    by_name = {each.name: each for each in catalogue}
    by_id = {each.type_id: each for each in told}
    base = seen.view.types
    if seen.framework is FrameworkKind.VENDOR_VFIO:
        listed = {each.type_id for each in base} | {each.name for each in base}
        more = told or tuple(each for each in catalogue if each.type_id is not None)
        base = (
            *base,
            *(each for each in more if each.type_id not in listed and each.name not in listed),
        )
    elif seen.framework is None and seen.vfs_total:
        base = told
    hardware = tuple(enriched(each, by_id.get(each.type_id)) for each in base)
    types = tuple(sized(enriched(each, by_name.get(each.name))) for each in hardware)
    return (
        tuple(sorted(types, key=lambda each: (each.type_id is None, each.type_id or 0, each.name))),
        disagreements(seen.view.types, catalogue),
    )


def _vgpu(vgpu: ObservedVgpu, names: dict[int, str], seen: Sighting, handles: Fact[Holders]) -> ObservedVgpu:
    number, name = vgpu.type_id, vgpu.type_name
    if isinstance(name, Unknown) and isinstance(number, int) and number in names:
        name = names[number]
    holders = holders_of(seen.nodes[vgpu.parent, vgpu.mdev_uuid], handles)
    if name is vgpu.type_name and holders == vgpu.holders:
        return vgpu
    return replace(vgpu, type_name=name, holders=holders)


def holders_of(nodes: Fact[tuple[str, ...]], handles: Fact[Holders]) -> Fact[tuple[Holder, ...]]:
    """Who holds one of `nodes` open; Unknown where either is."""
    if isinstance(nodes, Unknown):
        return nodes
    if not nodes:
        return ()  # there is no node that anybody could open
    if isinstance(handles, Unknown):
        return handles
    return tuple(dict.fromkeys(holder for node in nodes for holder in handles.get(node, ())))


def _own_holders(seen: Sighting, handles: Fact[Holders]) -> Fact[tuple[Holder, ...]]:
    if isinstance(seen.own_nodes, Unknown) and not isinstance(handles, Unknown):
        numbered = [node for node in handles if node.removeprefix(_DRIVER_NODE).isdecimal()]
        if not numbered:
            return ()  # nobody holds any NVIDIA GPU, so nobody holds this one
    return holders_of(seen.own_nodes, handles)


def _surprises(seen: Sighting, model: GpuModel | None) -> tuple[str, ...]:
    """What is not as the model would have it."""
    if model is None:
        if seen.device.vendor == NVIDIA:
            return (f"the catalogue does not know PCI id {seen.device}",)
        return ()
    if model.vfs and not seen.vfs_total and seen.framework is not FrameworkKind.MDEV:
        return (f"a {model.name} has {model.vfs} VFs, this one none: is SR-IOV on in the firmware settings?",)
    return ()


def unreadable(address: GpuAddress, index: int, reason: str, last: Gpu | None) -> Gpu:
    """A GPU that could not be read; who it is, by its last reading, and nothing of how it is."""
    unread = Unknown(reason)
    return Gpu(
        address=address,
        index=index,
        device=last.device if last else NO_DEVICE,
        uuid=last.uuid if last else unread,
        model=last.model if last else str(address),
        driver=None,
        numa_node=last.numa_node if last else None,
        state=GpuState.UNREADABLE,
        state_reason=reason,
        framework=None,
        fb_mib=unread,
        mig=unread,
        mig_pending=unread,
        gi_profiles=unread,
        gpu_instances=unread,
        mixed_size=unread,
        creatable=unread,
        holders=unread,
    )

"""What must be true at the last moment before a vGPU or a GPU is touched, read afresh each time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from vgpuctl.errors import (
    CardChanged,
    Conflict,
    FactUnknown,
    GpuNotFound,
    InvalidGpuState,
    VgpuBusy,
    VgpuctlError,
)
from vgpuctl.host.frameworks.parents import MDEVS, NVIDIA, device_path, vfio_nodes
from vgpuctl.host.joining import Holders, holders_of
from vgpuctl.host.sighting import Sighting, device_id, driver_words
from vgpuctl.host.watch import Hanging, Watch, deadline_in
from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.domain import Domain, Hostdev, MdevSource, PciSource, vgpu_of_alias
from vgpuctl.model.fact import NOT_READ, Fact, Unknown, known
from vgpuctl.model.gpu import FrameworkKind, GpuInstance, Holder, ObservedVgpu, Vf
from vgpuctl.model.mig.compute import may_stand_on
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.step import DestroyGpuInstance, RemoveVgpu
from vgpuctl.ports.handles import VfioHandles
from vgpuctl.ports.hypervisor import HypervisorPort
from vgpuctl.ports.kernel import Kernel
from vgpuctl.ports.nvml import Nvml

NVML_S: Final = 5.0
HANDLES_S: Final = 30.0
"""One pass over /proc takes a second or two on a host with ten thousand processes."""


class Guard:
    """Refuses what would hit the wrong card, or somebody who is using it."""

    def __init__(
        self, kernel: Kernel, nvml: Nvml, handles: VfioHandles, hypervisor: HypervisorPort | None
    ) -> None:
        self._kernel = kernel
        self._nvml = nvml
        self._handles = handles
        self._hypervisor = hypervisor
        self._watch = Watch()
        self._one_pass = threading.Lock()
        self._passes = 0
        self._holders: Fact[Holders] = NOT_READ

    def same_card(self, gpu: GpuIdentity) -> None:
        """Raise CardChanged when another card stands at that address.

        A UUID that cannot be read now (PF on pci-pf-stub) is no other UUID.
        """
        try:
            device = device_id(self._kernel, gpu.address)
        except FileNotFoundError as error:
            raise GpuNotFound(
                f"there is no GPU at {gpu.address}",
                hint="it fell off the bus, or was taken out",
                gpu=str(gpu.address),
            ) from error
        except (OSError, ValueError) as error:
            raise FactUnknown(f"who GPU {gpu.address} is could not be read: {error}") from error
        if device != gpu.device:
            raise _changed(gpu, f"{device} instead of {gpu.device}")
        if gpu.uuid is None or device.vendor != NVIDIA:
            return
        uuid = driver_words(self._kernel, gpu.address).uuid or self._uuid_of_nvml(gpu)
        if uuid is not None and uuid != gpu.uuid:
            raise _changed(gpu, f"{uuid} instead of {gpu.uuid}")

    def _uuid_of_nvml(self, gpu: GpuIdentity) -> str | None:
        host = self._nvml.host(NVML_S)
        if isinstance(host, Unknown):
            return None
        for each in host.gpus:
            if each.address == gpu.address and not isinstance(each.uuid, Unknown):
                return each.uuid
        return None

    def vf_of(self, parent: GpuAddress, gpu: GpuIdentity) -> None:
        """Raise InvalidGpuState when `parent` is there and is neither the GPU nor one of its VFs.

        Addresses may be others after a boot.
        """
        if parent == gpu.address:
            return
        try:
            pf = self._kernel.link(f"{device_path(parent)}/physfn")
        except FileNotFoundError:
            if not self._kernel.exists(device_path(parent)):
                return  # the VFs are off: nothing is there that could be somebody's
            pf = "no GPU"
        except OSError as error:
            raise FactUnknown(f"whose VF {parent} is could not be read: {error.strerror}") from error
        if pf != str(gpu.address):
            raise InvalidGpuState(
                f"{parent} is a VF of {pf}, not of GPU {gpu.address}",
                hint="the VFs were turned off, or have other addresses since the last boot",
                gpu=str(gpu.address),
                parent=str(parent),
            )

    def nobody_holds(self, step: RemoveVgpu) -> None:
        """Raise VgpuBusy when a process or a running domain has the vGPU; FactUnknown when unreadable.

        Both are asked: a QEMU that libvirt does not know holds a handle, and a domain that is starting
        does not hold one yet.
        """
        if step.framework in (FrameworkKind.MDEV, FrameworkKind.SRIOV_MDEV):
            path = f"{MDEVS}/{step.vgpu}"
        else:
            path = device_path(step.parent)
        holders = holders_of(vfio_nodes(self._kernel, path), self._all_holders())
        _refuse_held(holders, f"vGPU {step.name} on {step.parent}")
        self._no_running_domain(
            lambda hostdev: _names(hostdev, step), f"vGPU {step.name}", {"vgpu": step.name}
        )

    def nobody_runs_on(self, vgpus: Sequence[ObservedVgpu], what: str) -> None:
        """Raise VgpuBusy when a process or a running domain has one of these; FactUnknown when unreadable."""
        if not vgpus:
            return
        handles = self._all_holders()
        for vgpu in vgpus:
            path = device_path(vgpu.parent) if vgpu.mdev_uuid is None else f"{MDEVS}/{vgpu.mdev_uuid}"
            name = f"vGPU {vgpu.mdev_uuid or vgpu.parent} {what}"
            _refuse_held(holders_of(vfio_nodes(self._kernel, path), handles), name)
        sources = {each.mdev_uuid or each.parent for each in vgpus}
        self._no_running_domain(lambda hostdev: _source(hostdev) in sources, f"a vGPU {what}", {})

    def nobody_holds_a_vf(self, vfs: tuple[Vf, ...]) -> None:
        """Raise VgpuBusy when a process has one of these VFs, with a vGPU or plain, open."""
        if not vfs:
            return
        handles = self._all_holders()
        for vf in vfs:
            nodes = vfio_nodes(self._kernel, device_path(vf.address))
            _refuse_held(holders_of(nodes, handles), f"VF {vf.address}")
        addresses = {vf.address for vf in vfs}
        self._no_running_domain(
            lambda hostdev: isinstance(hostdev.source, PciSource) and hostdev.source.address in addresses,
            "a VF of this GPU",
            {},
        )

    def holders_of_gpu(self, seen: Sighting) -> tuple[Holder, ...]:
        """Who has the GPU itself open, as far as that can be read: who makes sriov-manage fail."""
        return known(holders_of(seen.own_nodes, self._all_holders())) or ()

    def nobody_holds_gpu(self, seen: Sighting) -> None:
        """Raise VgpuBusy when a process has the GPU itself open; FactUnknown when unreadable."""
        _refuse_held(holders_of(seen.own_nodes, self._all_holders()), f"GPU {seen.address}")

    def nobody_holds_any_gpu(self) -> None:
        """Raise VgpuBusy when a process has any GPU or vGPU of this host open."""
        handles = self._all_holders()
        everybody = (
            handles
            if isinstance(handles, Unknown)
            else tuple(dict.fromkeys(holder for holders in handles.values() for holder in holders))
        )
        _refuse_held(everybody, "a GPU of this host, all of which a reset on NVSwitch takes along,")

    def _all_holders(self) -> Fact[Holders]:
        """The open handles, by a pass that begins after now; those who wait for one share the next.

        /proc/PID/cmdline of a process that hangs in the kernel can hang as well.
        """
        deadline = deadline_in(HANDLES_S)
        passes = self._passes
        if not self._one_pass.acquire(timeout=HANDLES_S):
            return Unknown("an earlier pass over the open handles has not ended")
        try:
            if self._passes == passes:
                self._passes, self._holders = passes + 1, NOT_READ
                self._holders = self._watch.start("open handles", self._handles.holders).result(deadline)
        except Hanging as error:
            self._holders = Unknown(str(error))
        finally:
            self._one_pass.release()
        return self._holders

    def _no_running_domain(
        self, names: Callable[[Hostdev], bool], what: str, facts: dict[str, object]
    ) -> None:
        domains = self._domains()
        if isinstance(domains, Unknown):
            raise FactUnknown(
                f"whether a running domain has {what} is not known: {domains.reason}",
                hint="nothing is done to it until libvirt answers again",
                **facts,
            )
        for domain in domains:
            if not domain.state.is_active:
                continue
            if domain.live is None:
                raise FactUnknown(
                    f"which devices domain {domain.name} runs with is not known", domain=domain.name
                )
            if any(names(hostdev) for hostdev in domain.live):
                raise VgpuBusy(
                    f"{what} is in the running domain {domain.name}",
                    hint=_detaching(domain.name, facts),
                    domain=domain.name,
                    holders=[],
                    **facts,
                )

    def _domains(self) -> Fact[tuple[Domain, ...]]:
        if self._hypervisor is None:
            return ()
        try:
            return self._hypervisor.domains()
        except VgpuctlError as error:
            return Unknown(error.message)


def _refuse_held(holders: Fact[tuple[Holder, ...]], what: str) -> None:
    if isinstance(holders, Unknown):
        raise FactUnknown(
            f"whether somebody holds {what} is not known: {holders.reason}",
            hint="what cannot be read counts as busy; run the daemon as root",
        )
    if holders:
        raise VgpuBusy(
            f"{what} is held open by {named(holders)}",
            hint="stop the domain that has it, gracefully",
            holders=facts_of(holders),
        )


def refuse_standing(
    step: DestroyGpuInstance,
    instances: Sequence[GpuInstance],
    vgpus: Sequence[ObservedVgpu],
    profiles: Mapping[int, str | None],
) -> None:
    """Raise what is against destroying an instance: it is another now, or something stands on it or may.

    NVML lists only vGPUs whose VM runs; which instance a stopped one is on, its VF tells.  One of which
    nobody tells may stand on any instance of the profile that its type takes (`profiles`).
    """
    where = f"GPU instance {step.instance} ({step.profile}@{step.start}) of GPU {step.gpu.address}"
    for each in instances:
        if (each.id, each.profile_id) != (step.instance, step.profile_id):
            raise Conflict(f"{where} is {each.id} ({each.place}) now", gpu=str(step.gpu.address))
        if isinstance(each.compute_instances, Unknown):
            raise FactUnknown(f"whether {where} has compute instances: {each.compute_instances.reason}")
        if each.compute_instances:
            hint = f"nvidia-smi mig -dci -gi {each.id} -i {step.gpu.address}"
            raise VgpuBusy(f"{where} has compute instances", hint=hint, holders=[])
        for vgpu in vgpus:
            if not may_stand_on(vgpu, each, profiles):
                continue
            name, instance = str(vgpu.mdev_uuid or vgpu.parent), vgpu.gpu_instance_id
            if isinstance(instance, int):
                raise VgpuBusy(f"{where} carries vGPU {name}", holders=facts_of(known(vgpu.holders) or ()))
            why = instance.reason if isinstance(instance, Unknown) else "the driver does not say"
            raise FactUnknown(f"whether vGPU {name} stands on {where} is not known: {why}")


def named(holders: tuple[Holder, ...]) -> str:
    """Processes, for people."""
    return ", ".join(f"{each.domain or each.command} (pid {each.pid})" for each in holders)


def facts_of(holders: tuple[Holder, ...]) -> list[dict[str, object]]:
    """Processes, for programs."""
    return [{"pid": each.pid, "command": each.command, "domain": each.domain} for each in holders]


def _detaching(domain: str, facts: dict[str, object]) -> str:
    if "vgpu" not in facts:
        return "stop it, gracefully"
    return f"stop it or detach the vGPU: vgpuctl detach {domain} --vgpu {facts['vgpu']}"


def _names(hostdev: Hostdev, step: RemoveVgpu) -> bool:
    return vgpu_of_alias(hostdev.alias) == step.vgpu or _source(hostdev) in (step.vgpu, step.parent)


def _source(hostdev: Hostdev) -> UUID | GpuAddress:
    match hostdev.source:
        case MdevSource(uuid):
            return uuid
        case PciSource(address):
            return address


def _changed(gpu: GpuIdentity, what: str) -> CardChanged:
    return CardChanged(
        f"another card stands at {gpu.address}: {what}",
        hint="nothing was done to it; delete the vGPU and create it anew, or put the card back",
        gpu=str(gpu.address),
    )

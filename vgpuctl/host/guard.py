"""What must be true at the last moment before a vGPU or a GPU is touched, read afresh each time."""

from __future__ import annotations

from typing import Final

from vgpuctl.errors import CardChanged, FactUnknown, GpuNotFound, VgpuBusy, VgpuctlError
from vgpuctl.host.frameworks.parents import MDEVS, NVIDIA, device_path, vfio_nodes
from vgpuctl.host.joining import holders_of
from vgpuctl.host.sighting import Sighting, device_id, driver_words
from vgpuctl.model.allocation import GpuIdentity
from vgpuctl.model.domain import Domain, Hostdev, MdevSource, PciSource, vgpu_of_alias
from vgpuctl.model.fact import Fact, Unknown, known
from vgpuctl.model.gpu import FrameworkKind, Holder, Vf
from vgpuctl.model.step import RemoveVgpu
from vgpuctl.ports.handles import VfioHandles
from vgpuctl.ports.hypervisor import HypervisorPort
from vgpuctl.ports.kernel import Kernel
from vgpuctl.ports.nvml import Nvml

NVML_S: Final = 5.0


class Guard:
    """Refuses what would hit the wrong card, or somebody who is using it."""

    def __init__(
        self, kernel: Kernel, nvml: Nvml, handles: VfioHandles, hypervisor: HypervisorPort | None
    ) -> None:
        self._kernel = kernel
        self._nvml = nvml
        self._handles = handles
        self._hypervisor = hypervisor

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

    def nobody_holds(self, step: RemoveVgpu) -> None:
        """Raise VgpuBusy when a process or a running domain has the vGPU; FactUnknown when unreadable.

        Both are asked: a QEMU that libvirt does not know holds a handle, and a domain that is starting
        does not hold one yet.
        """
        if step.framework in (FrameworkKind.MDEV, FrameworkKind.SRIOV_MDEV):
            path = f"{MDEVS}/{step.vgpu}"
        else:
            path = device_path(step.parent)
        holders = holders_of(vfio_nodes(self._kernel, path), self._handles.holders())
        _refuse_held(holders, f"vGPU {step.name} on {step.parent}")
        self._no_running_domain(step)

    def nobody_holds_a_vf(self, vfs: tuple[Vf, ...]) -> None:
        """Raise VgpuBusy when a process has one of these VFs, with a vGPU or plain, open."""
        if not vfs:
            return
        handles = self._handles.holders()
        for vf in vfs:
            nodes = vfio_nodes(self._kernel, device_path(vf.address))
            _refuse_held(holders_of(nodes, handles), f"VF {vf.address}")

    def holders_of_gpu(self, seen: Sighting) -> tuple[Holder, ...]:
        """Who has the GPU itself open, as far as that can be read: who makes sriov-manage fail."""
        return known(holders_of(seen.own_nodes, self._handles.holders())) or ()

    def _no_running_domain(self, step: RemoveVgpu) -> None:
        domains = self._domains()
        if isinstance(domains, Unknown):
            raise FactUnknown(
                f"whether a running domain has vGPU {step.name} is not known: {domains.reason}",
                hint="it is removed when libvirt answers again",
                vgpu=step.name,
            )
        for domain in domains:
            if not domain.state.is_active:
                continue
            if domain.live is None:
                raise FactUnknown(
                    f"which devices domain {domain.name} runs with is not known", domain=domain.name
                )
            if any(_names(hostdev, step) for hostdev in domain.live):
                raise VgpuBusy(
                    f"vGPU {step.name} is in the running domain {domain.name}",
                    hint=f"stop it or detach the vGPU: vgpuctl detach {domain.name} --vgpu {step.name}",
                    vgpu=step.name,
                    domain=domain.name,
                    holders=[],
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


def named(holders: tuple[Holder, ...]) -> str:
    """Processes, for people."""
    return ", ".join(f"{each.domain or each.command} (pid {each.pid})" for each in holders)


def facts_of(holders: tuple[Holder, ...]) -> list[dict[str, object]]:
    """Processes, for programs."""
    return [{"pid": each.pid, "command": each.command, "domain": each.domain} for each in holders]


def _names(hostdev: Hostdev, step: RemoveVgpu) -> bool:
    if vgpu_of_alias(hostdev.alias) == step.vgpu:
        return True
    match hostdev.source:
        case MdevSource(uuid):
            return uuid == step.vgpu
        case PciSource(address):
            return address == step.parent


def _changed(gpu: GpuIdentity, what: str) -> CardChanged:
    return CardChanged(
        f"another card stands at {gpu.address}: {what}",
        hint="nothing was done to it; delete the vGPU and create it anew, or put the card back",
        gpu=str(gpu.address),
    )

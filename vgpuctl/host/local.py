"""The host that this daemon runs on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from vgpuctl.errors import (
    Conflict,
    InvalidGpuState,
    LibvirtUnreachable,
    UnsupportedHere,
    VgpuBusy,
    VgpuctlError,
)
from vgpuctl.host.capture import capture
from vgpuctl.host.frameworks import TypeMemory, frameworks
from vgpuctl.host.frameworks.passthrough import VFIO_PCI
from vgpuctl.host.frameworks.writes import Writer, refused
from vgpuctl.host.guard import Guard, facts_of, named, refuse_standing
from vgpuctl.host.mdevctl import disable_autostart
from vgpuctl.host.mig import MigSwitch
from vgpuctl.host.nvml.adapter import NullNvml
from vgpuctl.host.nvml.gate import NvmlGate
from vgpuctl.host.observer import GPU_S, LIBVIRT_S, NVML_S, Observer
from vgpuctl.host.sighting import Sighting, look
from vgpuctl.host.vfs import FILLED_S, PARKING_DRIVER, VfSwitch
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.domain import Domain
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.mig.compute import may_stand_on
from vgpuctl.model.pci import GpuAddress, PciAddress
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import (
    AttachHostdev,
    CreateComputeInstance,
    CreateGpuInstance,
    CreateVgpu,
    DestroyComputeInstance,
    DestroyGpuInstance,
    DetachHostdev,
    DisableAutostart,
    Effect,
    RemoveVgpu,
    SetMigMode,
    SetParams,
    SetVfs,
    describe,
)
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.handles import VfioHandles
from vgpuctl.ports.hypervisor import HypervisorPort
from vgpuctl.ports.kernel import Kernel
from vgpuctl.ports.nvml import Nvml

GLIMPSE_S: Final = 3.0
"""How long a domain's start waits for a GPU, or for the open handles, that cannot be read."""


class LocalHost:
    """Observes through the low ports and carries out effects; the only code that changes a host.

    Which framework an effect belongs to stands in the effect; nothing here branches on it.
    """

    def __init__(
        self,
        *,
        kernel: Kernel,
        nvml: Nvml,
        handles: VfioHandles,
        hypervisor: HypervisorPort | None,
        catalog: Catalog,
        clock: Clock,
        simulated: bool = False,
        gpu_timeout_s: float = GPU_S,
        nvml_timeout_s: float = NVML_S,
        libvirt_timeout_s: float = LIBVIRT_S,
        vfs_timeout_s: float = FILLED_S,
    ) -> None:
        gate = NvmlGate(nvml)
        self._kernel = kernel
        self._nvml = gate
        self._hypervisor = hypervisor
        self._clock = clock
        self._nvml_timeout_s = nvml_timeout_s
        self._observer = Observer(
            kernel=kernel,
            nvml=gate,
            handles=handles,
            hypervisor=hypervisor,
            catalog=catalog,
            clock=clock,
            simulated=simulated,
            gpu_timeout_s=gpu_timeout_s,
            nvml_timeout_s=nvml_timeout_s,
            libvirt_timeout_s=libvirt_timeout_s,
        )
        # With watches and a lock of its own: the other observer waits for libvirt.
        self._glimpser = Observer(
            kernel=kernel,
            nvml=NullNvml(),
            handles=handles,
            hypervisor=None,
            catalog=catalog,
            clock=clock,
            simulated=simulated,
            gpu_timeout_s=min(gpu_timeout_s, GLIMPSE_S),
            nvml_timeout_s=GLIMPSE_S,
        )
        self._frameworks = frameworks(kernel, clock, TypeMemory())
        self._guard = Guard(kernel, gate, handles, hypervisor)
        self._vfs = VfSwitch(kernel, gate, clock, vfs_timeout_s)
        self._mig = MigSwitch(gate, clock)
        self._writer = Writer(kernel, clock)

    def observe(self) -> Snapshot:
        """Read everything; never raises."""
        return self._observer.observe()

    def glimpse(self, gpus: Collection[GpuAddress]) -> Snapshot:
        """Read those GPUs from the kernel alone; never raises."""
        return self._glimpser.glimpse(gpus)

    def run(self, effect: Effect) -> None:
        """Carry out one effect and read it back; one that is done already is left as it is."""
        try:
            self._run(effect)
        except OSError as error:
            # A card, or a VF, can be gone at any time, also while it is read back.
            raise refused(describe(effect), str(error.filename), error, None) from error

    def _run(self, effect: Effect) -> None:
        match effect:
            case CreateVgpu():
                self._guard.same_card(effect.gpu)
                self._guard.vf_of(effect.parent, effect.gpu)
                self._frameworks[effect.framework].create(effect)
                if effect.instance is not None:
                    self._move(effect, effect.instance)
            case RemoveVgpu():
                self._guard.same_card(effect.gpu)
                self._guard.vf_of(effect.parent, effect.gpu)
                self._guard.nobody_holds(effect)
                self._frameworks[effect.framework].remove(effect)
            case SetParams():
                self._guard.same_card(effect.gpu)
                self._guard.vf_of(effect.parent, effect.gpu)
                self._frameworks[effect.framework].set_params(effect)
            case SetVfs():
                self._guard.same_card(effect.gpu)
                self._set_vfs(effect)
            case DisableAutostart():
                disable_autostart(self._kernel, effect)
            case SetMigMode():
                self._guard.same_card(effect.gpu)
                self._set_mig_mode(effect)
            case CreateGpuInstance():
                self._guard.same_card(effect.gpu)
                self._mig.create(effect)
            case DestroyGpuInstance():
                self._guard.same_card(effect.gpu)
                self._refuse_occupied(effect)
                self._mig.destroy(effect)
            case CreateComputeInstance():
                self._guard.same_card(effect.gpu)
                self._refuse_guests(effect)
                self._mig.create_compute(effect)
            case DestroyComputeInstance():
                self._guard.same_card(effect.gpu)
                self._refuse_guests(effect)
                self._mig.destroy_compute(effect)
            case AttachHostdev():
                self._libvirt().attach(effect.domain, effect.hostdev, effect.affect)
            case DetachHostdev():
                self._libvirt().detach(effect.domain, effect.hostdev, effect.affect)

    def _move(self, effect: CreateVgpu, place: GiPlace) -> None:
        """Put a vGPU that was just made on its GPU instance, where the driver lets that be chosen.

        Nobody can have it open yet, and nothing is tried on a file that is not for writing.
        """
        path = self._frameworks[effect.framework].instance_file(effect)
        if not self._kernel.is_writable(path):
            return
        number = effect.instance_id
        if number is None:
            cut = self._mig.instances(effect.gpu.address)
            number = next((each.id for each in cut if each.place == place), None)
        if number is not None:
            self._writer.move(path, number, f"vGPU {effect.name}")

    def _set_vfs(self, effect: SetVfs) -> None:
        pf = effect.gpu.address
        if not isinstance(pf, PciAddress):
            raise UnsupportedHere(f"{pf} is no PCI device: it has no VFs", gpu=str(pf))
        seen = look(self._kernel, pf, self._frameworks, lambda _: True)
        if bool(seen.vfs) is not effect.enabled or seen.driver == PARKING_DRIVER:
            _refuse_in_use(seen)
            self._guard.nobody_holds_a_vf(seen.vfs)
            self._refuse_new_instances(effect)
        try:
            self._vfs.set(pf, seen.device.vendor, enabled=effect.enabled)
        except InvalidGpuState as error:
            holders = self._guard.holders_of_gpu(seen)
            if holders:
                error.message += f"; {named(holders)} has it open"
                error.facts["holders"] = facts_of(holders)
            raise

    def _refuse_new_instances(self, effect: SetVfs) -> None:
        """Raise Conflict where a GPU instance is there that the plan did not know."""
        if effect.destroys is None:
            return
        pf = effect.gpu.address
        new = [str(each.place) for each in self._mig.instances(pf) if each.place not in effect.destroys]
        if new:
            raise Conflict(
                f"somebody has just cut {', '.join(new)} on GPU {pf}, which sriov-manage would destroy",
                hint="apply again; the plan shows them then",
                gpu=str(pf),
            )

    def _set_mig_mode(self, effect: SetMigMode) -> None:
        pf = effect.gpu.address
        seen = look(self._kernel, pf, self._frameworks, lambda _: True)
        _refuse_in_use(seen)
        if seen.vfs:
            raise InvalidGpuState(f"the VFs of GPU {pf} are on", hint="turn its VFs off first", gpu=str(pf))
        # Our own NVML helper, asked for an observation, would be one who has it open.
        with self._nvml.closed():
            self._guard.nobody_holds_gpu(seen)
            if effect.nvswitch:
                self._guard.nobody_holds_any_gpu()
        self._mig.set_mode(effect)

    def _refuse_occupied(self, effect: DestroyGpuInstance) -> None:
        """Raise VgpuBusy where something stands on the instance, or may."""
        pf = effect.gpu.address
        here = [each for each in self._mig.instances(pf) if each.start == effect.start]
        vgpus = look(self._kernel, pf, self._frameworks, lambda _: True).view.vgpus
        refuse_standing(effect, here, vgpus, self._mig.profiles_of_types(pf))

    def _refuse_guests(self, effect: CreateComputeInstance | DestroyComputeInstance) -> None:
        """Raise VgpuBusy where a guest runs on the GPU instance, or may."""
        pf = effect.gpu.address
        here = [
            each
            for each in self._mig.instances(pf)
            if (each.profile_id, each.start) == (effect.profile_id, effect.start)
        ]
        profiles = self._mig.profiles_of_types(pf)
        vgpus = look(self._kernel, pf, self._frameworks, lambda _: True).view.vgpus
        standing = [vgpu for vgpu in vgpus if any(may_stand_on(vgpu, each, profiles) for each in here)]
        self._guard.nobody_runs_on(standing, f"on GPU instance {effect.profile}@{effect.start}")

    def domain_xml(self, domain: str, *, live: bool = False) -> str:
        """A domain's XML, from libvirt."""
        return self._libvirt().xml(domain, live=live)

    def capture(self) -> dict[str, Any]:
        """What sysfs, NVML and libvirt say, redacted."""
        domains: Fact[tuple[Domain, ...]] = Unknown("this daemon runs without libvirt")
        if self._hypervisor is not None:
            try:
                domains = self._hypervisor.domains()
            except VgpuctlError as error:
                domains = Unknown(error.message)
        nvml = self._nvml.host(self._nvml_timeout_s, in_full=True)
        return capture(self._kernel, nvml, domains, taken_at=self._clock.now())

    def _libvirt(self) -> HypervisorPort:
        if self._hypervisor is None:
            raise LibvirtUnreachable(
                "this daemon runs without libvirt", hint="start it with --libvirt URI, or start libvirtd"
            )
        return self._hypervisor


def _refuse_in_use(seen: Sighting) -> None:
    """Raise where turning VFs on or off would take something from somebody."""
    if seen.driver == VFIO_PCI:
        raise InvalidGpuState(
            f"GPU {seen.address} is on vfio-pci, given to a domain as a whole",
            hint="stop that domain first",
            gpu=str(seen.address),
        )
    if seen.view.vgpus:
        raise VgpuBusy(
            f"GPU {seen.address} carries {len(seen.view.vgpus)} vGPUs, which this would destroy",
            hint="remove them first",
            gpu=str(seen.address),
            holders=[],
        )

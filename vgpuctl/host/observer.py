"""Observing: one Snapshot of the host, from every source, each with a deadline.

GPUs are read one by one, past one that is slow or hangs; NVML, libvirt and the open handles beside
them.  What does not answer in time is UNREADABLE or Unknown and holds up nothing; it is not asked again
before its last answer has come.

Reads per observation (`Snapshot.reads`), each file at most once:

    host      9, and one per PCI function that is no VF (two for a display function of no interest)
    mdevctl   one per directory of its, and per definition
    GPU       16, and one per supported type where types are mdev types (availability, of one VF)
    VF        3: its address, its type or types, its driver or its mdevs
    vGPU      6: type, parameters, placement, GPU instance, IOMMU group, VFIO cdev

and once per GPU and driver load the name and description of each mdev type.  Nothing is read per VF
and type.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection
from functools import partial
from typing import Final, TypeVar

from vgpuctl.host.discovery import Discovery, Found
from vgpuctl.host.frameworks import TypeMemory, frameworks
from vgpuctl.host.frameworks.parents import device_path
from vgpuctl.host.glance import Glance
from vgpuctl.host.joining import Holders, Others, joined, unreadable
from vgpuctl.host.mdevctl import definitions
from vgpuctl.host.sighting import Sighting, look
from vgpuctl.host.watch import Call, Hanging, Watch, deadline_in
from vgpuctl.model.catalog import Catalog, GpuModel
from vgpuctl.model.domain import Domain, Hypervisor
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.gpu import DeviceId, Gpu
from vgpuctl.model.pci import GpuAddress, PciAddress
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.handles import VfioHandles
from vgpuctl.ports.hypervisor import HypervisorPort
from vgpuctl.ports.kernel import Kernel
from vgpuctl.ports.nvml import Nvml, NvmlHost

T = TypeVar("T")

GPU_S: Final = 5.0
NVML_S: Final = 5.0
LIBVIRT_S: Final = 10.0
_VERSION = re.compile(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b")
_NOT_ASKED = Unknown("libvirt waits for this answer and is not asked")
_NO_LIBVIRT = Unknown("this daemon runs without libvirt")


class Observer:
    """Reads a host.  Observations of several threads follow one another; none raises."""

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
    ) -> None:
        self._kernel = kernel
        self._nvml = nvml
        self._handles = handles
        self._hypervisor = hypervisor
        self._catalog = catalog
        self._clock = clock
        self._simulated = simulated
        self._gpu_timeout_s = gpu_timeout_s
        self._nvml_timeout_s = nvml_timeout_s
        self._libvirt_timeout_s = libvirt_timeout_s
        self._watch = Watch()
        self._discovery = Discovery(self._watch, gpu_timeout_s)
        self._memory = TypeMemory()
        self._last: dict[GpuAddress, Gpu] = {}
        self._lock = threading.Lock()

    def observe(self) -> Snapshot:
        """Read everything."""
        with self._lock:
            return self._observe()

    def glimpse(self, gpus: Collection[GpuAddress]) -> Snapshot:
        """Read those GPUs alone; whoever has no `hypervisor` waits for no libvirt."""
        with self._lock:
            return self._observe(gpus)

    def _observe(self, only: Collection[GpuAddress] | None = None) -> Snapshot:
        glance = Glance(self._kernel)
        taken_at = self._clock.now()
        # The handles first: NVML's helper holds the GPUs open while it asks, and is no holder.
        held = self._ask("open handles", self._handles.holders)
        if isinstance(held, Call):
            held.have_a_start()
        asked = self._ask("NVML", partial(self._nvml_after, held))
        hypervisor = self._hypervisor
        libvirt = self._ask("libvirt", lambda: _libvirt(hypervisor)) if hypervisor is not None else None
        sightings = self._sightings(glance, only)
        deadline_s = 2 * self._nvml_timeout_s
        handles: Fact[Holders] = self._answer(held, deadline_s, lambda why: Unknown(f"open handles: {why}"))
        nvml: Fact[NvmlHost] = self._answer(asked, deadline_s, lambda why: Unknown(f"NVML: {why}"))
        info: Fact[Hypervisor] = _NO_LIBVIRT
        # No libvirt is an answer, unlike one that does not answer: no domain of ours can be in the way.
        domains: Fact[tuple[Domain, ...]] = () if only is None else _NOT_ASKED
        if libvirt is not None:
            info, domains = self._answer(
                libvirt, self._libvirt_timeout_s, lambda why: (Unknown(f"libvirt: {why}"),) * 2
            )
        gpus = tuple(
            self._gpu(address, index, seen, nvml, handles)
            for index, (address, seen) in enumerate(sightings.items())
        )
        self._last = {each.address: each for each in gpus if each.is_readable} | {
            address: last
            for address, last in self._last.items()
            if any(each.address == address and not each.is_readable for each in gpus)
        }
        return Snapshot(
            taken_at=taken_at,
            hostname=_text(glance, "proc/sys/kernel/hostname"),
            kernel=_text(glance, "proc/sys/kernel/osrelease"),
            boot_id=_text(glance, "proc/sys/kernel/random/boot_id"),
            driver_version=_driver_version(glance, nvml),
            simulated=self._simulated,
            gpus=gpus,
            hypervisor=info,
            domains=domains,
            definitions=definitions(glance),
            reads=glance.reads + 2 + (2 if libvirt is not None else 0),
        )

    def _ask(self, key: str, ask: Callable[[], T]) -> Call[T] | Hanging:
        try:
            return self._watch.start(key, ask)
        except Hanging as error:
            return error

    def _answer(self, call: Call[T] | Hanging, timeout_s: float, otherwise: Callable[[str], T]) -> T:
        if isinstance(call, Hanging):
            return otherwise(str(call))
        try:
            return call.result(deadline_in(timeout_s))
        except Exception as error:  # noqa: BLE001 - observe() never raises; what broke is Unknown
            return otherwise(str(error) or type(error).__name__)

    def _nvml_after(self, held: Call[Fact[Holders]] | Hanging) -> Fact[NvmlHost]:
        if isinstance(held, Hanging):
            raise held
        held.result(deadline_in(self._nvml_timeout_s))
        return self._nvml.host(self._nvml_timeout_s)

    def _sightings(
        self, glance: Glance, only: Collection[GpuAddress] | None
    ) -> dict[GpuAddress, Sighting | str]:
        """Every GPU by address, sorted, with what was seen of it or why it could not be read."""
        seen: dict[GpuAddress, Sighting | str] = {}
        deadline = deadline_in(self._gpu_timeout_s)
        try:
            found = self._discovery.look(glance) if only is None else self._there(glance, only)
        except OSError as error:
            return dict.fromkeys(sorted(self._last, key=str), f"the PCI bus: {error.strerror}")
        every = frameworks(glance, self._clock, self._memory)
        if only is None:
            deadline = deadline_in(self._gpu_timeout_s)
        calls = self._watch.each(
            {
                f"GPU {address}": partial(look, glance, address, every, self._has_vfs)
                for address in found.gpus
            },
            deadline,
        )
        for address, call in zip(found.gpus, calls.values(), strict=True):
            try:
                seen[address] = str(call) if isinstance(call, Hanging) else call.result(deadline)
            except OSError as error:
                seen[address] = f"{error.filename or address}: {error.strerror}"
            except Exception as error:  # noqa: BLE001 - one odd GPU must not hide the others
                seen[address] = str(error) or type(error).__name__
        seen |= {address: f"{address} did not answer what it is" for address in found.silent}
        return dict(
            sorted(seen.items(), key=lambda item: (not isinstance(item[0], PciAddress), str(item[0])))
        )

    def _there(self, glance: Glance, only: Collection[GpuAddress]) -> Found:
        """Which of these GPUs are on the host; a start must not hang with one of them."""
        # Half the time: those that answer have to be read before the start's time is over.
        deadline_s = deadline_in(self._gpu_timeout_s / 2)
        names = {f"whether {each} is there": each for each in sorted(only, key=str)}
        calls = self._watch.each(
            {name: partial(glance.exists, device_path(each)) for name, each in names.items()}, deadline_s
        )
        there: list[GpuAddress] = []
        silent: list[GpuAddress] = []
        for name, call in calls.items():
            try:
                is_there = call.result(deadline_s) if isinstance(call, Call) else None
            except Hanging:
                is_there = None
            if is_there is None:
                silent.append(names[name])
            elif is_there:
                there.append(names[name])
        return Found(tuple(there), tuple(silent))

    def _gpu(
        self,
        address: GpuAddress,
        index: int,
        seen: Sighting | str,
        nvml: Fact[NvmlHost],
        handles: Fact[Holders],
    ) -> Gpu:
        if isinstance(seen, str):
            return unreadable(address, index, seen, self._last.get(address))
        return joined(seen, index, Others(nvml=nvml, model=self._model(seen.device), handles=handles))

    def _has_vfs(self, device: DeviceId) -> bool:
        model = self._model(device)
        return model is None or model.vfs > 0

    def _model(self, device: DeviceId) -> GpuModel | None:
        return self._catalog.find(device)


def _libvirt(hypervisor: HypervisorPort) -> tuple[Fact[Hypervisor], Fact[tuple[Domain, ...]]]:
    return hypervisor.info(), hypervisor.domains()


def _text(glance: Glance, path: str) -> str:
    try:
        return glance.read(path).strip()
    except OSError:
        return ""


def _driver_version(glance: Glance, nvml: Fact[NvmlHost]) -> Fact[str]:
    if not isinstance(nvml, Unknown) and not isinstance(nvml.driver_version, Unknown):
        return nvml.driver_version
    match = _VERSION.search(_text(glance, "proc/driver/nvidia/version"))
    if match:
        return match[1]
    return nvml if isinstance(nvml, Unknown) else nvml.driver_version

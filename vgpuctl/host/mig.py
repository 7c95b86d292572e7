"""MIG mode and GPU instances: changed through NVML, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Union

from vgpuctl.errors import (
    Conflict,
    DeadlineExceeded,
    FactUnknown,
    HostFailure,
    InvalidGpuState,
    NoCapacity,
    ReadBackMismatch,
    UnsupportedHere,
    VgpuctlError,
)
from vgpuctl.host.nvml.gate import NvmlGate
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.gpu import ComputeInstance, GpuInstance
from vgpuctl.model.pci import GpuAddress, PciAddress
from vgpuctl.model.step import (
    CreateComputeInstance,
    CreateGpuInstance,
    DestroyComputeInstance,
    DestroyGpuInstance,
    SetMigMode,
)
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.nvml import (
    CutCompute,
    CutInstance,
    DestroyCompute,
    DestroyInstance,
    NvmlDone,
    NvmlGpu,
    NvmlOrder,
    SetMode,
)

MODE_S: Final = 120.0
"""Before Hopper the driver resets the GPU in the call."""
INSTANCE_S: Final = 60.0
NVML_S: Final = 30.0
"""Long enough for a helper that has to start first."""
_PATIENCE_S: Final = 5.0
_PAUSE_S: Final = 0.1

_NOT_SUPPORTED, _NO_PERMISSION, _INSUFFICIENT_RESOURCES, _IN_USE = 3, 4, 23, 19


OfInstance = Union[CreateGpuInstance, DestroyGpuInstance, CreateComputeInstance, DestroyComputeInstance]
"""Effects on one GPU instance, which is known by its profile and its place."""


class MigSwitch:
    """Carries out the effects on MIG; each is idempotent.  Who may be hit, the guard has asked before."""

    def __init__(self, nvml: NvmlGate, clock: Clock) -> None:
        self._nvml = nvml
        self._clock = clock

    def set_mode(self, effect: SetMigMode) -> None:
        """Turn MIG mode on or off; InvalidGpuState where it stays pending until a reset."""
        pf = _pci(effect.gpu.address)
        word = "on" if effect.enabled else "off"
        what = f"turn {word} MIG mode of GPU {pf}"
        if self._seen(pf).mig_current == effect.enabled:
            return
        done = self._ordered(SetMode(gpu=pf, enabled=effect.enabled), MODE_S, what)
        deadline = self._clock.monotonic_s() + _PATIENCE_S
        while True:
            seen = self._seen(pf)
            if seen.mig_current == effect.enabled:
                return
            if self._clock.monotonic_s() >= deadline:
                break
            self._clock.sleep(_PAUSE_S)
        if seen.mig_pending == effect.enabled:
            raise InvalidGpuState(
                f"MIG mode of GPU {pf} is pending: it is {word} after the next reset of the GPU"
                + (f" ({done.text})" if done.activation else ""),
                hint=f"nvidia-smi --gpu-reset -i {pf} while nothing uses it, or reboot; then try again",
                gpu=str(pf),
            )
        raise ReadBackMismatch(f"MIG mode of GPU {pf} was to be {word} and is not", gpu=str(pf))

    def create(self, effect: CreateGpuInstance) -> None:
        """Cut an instance; one of that profile at that place is left as it is."""
        pf = _pci(effect.gpu.address)
        if self._at(pf, effect) is not None:
            return
        self._ordered(
            CutInstance(gpu=pf, profile_id=effect.profile_id, start=effect.start, size=effect.size),
            INSTANCE_S,
            f"create GPU instance {effect.profile}@{effect.start} on GPU {pf}",
        )
        if self._at(pf, effect) is None:
            raise ReadBackMismatch(
                f"GPU instance {effect.profile}@{effect.start} was created on GPU {pf} and is not there",
                gpu=str(pf),
            )

    def destroy(self, effect: DestroyGpuInstance) -> None:
        """Destroy an instance; one that is not there is done."""
        pf = _pci(effect.gpu.address)
        if self._at(pf, effect) is None:
            return
        self._ordered(
            DestroyInstance(
                gpu=pf, instance=effect.instance, profile_id=effect.profile_id, start=effect.start
            ),
            INSTANCE_S,
            f"destroy GPU instance {effect.instance} of GPU {pf}",
        )
        if self._at(pf, effect) is not None:
            raise ReadBackMismatch(
                f"GPU instance {effect.instance} of GPU {pf} was destroyed and is still there", gpu=str(pf)
            )

    def create_compute(self, effect: CreateComputeInstance) -> None:
        """Make a compute instance; where there are as many of that profile, none is made."""
        pf = _pci(effect.gpu.address)
        found = self._required(pf, effect)
        if self._shares(found, effect.compute) >= effect.number:
            return
        what = f"create compute instance {effect.compute} in {effect.profile}@{effect.start} on GPU {pf}"
        order = CutCompute(
            gpu=pf,
            instance=found.id or 0,
            profile_id=effect.profile_id,
            start=effect.start,
            compute=effect.compute,
        )
        self._ordered(order, INSTANCE_S, what)
        if self._shares(self._required(pf, effect), effect.compute) < effect.number:
            raise ReadBackMismatch(
                f"compute instance {effect.compute} was created in {effect.profile}@{effect.start} on "
                f"GPU {pf} and is not there",
                gpu=str(pf),
            )

    def destroy_compute(self, effect: DestroyComputeInstance) -> None:
        """Destroy a compute instance; one that is not there is done."""
        pf = _pci(effect.gpu.address)
        if not self._has_compute(pf, effect):
            return
        order = DestroyCompute(
            gpu=pf,
            instance=effect.instance,
            profile_id=effect.profile_id,
            start=effect.start,
            compute=effect.compute,
            compute_id=effect.compute_id,
        )
        what = f"destroy compute instance {effect.compute_id} in {effect.profile}@{effect.start} of GPU {pf}"
        self._ordered(order, INSTANCE_S, what)
        if self._has_compute(pf, effect):
            raise ReadBackMismatch(
                f"compute instance {effect.compute_id} in {effect.profile}@{effect.start} of GPU {pf} was "
                "destroyed and is still there",
                gpu=str(pf),
            )

    def _required(self, pf: PciAddress, effect: CreateComputeInstance) -> GpuInstance:
        found = self._at(pf, effect)
        if found is None:
            raise Conflict(f"GPU {pf} has no GPU instance {effect.profile}@{effect.start}", gpu=str(pf))
        return found

    def _shares(self, instance: GpuInstance, profile: str) -> int:
        there = instance.compute_instances
        if isinstance(there, Unknown):
            raise FactUnknown(f"which compute instances {instance.place} has: {there.reason}")
        return sum(each.profile == profile for each in there)

    def _has_compute(self, pf: PciAddress, effect: DestroyComputeInstance) -> bool:
        found = self._at(pf, effect)
        if found is None:
            return False
        there = found.compute_instances
        if isinstance(there, Unknown):
            raise FactUnknown(f"which compute instances {found.place} of GPU {pf} has: {there.reason}")
        return ComputeInstance(effect.compute_id, effect.compute) in there

    def instances(self, address: GpuAddress) -> tuple[GpuInstance, ...]:
        """What is cut now; FactUnknown where NVML does not say."""
        pf = _pci(address)
        found = self._seen(pf).gpu_instances
        if isinstance(found, Unknown):
            raise FactUnknown(f"which GPU instances GPU {pf} has could not be read: {found.reason}")
        return found

    def profiles_of_types(self, address: GpuAddress) -> Mapping[int, str | None]:
        """Which GPU-instance profile each vGPU type takes, as far as NVML says."""
        types = known(self._seen(_pci(address)).types) or ()
        return {
            each.type_id: each.gi_profile
            for each in types
            if each.type_id is not None and each.gi_profile is not None
        }

    def _at(self, pf: PciAddress, effect: OfInstance) -> GpuInstance | None:
        for each in self.instances(pf):
            if (each.profile_id, each.start) == (effect.profile_id, effect.start):
                return each
        return None

    def _seen(self, pf: PciAddress) -> NvmlGpu:
        host = self._nvml.host_once_open(NVML_S)
        if isinstance(host, Unknown):
            raise FactUnknown(f"MIG of GPU {pf} could not be read: {host.reason}", gpu=str(pf))
        found = next((each for each in host.gpus if each.address == pf), None)
        if found is None:
            raise FactUnknown(f"MIG of GPU {pf} could not be read: NVML does not list it", gpu=str(pf))
        return found

    def _ordered(self, order: NvmlOrder, timeout_s: float, what: str) -> NvmlDone:
        done = self._nvml.order(order, timeout_s)
        if isinstance(done, Unknown):
            raise DeadlineExceeded(f"could not {what}: {done.reason}", gpu=str(order.gpu))
        if done.code:
            raise _refusal(done, what, order)
        return done


def _refusal(done: NvmlDone, what: str, order: NvmlOrder) -> VgpuctlError:
    facts: dict[str, Any] = {"gpu": str(order.gpu), "nvml": done.code}
    text = f"could not {what}: NVML answers {done.text}"
    if done.code == _IN_USE:
        return InvalidGpuState(
            text, hint="stop what uses the driver on this GPU, and turn its VFs off", **facts
        )
    if done.code == _INSUFFICIENT_RESOURCES:
        return NoCapacity(text, hint=f"vgpuctl mig show {order.gpu} shows what is cut", **facts)
    if done.code == _NOT_SUPPORTED:
        return UnsupportedHere(text, **facts)
    hint = "the daemon has to run as root" if done.code == _NO_PERMISSION else None
    return HostFailure(text, hint=hint, **facts)


def _pci(address: GpuAddress) -> PciAddress:
    if not isinstance(address, PciAddress):
        raise UnsupportedHere(f"{address} is no PCI device: it has no MIG", gpu=str(address))
    return address

"""Virtual functions: which a GPU has, whether the driver has filled them, and turning them on and off."""

from __future__ import annotations

from typing import Final

from vgpuctl.errors import (
    DeadlineExceeded,
    InvalidGpuState,
    ReadBackMismatch,
    UnsupportedHere,
)
from vgpuctl.host.frameworks.parents import NVIDIA, device_path, is_settled
from vgpuctl.host.frameworks.writes import refused
from vgpuctl.host.nvml.gate import NvmlGate
from vgpuctl.model.gpu import Vf
from vgpuctl.model.pci import PciAddress
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.kernel import Kernel

PARKING_DRIVER: Final = "pci-pf-stub"
SRIOV_MANAGE_S: Final = 120.0
FILLED_S: Final = 30.0
"""After sriov-manage the VFs are there; an older vgpu-device-manager waited 10 s for their types."""
_PAUSE_S: Final = 0.1


def driver_of(kernel: Kernel, address: PciAddress) -> str | None:
    """The driver that is bound to a function, or None."""
    try:
        return kernel.link(f"{device_path(address)}/driver")
    except FileNotFoundError:
        return None


def read_vfs(kernel: Kernel, pf: PciAddress, vendor: int) -> tuple[Vf, ...]:
    """The VFs of a PF in the order of their indices; three reads each."""
    path = device_path(pf)
    names = (name.removeprefix("virtfn") for name in kernel.list(path) if name.startswith("virtfn"))
    numbers = sorted(int(name) for name in names if name.isdecimal())
    prober = _Prober(kernel, vendor)
    found = []
    for number in numbers:
        try:
            address = PciAddress.parse(kernel.link(f"{path}/virtfn{number}"))
        except FileNotFoundError:
            continue  # it went away between the listing and the look
        found.append(prober.probe(address, number))
    return tuple(found)


class _Prober:
    """Looks first for what the VF before had, so that a VF costs one look and not two."""

    def __init__(self, kernel: Kernel, vendor: int) -> None:
        self._kernel = kernel
        self._vendor = vendor
        self._looks = [self._vendor_vfio, self._mdev] if vendor == NVIDIA else [self._mdev]

    def probe(self, address: PciAddress, index: int) -> Vf:
        for look in self._looks:
            found = look(address, index)
            if found is not None:
                if look is not self._looks[0]:
                    self._looks.reverse()
                return found
        # Nothing has to fill another vendor's VF.
        return Vf(address, index, driver_of(self._kernel, address), self._vendor != NVIDIA)

    def _vendor_vfio(self, address: PciAddress, index: int) -> Vf | None:
        try:
            self._kernel.read(f"{device_path(address)}/nvidia/current_vgpu_type")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return Vf(address, index, driver_of(self._kernel, address), ready=False)
        return Vf(address, index, driver_of(self._kernel, address), ready=True)

    def _mdev(self, address: PciAddress, index: int) -> Vf | None:
        try:
            directories = self._kernel.list(f"{device_path(address)}/mdev_supported_types")
        except (FileNotFoundError, NotADirectoryError):
            return None
        if is_settled(directories):
            # The directories are named after the driver, which need not be asked for then.
            return Vf(address, index, directories[0].rsplit("-", 1)[0], ready=True)
        return Vf(address, index, driver_of(self._kernel, address), ready=False)


class VfSwitch:
    """Turns the VFs of a GPU on and off, by sriov-manage where it is installed.

    An NVIDIA driver rejects a plain write to `sriov_numvfs` [vGPU user guide; cubecos].  sriov-manage
    unbinds the PF: it destroys GPU instances and mixed-size mode, and fails while anything holds the
    GPU open, an NVML client of our own too.
    """

    def __init__(
        self, kernel: Kernel, nvml: NvmlGate, clock: Clock, filled_timeout_s: float = FILLED_S
    ) -> None:
        self._kernel = kernel
        self._nvml = nvml
        self._clock = clock
        self._filled_timeout_s = filled_timeout_s

    def set(self, pf: PciAddress, vendor: int, *, enabled: bool) -> None:
        """Turn the VFs on or off, and wait until they are filled, or gone; done already is done."""
        count = self._number(pf, "sriov_numvfs")
        parked = driver_of(self._kernel, pf) == PARKING_DRIVER
        if parked or (count > 0) is not enabled:
            with self._nvml.closed():
                self._switch(pf, vendor, enabled=enabled, parked=parked)
        self._wait(pf, vendor, enabled=enabled)

    def _switch(self, pf: PciAddress, vendor: int, *, enabled: bool, parked: bool) -> None:
        if vendor == NVIDIA and self._by_sriov_manage(pf, enabled=enabled):
            return
        if vendor == NVIDIA and parked:
            # pci-pf-stub would take the write, and leave VFs that the NVIDIA driver knows nothing of.
            raise InvalidGpuState(
                f"GPU {pf} is on {PARKING_DRIVER}, and sriov-manage is not installed to bring it back",
                hint="install the vGPU host driver of this host's release",
                gpu=str(pf),
            )
        self._by_write(pf, vendor, enabled=enabled)

    def _by_sriov_manage(self, pf: PciAddress, *, enabled: bool) -> bool:
        try:
            result = self._kernel.sriov_manage(str(pf), enable=enabled, timeout_s=SRIOV_MANAGE_S)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"sriov-manage has not ended within {SRIOV_MANAGE_S:.0f} s for GPU {pf}",
                hint="it goes on by itself; look at the GPU again in a minute, before anything else is tried",
                gpu=str(pf),
            ) from error
        except OSError as error:
            raise refused(f"run sriov-manage for GPU {pf}", str(pf), error, None) from error
        if result is None:
            return False
        held = "unbindLock" in result.output
        if held or result.exit_status != 0:
            self._raise_if_parked(pf)
            raise InvalidGpuState(
                f"sriov-manage failed for GPU {pf} ({result.exit_status}): {result.output.strip()}",
                hint="something holds the GPU open: stop nvidia-smi loops, nvidia-persistenced, DCGM and its "
                "exporter"
                if held
                else "its output says why",
                gpu=str(pf),
                exit_status=result.exit_status,
                output=result.output,
            )
        return True

    def _by_write(self, pf: PciAddress, vendor: int, *, enabled: bool) -> None:
        path = f"{device_path(pf)}/sriov_numvfs"
        wanted = self._number(pf, "sriov_totalvfs") if enabled else 0
        try:
            # The kernel takes a number other than 0 only while it is 0 (EBUSY otherwise).
            if self._number(pf, "sriov_numvfs"):
                self._kernel.write_abandonable(path, "0", SRIOV_MANAGE_S)
            if wanted:
                self._kernel.write_abandonable(path, str(wanted), SRIOV_MANAGE_S)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the driver has not set the number of VFs of GPU {pf} within {SRIOV_MANAGE_S:.0f} s",
                hint="it goes on by itself; look at the GPU again before anything else is tried",
                gpu=str(pf),
            ) from error
        except OSError as error:
            refusal = refused(f"set the number of VFs of GPU {pf} to {wanted}", path, error, None)
            if vendor == NVIDIA:
                refusal.hint = "an NVIDIA GPU needs sriov-manage, which comes with the vGPU host driver"
            raise refusal from error

    def _wait(self, pf: PciAddress, vendor: int, *, enabled: bool) -> None:
        deadline = self._clock.monotonic_s() + self._filled_timeout_s
        while not self._is_settled(pf, vendor, enabled=enabled):
            self._raise_if_parked(pf)
            if self._clock.monotonic_s() >= deadline:
                vfs = read_vfs(self._kernel, pf, vendor)
                ready = sum(vf.ready for vf in vfs)
                raise ReadBackMismatch(
                    f"the VFs of GPU {pf} were turned {'on' if enabled else 'off'}: "
                    f"{len(vfs)} are there, {ready} of them filled by the driver",
                    hint="see whether nvidia-vgpud and nvidia-vgpu-mgr run",
                    gpu=str(pf),
                )
            self._clock.sleep(_PAUSE_S)

    def _is_settled(self, pf: PciAddress, vendor: int, *, enabled: bool) -> bool:
        try:
            vfs = read_vfs(self._kernel, pf, vendor)
            count = self._number(pf, "sriov_numvfs")
        except OSError:
            return False  # the PF is bound again just now
        if not enabled:
            return count == 0 and not vfs
        return count > 0 and len(vfs) == count and all(vf.ready for vf in vfs)

    def _raise_if_parked(self, pf: PciAddress) -> None:
        if driver_of(self._kernel, pf) == PARKING_DRIVER and not self._number(pf, "sriov_numvfs"):
            raise InvalidGpuState(
                f"sriov-manage left GPU {pf} on {PARKING_DRIVER}, without VFs",
                hint=f"run it again when nothing uses the GPU: sriov-manage -e {pf}; "
                "nvidia-smi does not list the GPU until then",
                gpu=str(pf),
            )

    def _number(self, pf: PciAddress, name: str) -> int:
        path = f"{device_path(pf)}/{name}"
        try:
            return int(self._kernel.read(path))
        except FileNotFoundError as error:
            raise UnsupportedHere(
                f"GPU {pf} has no VFs: there is no {path}",
                hint="SR-IOV may be off in the firmware settings of this host",
                gpu=str(pf),
            ) from error
        except OSError as error:
            raise refused(f"show the VFs of GPU {pf}", path, error, None) from error

"""Vendor-specific VFIO: a VF becomes a vGPU when a type id is written to it (kernel 6.8 and later)."""

from __future__ import annotations

import errno
import re
from typing import Final

from vgpuctl.errors import (
    Conflict,
    InvalidGpuState,
    KernelRefused,
    ReadBackMismatch,
    RemovalBlocked,
    VgpuBusy,
)
from vgpuctl.host.frameworks.mdev_types import TypeMemory
from vgpuctl.host.frameworks.parents import device_path, number_in, text_in
from vgpuctl.host.frameworks.typefacts import named_type
from vgpuctl.host.frameworks.writes import Writer, refused
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.gpu import FrameworkKind, ObservedVgpu, Vf
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.step import CreateVgpu, RemoveVgpu, SetParams
from vgpuctl.model.types import VgpuType
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.framework import FrameworkView
from vgpuctl.ports.kernel import Kernel

REMOVAL_S: Final = 10.0

_LISTED = re.compile(r"^\s*(\d+)\s*:\s*(.+?)\s*$", re.MULTILINE)


def parse_creatable(text: str, source: str) -> tuple[VgpuType, ...]:
    """The types in `creatable_vgpu_types`: lines `1147  : NVIDIA L40S-1Q`, with or without a header."""
    return tuple(
        named_type(raw_name=name, type_id=int(number), source=source)
        for number, name in _LISTED.findall(text)
    )


def current_type(kernel: Kernel, vf: GpuAddress) -> int:
    """The type id that a VF has, 0 for none.

    Raises OSError, also for a text that is no number: then it is not known what the VF has.
    """
    path = f"{device_path(vf)}/nvidia/current_vgpu_type"
    text = kernel.read(path).strip()
    try:
        return int(text)
    except ValueError:
        raise OSError(errno.EIO, f"holds {text!r}, which is no type id", path) from None


class VendorVfioFramework:
    """vGPUs without a name of their own: a VF with a type."""

    kind = FrameworkKind.VENDOR_VFIO

    def __init__(
        self, kernel: Kernel, clock: Clock, memory: TypeMemory, removal_timeout_s: float = REMOVAL_S
    ) -> None:
        self._kernel = kernel
        self._memory = memory
        self._writer = Writer(kernel, clock)
        self._removal_timeout_s = removal_timeout_s

    def serves(self, gpu: GpuAddress, vfs: tuple[Vf, ...]) -> bool:
        """Whether its first ready VF has `nvidia/current_vgpu_type`; the PF has no such file.

        Where none is ready the first one is asked: VFs whose type cannot be read may carry vGPUs.
        """
        del gpu
        first = next((vf for vf in vfs if vf.ready), vfs[0] if vfs else None)
        if first is None:
            return False
        try:
            current_type(self._kernel, first.address)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True
        return True

    def view(self, gpu: GpuAddress, vfs: tuple[Vf, ...]) -> FrameworkView:
        """The types listed so far, the VFs that have one, and what a free VF takes.

        `creatable_vgpu_types` shrinks with every vGPU and names no type that is used up, so `types`
        is only what this file has shown since the driver was loaded: NVML and the catalogue know more.
        """
        vgpus: list[tuple[Vf, Fact[int]]] = []
        free: list[Vf] = []
        for vf in vfs:
            try:
                number = current_type(self._kernel, vf.address)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                vgpus.append((vf, Unknown(f"{error.filename}: {error.strerror}")))
            else:
                if number:
                    vgpus.append((vf, number))
                elif vf.ready:
                    free.append(vf)
        listed: tuple[VgpuType, ...] = ()
        creatable: Fact[frozenset[int]] = Unknown("no VF is free that could be asked")
        if free:
            path = f"{device_path(free[0].address)}/nvidia/creatable_vgpu_types"
            try:
                listed = parse_creatable(self._kernel.read(path), path)
            except OSError as error:
                creatable = Unknown(f"{path}: {error.strerror}")
            else:
                creatable = frozenset(each.type_id for each in listed if each.type_id is not None)
        types = self._memory.listed(self._kernel, gpu, listed)
        return FrameworkView(
            types=types,
            creatable=creatable,
            vgpus=tuple(self._vgpu(gpu, vf, number, types) for vf, number in vgpus),
        )

    def _vgpu(self, gpu: GpuAddress, vf: Vf, number: Fact[int], types: tuple[VgpuType, ...]) -> ObservedVgpu:
        name: Fact[str]
        if isinstance(number, Unknown):
            name = number
        else:
            found = next((each.name for each in types if each.type_id == number), None)
            name = found if found is not None else Unknown(f"nothing names type {number}")
        base = f"{device_path(vf.address)}/nvidia"
        return ObservedVgpu(
            gpu=gpu,
            parent=vf.address,
            framework=self.kind,
            type_id=number,
            type_name=name,
            mdev_uuid=None,
            params=text_in(self._kernel, f"{base}/vgpu_params"),
            gpu_instance_id=number_in(self._kernel, f"{base}/gpu_instance_id"),
            placement_id=number_in(self._kernel, f"{base}/placement_id"),
        )

    def create(self, step: CreateVgpu) -> None:
        """Write the type id to the VF, read it back, then set the parameters.

        A VF that has any type is a Conflict, the same one too: it may be somebody else's.
        """
        present = self._current(step.parent, step.name)
        if present:
            raise Conflict(
                f"VF {step.parent} already has vGPU type {present}",
                hint="somebody else made a vGPU there; `vgpuctl vgpu list` shows it",
                parent=str(step.parent),
                type_id=present,
            )
        path = f"{device_path(step.parent)}/nvidia/current_vgpu_type"
        try:
            self._writer.write(
                path,
                str(step.type_id),
                f"create vGPU {step.name} ({step.type_name}, type {step.type_id}) on VF {step.parent}",
            )
        except KernelRefused as error:
            # Somebody was faster: the VF has a type, and it was not our write that gave it one.
            is_taken = error.facts.get("errno") in ("EPERM", "EBUSY") or error.facts.get("nvrm") == "0x38"
            if is_taken and self._current(step.parent, step.name):
                raise Conflict(
                    f"VF {step.parent} was given a vGPU type by somebody else just now",
                    hint="`vgpuctl vgpu list` shows it",
                    parent=str(step.parent),
                ) from error
            raise
        if not self._writer.until(lambda: current_type(self._kernel, step.parent) == step.type_id):
            raise ReadBackMismatch(
                f"type {step.type_id} was written to VF {step.parent}, which does not show it",
                path=path,
                wanted=step.type_id,
            )
        if step.params is not None:
            self._params(step.parent, step.params, step.name)

    def instance_file(self, step: CreateVgpu) -> str:
        """Below the VF [hardware.md 1.4.7]."""
        return f"{device_path(step.parent)}/nvidia/gpu_instance_id"

    def _current(self, vf: GpuAddress, name: str) -> int:
        try:
            return current_type(self._kernel, vf)
        except FileNotFoundError as error:
            raise InvalidGpuState(
                f"{vf} is no VF that takes vGPU types now",
                hint="its GPU's VFs were turned off, or it is bound to another driver than nvidia",
                parent=str(vf),
            ) from error
        except OSError as error:
            path = f"{device_path(vf)}/nvidia/current_vgpu_type"
            raise refused(f"show the type of vGPU {name}", path, error, None) from error

    def remove(self, step: RemoveVgpu) -> None:
        """Write 0 to the VF, only while it shows our type: a VF is reused, the next owner's stays.

        EPERM or EBUSY while the VM goes down is no failure when the VF shows 0 soon after; else the
        VF is in use.
        """
        path = f"{device_path(step.parent)}/nvidia/current_vgpu_type"
        try:
            if current_type(self._kernel, step.parent) != step.type_id:
                return
            self._kernel.write_abandonable(path, "0", self._removal_timeout_s)
        except TimeoutError as error:
            raise RemovalBlocked(
                f"vGPU {step.name}: the driver has not taken the type from VF {step.parent}",
                hint="a process still holds the VF open: stop the domain that has it",
                parent=str(step.parent),
            ) from error
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EBUSY):
                raise refused(f"remove vGPU {step.name} from VF {step.parent}", path, error, None) from error
            if not self._is_gone(step):
                raise VgpuBusy(
                    f"vGPU {step.name} on VF {step.parent} is in use: "
                    f"the driver answers {errno.errorcode[error.errno]}",
                    hint="a stopped domain's teardown can take minutes; try again later",
                    parent=str(step.parent),
                ) from error
            return
        if not self._is_gone(step):
            raise ReadBackMismatch(
                f"0 was written to VF {step.parent}, which still shows a type", path=path, wanted=0
            )

    def _is_gone(self, step: RemoveVgpu) -> bool:
        return self._writer.until(lambda: current_type(self._kernel, step.parent) != step.type_id)

    def set_params(self, step: SetParams) -> None:
        """Write `vgpu_params` as a whole, only while the VF shows our type; the next start takes them."""
        present = self._current(step.parent, step.name)
        if not present or present != step.type_id:
            shown = f"vGPU type {present}, not {step.type_id}" if present else "no vGPU"
            raise Conflict(
                f"vGPU {step.name}: VF {step.parent} has {shown}",
                hint="somebody else removed it; `vgpuctl vgpu list` shows what stands where",
                parent=str(step.parent),
                type_id=present,
            )
        self._params(step.parent, step.params, step.name)

    def _params(self, vf: GpuAddress, params: str, name: str) -> None:
        self._writer.set_params(f"{device_path(vf)}/nvidia/vgpu_params", params, f"vGPU {name}")

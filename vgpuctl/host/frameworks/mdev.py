"""mdev on the PF: one parent, which carries several vGPUs (T4, V100 ...; i915; the kernel's samples)."""

from __future__ import annotations

import errno
from typing import Final
from uuid import UUID

from vgpuctl.errors import (
    Conflict,
    InvalidGpuState,
    ReadBackMismatch,
    RemovalBlocked,
    UnsupportedHere,
    VgpuBusy,
)
from vgpuctl.host.frameworks.mdev_types import TypeMemory, available
from vgpuctl.host.frameworks.parents import (
    MDEVS,
    device_path,
    is_leaving,
    is_settled,
    mdevs_under,
    number_in,
    text_in,
    type_directories,
    type_number,
)
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
"""The kernel waits for the users of an mdev in rounds of 10 s, without limit [vfio_main.c]."""


class MdevFramework:
    """vGPUs as mediated devices of the PF, known by their UUID."""

    kind = FrameworkKind.MDEV

    def __init__(
        self, kernel: Kernel, clock: Clock, memory: TypeMemory, removal_timeout_s: float = REMOVAL_S
    ) -> None:
        self._kernel = kernel
        self._memory = memory
        self._writer = Writer(kernel, clock)
        self._removal_timeout_s = removal_timeout_s

    def serves(self, gpu: GpuAddress, vfs: tuple[Vf, ...]) -> bool:
        """Whether the PF itself offers types; once VFs are on it lists none [hardware.md 0.3]."""
        del vfs
        return is_settled(type_directories(self._kernel, gpu))

    def view(self, gpu: GpuAddress, vfs: tuple[Vf, ...]) -> FrameworkView:
        """The PF's types, its mdevs, and the types of which it takes one more."""
        del vfs
        types = self._memory.of_parent(self._kernel, gpu, gpu)
        return FrameworkView(
            types=types,
            creatable=available(self._kernel, gpu),
            vgpus=self.observed(gpu, gpu, types),
        )

    def observed(
        self, gpu: GpuAddress, parent: GpuAddress, types: tuple[VgpuType, ...]
    ) -> tuple[ObservedVgpu, ...]:
        """The mdevs of one parent, those that are being removed too."""
        return tuple(self._mdev(gpu, parent, uuid, types) for uuid in mdevs_under(self._kernel, parent))

    def _mdev(
        self, gpu: GpuAddress, parent: GpuAddress, uuid: UUID, types: tuple[VgpuType, ...]
    ) -> ObservedVgpu:
        if is_leaving(self._kernel, uuid):
            gone: Fact[int | None] = Unknown("it is being removed")
            return ObservedVgpu(
                gpu=gpu,
                parent=parent,
                framework=self.kind,
                type_id=gone,
                type_name=Unknown("it is being removed"),
                mdev_uuid=uuid,
            )
        path = f"{MDEVS}/{uuid}"
        type_id, type_name = self._type_of(path, types)
        return ObservedVgpu(
            gpu=gpu,
            parent=parent,
            framework=self.kind,
            type_id=type_id,
            type_name=type_name,
            mdev_uuid=uuid,
            params=text_in(self._kernel, f"{path}/nvidia/vgpu_params"),
            gpu_instance_id=number_in(self._kernel, f"{path}/nvidia/gpu_instance_id"),
            placement_id=number_in(self._kernel, f"{path}/nvidia/placement_id"),
        )

    def _type_of(self, path: str, types: tuple[VgpuType, ...]) -> tuple[Fact[int | None], Fact[str]]:
        try:
            directory = self._kernel.link(f"{path}/mdev_type")
        except OSError as error:
            unread = Unknown(f"{path}/mdev_type: {error.strerror}")
            return unread, unread
        number = type_number(directory)
        name = next((each.name for each in types if each.type_id == number), directory)
        return number, name

    def create(self, step: CreateVgpu) -> None:
        """Write the UUID to `create`, read back the mdev's type, then set the parameters.

        An mdev of that UUID, parent and type is done already; the kernel would answer EEXIST.
        """
        directory = self._directory(step)
        path = f"{MDEVS}/{step.vgpu}"
        if not self._is_there(step.vgpu):
            self.refuse_taken(step)
            self._writer.write(
                f"{device_path(step.parent)}/mdev_supported_types/{directory}/create",
                str(step.vgpu),
                f"create vGPU {step.name} ({step.type_name}, {directory}) on {step.parent}",
            )
            if not self._writer.until(lambda: self._kernel.link(f"{path}/mdev_type") == directory):
                raise ReadBackMismatch(
                    f"{step.type_name} was created on {step.parent}, and there is no {path} of that type",
                    path=path,
                    wanted=directory,
                )
        else:
            self._expect_same(step.vgpu, step.parent, step.type_id, step.name)
        if step.params is not None:
            self._writer.set_params(f"{path}/nvidia/vgpu_params", step.params, f"vGPU {step.name}")

    def instance_file(self, step: CreateVgpu) -> str:
        """Below the mdev, where the driver shows it [hardware.md 1.2.4]."""
        return f"{MDEVS}/{step.vgpu}/nvidia/gpu_instance_id"

    def refuse_taken(self, step: CreateVgpu) -> None:
        """Raise Conflict where the parent takes no more for a reason that can be seen beforehand."""
        if step.vgpu in mdevs_under(self._kernel, step.parent):
            raise RemovalBlocked(
                f"vGPU {step.name}: an mdev {step.vgpu} is still being removed from {step.parent}",
                hint="its user has to let go first: stop the domain that has it",
                parent=str(step.parent),
            )

    def _directory(self, step: CreateVgpu) -> str:
        directories = type_directories(self._kernel, step.parent)
        for directory in directories:
            if type_number(directory) == step.type_id and not directory.startswith("pci-"):
                return directory
        if not is_settled(directories):
            raise InvalidGpuState(
                f"{step.parent} offers no vGPU types {'yet' if directories else ''}".rstrip(),
                hint="the driver is still starting, or was unloaded: see `vgpuctl gpu show`",
                parent=str(step.parent),
            )
        raise UnsupportedHere(
            f"{step.parent} does not offer {step.type_name} (type {step.type_id})",
            hint=f"it offers {', '.join(directories[:8])}",
            parent=str(step.parent),
        )

    def _is_there(self, uuid: UUID) -> bool:
        return self._kernel.exists(f"{MDEVS}/{uuid}")

    def _expect_same(self, uuid: UUID, parent: GpuAddress, type_id: int, name: str) -> None:
        path = f"{MDEVS}/{uuid}"
        try:
            below = self._kernel.resolve(path).split("/")[-2]
            shown = self._kernel.link(f"{path}/mdev_type")
        except OSError as error:
            raise refused(f"show the mdev of vGPU {name}", path, error, None) from error
        if below != str(parent) or type_number(shown) != type_id:
            raise Conflict(
                f"vGPU {name}: mdev {uuid} is a {shown} on {below}, not type {type_id} on {parent}",
                hint="somebody else made or moved it; `vgpuctl vgpu list` shows what stands where",
                parent=below,
                type=shown,
            )

    def remove(self, step: RemoveVgpu) -> None:
        """Write 1 to `remove`, where the write can be abandoned: it waits for ever for a user.

        Raises RemovalBlocked when it waits; the kernel goes on with the removal by itself.
        """
        path = f"{MDEVS}/{step.vgpu}/remove"
        if self._is_there(step.vgpu):
            self._expect_same(step.vgpu, step.parent, step.type_id, step.name)
            try:
                self._kernel.write_abandonable(path, "1", self._removal_timeout_s)
            except TimeoutError as error:
                raise self._blocked(step) from error
            except OSError as error:
                # The file deletes itself first: a second writer finds none [mdev_sysfs.c].
                if error.errno == errno.EBUSY:
                    raise VgpuBusy(
                        f"vGPU {step.name} on {step.parent} is in use",
                        hint="stop the domain that has it, gracefully",
                        parent=str(step.parent),
                    ) from error
                if error.errno not in (errno.ENOENT, errno.EAGAIN, errno.ENODEV):
                    raise refused(f"remove vGPU {step.name}", path, error, None) from error
        if not self._writer.until(lambda: not self._remains(step)):
            raise self._blocked(step)

    def _remains(self, step: RemoveVgpu) -> bool:
        if self._is_there(step.vgpu):
            return True
        try:
            return step.vgpu in mdevs_under(self._kernel, step.parent)
        except FileNotFoundError:
            return False  # the parent itself is gone

    def _blocked(self, step: RemoveVgpu) -> RemovalBlocked:
        return RemovalBlocked(
            f"vGPU {step.name}: the kernel waits for somebody to let go of mdev {step.vgpu} on {step.parent}",
            hint="the removal ends by itself when the domain that has it is stopped; until then it counts "
            "against the GPU's capacity",
            parent=str(step.parent),
        )

    def set_params(self, step: SetParams) -> None:
        """Write `vgpu_params` as a whole, only to an mdev of our type; the next start takes them."""
        path = f"{MDEVS}/{step.vgpu}"
        if not self._is_there(step.vgpu):
            raise Conflict(f"vGPU {step.name}: there is no mdev {step.vgpu}", parent=str(step.parent))
        self._expect_same(step.vgpu, step.parent, step.type_id, step.name)
        self._writer.set_params(f"{path}/nvidia/vgpu_params", step.params, f"vGPU {step.name}")

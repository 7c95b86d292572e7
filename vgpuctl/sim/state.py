"""The state of a simulated host: frozen records that go to JSON and back as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid5

from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import GpuAddress
from vgpuctl.ports.kernel import KernelLogLine

LOG_KEPT = 400
"""Lines of the kernel log that are kept; a real ring buffer forgets too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vgpu:
    """A vGPU that was created; counted against its board until it is really gone.

    `uuid` and `iommu_group` are an mdev's; `removing` says that a removal waits for whoever holds it.
    """

    parent: GpuAddress
    type_id: int
    type_name: str
    fb_mib: int
    uuid: UUID | None = None
    iommu_group: int | None = None
    params: str = ""
    placement_id: int | None = None
    instance: int | None = None
    removing: bool = False


@dataclass(frozen=True, slots=True)
class Compute:
    """A compute instance: its id in its GPU instance, and how many compute slices it has."""

    id: int
    slices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A GPU instance: its id, the id of its profile, and the memory slices that it has.

    `compute` are the compute instances that the host made in it.
    """

    id: int
    profile: int
    start: int
    size: int
    compute: tuple[Compute, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One simulated GPU (or another parent of vGPUs).

    `vfs` is what `sriov_numvfs` says; `vfs_ready_at` is the time at which the driver has filled them,
    None once it has.  `mig_pending` is the MIG mode after the next reset, where it is another.
    `parked`: on pci-pf-stub, where an interrupted sriov-manage leaves a PF.
    """

    index: int
    address: GpuAddress
    model: str
    framework: FrameworkKind
    uuid: str
    numa_node: int
    ready_delay_s: float = 0.0
    present: bool = True
    parked: bool = False
    vfs: int = 0
    vfs_ready_at: float | None = None
    mig: bool = False
    mig_pending: bool | None = None
    instances: tuple[Instance, ...] = ()
    mixed_size: bool = False
    vgpus: tuple[Vgpu, ...] = ()

    @property
    def is_driven(self) -> bool:
        """Whether the vendor's driver has the PF."""
        return self.present and not self.parked

    @property
    def vfs_are_ready(self) -> bool:
        """Whether the driver has filled the VFs that are on."""
        return self.vfs_ready_at is None

    def vgpu_on(self, parent: GpuAddress) -> Vgpu | None:
        """The vGPU on that VF (or the first on that PF)."""
        return next((each for each in self.vgpus if each.parent == parent), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A process that has a device open: a vGPU (`uuid`, or a VF), or a PF.  `node` is its device node."""

    address: GpuAddress
    uuid: UUID | None
    node: str
    pid: int
    command: str
    domain: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong until it was hit `count` times, or (None) until it is healed."""

    what: str
    gpu: GpuAddress | None = None
    errno: int | None = None
    count: int | None = None
    hang: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Disputed:
    """What sources disagree about, or nobody wrote down: a host may be either way [hardware.md 1, 8].

    `clear_held` is what clearing the type of a held VF does: EPERM, EBUSY or `block`; `numvfs_errno`
    how NVIDIA's driver refuses a plain write to `sriov_numvfs`.  `placement_writable` and `gi_writable`
    are about `placement_id` and `gpu_instance_id`, `creatable_header` about the first line of
    `creatable_vgpu_types`.  Without `mdev_tree` a GPU without SR-IOV offers no types.
    """

    clear_held: str = "EPERM"
    numvfs_errno: str = "EPERM"
    placement_writable: bool = False
    gi_writable: bool = False
    creatable_header: bool = True
    mdev_tree: bool = True


AS_USUAL = Disputed()


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A file of mdevctl's, whose text is kept as it is."""

    parent: str
    uuid: UUID
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A whole simulated host.

    `spec` is what it was made from, as JSON; `seed` makes one installation's UUIDs differ from
    another's; `sriov_manage` says whether that program is installed.
    """

    spec: dict[str, Any]
    seed: UUID
    hostname: str
    kernel: str
    driver_version: str
    boards: tuple[Board, ...]
    boot: int = 1
    holds: tuple[Hold, ...] = ()
    faults: tuple[Fault, ...] = ()
    definitions: tuple[Definition, ...] = ()
    slow_ms: float = 0.0
    disputed: Disputed = AS_USUAL
    sriov_manage: bool = True
    made: int = 0
    """How many things were ever given a number; new ones take the next."""
    log: tuple[KernelLogLine, ...] = ()
    capture: dict[str, Any] | None = field(default=None)

    @property
    def boot_id(self) -> str:
        """A UUID that differs in each boot, as `/proc/sys/kernel/random/boot_id` does."""
        return str(uuid5(self.seed, f"boot {self.boot}"))

    def board_at(self, address: GpuAddress) -> Board:
        """The board at that address; KeyError when there is none."""
        for each in self.boards:
            if each.address == address:
                return each
        raise KeyError(address)

    def is_held(self, address: GpuAddress, uuid: UUID | None = None) -> bool:
        """Whether somebody has that VF, PF or mdev open."""
        return any(each.address == address and each.uuid == uuid for each in self.holds)

    def holds_vgpu(self, vgpu: Vgpu) -> bool:
        """Whether somebody has that vGPU open."""
        return self.is_held(vgpu.parent, vgpu.uuid)


def with_board(state: State, board: Board) -> State:
    """`state` with that board in the place of the one at its address."""
    return replace(
        state,
        boards=tuple(board if each.address == board.address else each for each in state.boards),
    )


def noted(state: State, *lines: str) -> State:
    """`state` with more lines in its kernel log."""
    last = state.log[-1].sequence if state.log else 0
    more = tuple(KernelLogLine(last + number, text) for number, text in enumerate(lines, 1))
    return replace(state, log=(state.log + more)[-LOG_KEPT:])

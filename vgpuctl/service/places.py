"""Places: which allocation stands for which vGPU, also of creations that nobody knows the end of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from uuid import UUID

from vgpuctl.model.allocation import Allocation
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.record import AllocationDropped, AllocationPut
from vgpuctl.model.situation import may_exist_unseen, observed_for
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import CreateVgpu, Effect, RemoveVgpu, lane_of
from vgpuctl.service import restore
from vgpuctl.service.observations import Observations
from vgpuctl.service.run import Doubt, claimed
from vgpuctl.service.turn import Turn


class Places:
    """The allocations as steps end: made, gone, or in doubt until an observation tells."""

    def __init__(self, turn: Turn, observations: Observations) -> None:
        self._turn = turn
        self._observations = observations
        self._doubtful: list[Doubt] = []

    def seen(self, snapshot: Snapshot, running: Iterable[Effect]) -> dict[UUID, Allocation]:
        """The allocations; a creation under way, or in doubt, counts as made where the snapshot shows it."""
        found = dict(self._turn.ledger.allocations)
        begun: list[tuple[Effect, str]] = [(effect, snapshot.boot_id) for effect in running]
        begun += [(each.effect, each.boot_id) for each in self._doubtful]
        for effect, boot_id in begun:
            if not isinstance(effect, CreateVgpu):
                continue
            allocation = found.get(effect.vgpu)
            if allocation is None or allocation.created_boot is not None:
                continue
            made = claimed(allocation, effect, boot_id)
            if observed_for(made, snapshot) is not None:
                found[allocation.id] = made
        return found

    def is_doubtful(self, vgpu_id: UUID) -> bool:
        """Whether nobody knows yet if that vGPU was made."""
        return any(each.effect.vgpu == vgpu_id for each in self._doubtful)

    def has_doubts(self, operation: UUID) -> bool:
        """Whether a creation of that operation is in doubt."""
        return any(each.operation == operation for each in self._doubtful)

    def doubt(self, operation: UUID, effect: CreateVgpu, boot_id: str, *, is_fresh: bool) -> None:
        """It is not known whether that creation happened; the next observation tells."""
        self._doubtful.append(Doubt(operation, effect, boot_id, self._observations.need(), is_fresh))

    def note_losses(self, snapshot: Snapshot, is_quiet: Callable[[Allocation], bool]) -> None:
        """Remember of vGPUs that have no name in the kernel that they are gone, before others take the VF."""
        for allocation in list(self._turn.ledger.allocations.values()):
            if (
                allocation.framework is FrameworkKind.VENDOR_VFIO
                and allocation.created_boot == snapshot.boot_id
                and not allocation.lost
                and is_quiet(allocation)
                and observed_for(allocation, snapshot) is None
                and not may_exist_unseen(allocation, snapshot)
            ):
                self._turn.record(AllocationPut(replace(allocation, lost=True)))

    def settle(self, effect: Effect, boot_id: str) -> None:
        """Record what a step that succeeded means for allocations."""
        allocation = None
        if isinstance(effect, (CreateVgpu, RemoveVgpu)):
            allocation = self._turn.ledger.allocations.get(effect.vgpu)
        if allocation is None:
            return
        if isinstance(effect, CreateVgpu):
            self._turn.record(AllocationPut(claimed(allocation, effect, boot_id)))
        else:
            self._turn.record(AllocationDropped(allocation.id, allocation.name))
            self._observations.note_change([lane_of(effect)])

    def free(self, vgpu_id: UUID) -> None:
        """Let the next plan choose another place, unless somebody's XML names this one already."""
        allocation = self._turn.ledger.allocations.get(vgpu_id)
        snapshot = self._observations.latest
        if allocation is None or snapshot is None or restore.is_named(allocation, snapshot):
            return
        self._turn.record(AllocationDropped(vgpu_id, allocation.name))

    def resolve(self, number: int, snapshot: Snapshot) -> None:
        """Read back creations that did not end well.

        A VF that shows the type which we were about to write, in the boot in which we were about to
        write it, is ours; our own log has it that the VF was empty before.  A GPU that cannot be read
        may have it.  Where nothing shows, a place that the operation chose is free again; one that was
        there before stays: a vGPU keeps its id when a restore fails.
        """
        doubtful, self._doubtful = self._doubtful, []
        for doubt in doubtful:
            effect = doubt.effect
            allocation = self._turn.ledger.allocations.get(effect.vgpu)
            if doubt.observation > number:
                self._doubtful.append(doubt)
                continue
            if allocation is None or allocation.created_boot is not None:
                continue
            made = claimed(allocation, effect, doubt.boot_id)
            if may_exist_unseen(made, snapshot) or observed_for(made, snapshot) is not None:
                self._turn.record(AllocationPut(made))
            elif doubt.is_fresh:
                self.free(effect.vgpu)

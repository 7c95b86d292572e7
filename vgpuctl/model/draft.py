"""A plan in the making: its steps so far, and the cards as they will be after them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from uuid import UUID

from vgpuctl.model.allocation import Allocation
from vgpuctl.model.card import Card, after, allowed, card_of
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.plan import GpuLayout, Plan, Problem
from vgpuctl.model.situation import Situation
from vgpuctl.model.step import (
    GPU_WIDE,
    AttachHostdev,
    CreateVgpu,
    DetachHostdev,
    Effect,
    GpuWide,
    RemoveVgpu,
    SetParams,
    Step,
)


@dataclass(slots=True)
class Draft:
    """What a planning has so far; the fields are those of Plan."""

    situation: Situation
    cards: dict[GpuAddress, Card] = field(default_factory=dict)
    """As they will be after the steps."""
    steps: list[Step] = field(default_factory=list)
    allocate: dict[UUID, Allocation] = field(default_factory=dict)
    release: list[Allocation] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    layouts: list[GpuLayout] = field(default_factory=list)
    incomplete: bool = False

    def __post_init__(self) -> None:
        snapshot = self.situation.snapshot
        for gpu in snapshot.gpus:
            model = self.situation.catalog.find(gpu.device)
            allocations = self.situation.allocations.values()
            self.cards[gpu.address] = card_of(gpu, model, allocations, snapshot.boot_id)

    def plan(self) -> Plan:
        """The plan that it has become."""
        return Plan(
            steps=tuple(self.steps),
            allocate=tuple(self.allocate.values()),
            release=tuple(self.release),
            problems=tuple(self.problems),
            incomplete=self.incomplete,
            layouts=tuple(self.layouts),
        )

    def add(
        self, effect: Effect, reason: str, *, needs: Iterable[int] = (), touches: Iterable[str] = ()
    ) -> int:
        """Append a step.  On a GPU it also waits for whatever makes room there before it."""
        number = len(self.steps) + 1
        before = set(needs)
        if isinstance(effect, (*GPU_WIDE, CreateVgpu, RemoveVgpu, SetParams)):
            for step in self.steps:
                if isinstance(step.effect, (*GPU_WIDE, RemoveVgpu)) and step.effect.gpu == effect.gpu:
                    before.add(step.number)
            address = effect.gpu.address
            if address in self.cards:
                self.cards[address] = after(self.cards[address], effect)
        elif isinstance(effect, AttachHostdev):
            # A guest may have room for one vGPU only (one ramfb, one PCI slot).
            before |= {
                step.number
                for step in self.steps
                if isinstance(step.effect, DetachHostdev) and step.effect.domain == effect.domain
            }
        elif isinstance(effect, DetachHostdev):
            self._detach_first(effect, number)
        step = Step(
            number=number,
            effect=effect,
            reason=reason,
            needs=tuple(sorted(before)),
            touches=tuple(touches),
        )
        self.steps.append(step)
        return number

    def _detach_first(self, effect: DetachHostdev, number: int) -> None:
        """What was to be attached to that domain before waits for it too: the VF may be the same one now."""
        self.steps = [
            replace(step, needs=(*step.needs, number))
            if isinstance(step.effect, AttachHostdev) and step.effect.domain == effect.domain
            else step
            for step in self.steps
        ]

    def check(self, effect: GpuWide | CreateVgpu | RemoveVgpu | SetParams) -> None:
        """Raise what the rules of the card have against an effect."""
        refusal = allowed(self.cards[effect.gpu.address], effect)
        if refusal is not None:
            raise refusal

    def add_allowed(self, effect: GpuWide | CreateVgpu | RemoveVgpu, reason: str) -> int:
        """Append a step that its card's rules allow; raises what they have against it."""
        self.check(effect)
        return self.add(effect, reason)

    def forget(self, allocation: Allocation) -> None:
        """Free the place that an allocation without a vGPU kept on its card."""
        card = self.cards.get(allocation.gpu.address)
        if card is not None:
            rest = tuple(each for each in card.occupants if each.vgpu != allocation.id)
            self.cards[allocation.gpu.address] = replace(card, occupants=rest)

    def keep_place(self, allocation: Allocation) -> None:
        """Reserve room on a card whose VFs are still off."""
        if allocation != self.situation.allocations.get(allocation.id):
            self.allocate[allocation.id] = allocation
        gpu = self.cards[allocation.gpu.address].gpu
        released = {each.id for each in self.release}
        others = [*self.situation.allocations.values(), *self.allocate.values()]
        others = [each for each in others if each.id not in released]
        card = card_of(
            gpu,
            self.cards[gpu.address].model,
            {each.id: each for each in others}.values(),
            self.situation.snapshot.boot_id,
        )
        self.cards[gpu.address] = replace(card, vfs_on=self.cards[gpu.address].vfs_on)

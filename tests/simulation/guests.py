"""Domains that start and stop, as libvirt and its hook tell of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import libvirt

from tests.simulation.ground import Ground
from vgpuctl import errors
from vgpuctl.model.domain import vgpu_of_alias
from vgpuctl.model.start import DomainRelease, DomainStart, NamedVgpu
from vgpuctl.service.messages import Answer, ReleaseTold, StartAsked


@dataclass(frozen=True)
class Guest:
    """One start of a domain: its token, and the vGPUs that it got."""

    start: DomainStart

    @property
    def devices(self) -> tuple[UUID, ...]:
        return tuple(each.vgpu for each in self.start.vgpus)


@dataclass
class Guests:
    """Every domain that runs, or is about to."""

    ground: Ground
    running: dict[str, Guest] = field(default_factory=dict)
    asked: dict[int, DomainStart] = field(default_factory=dict)
    releases: list[DomainRelease] = field(default_factory=list)
    """What the hook has still to tell: the daemon was not there, or the hook is slow."""
    wrong: list[str] = field(default_factory=list)
    starts: int = 0

    def start(self, name: str, ticket: int) -> StartAsked | None:
        """Somebody starts a domain; None where it runs, or has no vGPU of ours."""
        if name in self.running or any(each.domain == name for each in self.asked.values()):
            return None
        domain = next(each for each in self._domains() if each.name == name)
        vgpus = tuple(
            NamedVgpu(vgpu, each.source)
            for each in domain.config or ()
            if (vgpu := vgpu_of_alias(each.alias)) is not None
        )
        if not vgpus:
            return None
        self.starts += 1
        start = DomainStart(domain=name, uuid=domain.uuid, token=f"start-{self.starts}", vgpus=vgpus)
        self.asked[ticket] = start
        tokens = {each.start.uuid: each.start.token for each in self.running.values()}
        return StartAsked(ticket, start, tokens | {domain.uuid: start.token})

    def answered(self, answer: Answer) -> None:
        """libvirt goes on with the start, or not."""
        start = self.asked.pop(answer.ticket, None)
        if start is None:
            return
        if answer.error is not None:
            return
        got: list[UUID] = []
        for each in start.vgpus:
            try:
                self.ground.stage.sim.control("hold", {"vgpu": str(each.vgpu), "domain": start.domain})
            except errors.Conflict:
                if not any(other["vgpu"] == str(each.vgpu) for other in self.ground.strangers):
                    self.wrong.append(f"{start.domain} was let start, and another has vGPU {each.vgpu}")
            except errors.NotFound:
                pass
            else:
                got.append(each.vgpu)
        if len(got) < len(start.vgpus):
            self._let_go(got)
            self._release(start)
            return
        self.ground.stage.on_libvirt(lambda connection: connection.lookupByName(start.domain).create())
        self.running[start.domain] = Guest(start)

    def stop(self, name: str) -> None:
        """A guest ends; its hook tells it, now or later."""
        guest = self.running.pop(name, None)
        if guest is None:
            return
        self._destroy(name)
        self._let_go(guest.devices)
        self._release(guest.start)

    def tell(self) -> ReleaseTold | None:
        """The next release that the hook tells."""
        if not self.releases:
            return None
        release = self.releases.pop(self.ground.dice.randrange(len(self.releases)))
        return ReleaseTold(0, release)

    def die(self) -> None:
        """The host has no power: nobody tells of anything."""
        for name in self.running:
            self._destroy(name)
        self.running.clear()
        self.asked.clear()
        self.releases.clear()

    def faults(self, allocations: dict[UUID, Any]) -> list[str]:
        """What is wrong about holds, while all is quiet."""
        found = [*self.wrong]
        for name, guest in self.running.items():
            for vgpu in guest.devices:
                allocation = allocations.get(vgpu)
                if allocation is None:
                    found.append(f"{name} runs with {vgpu}, which is nobody's")
                elif allocation.hold is None or allocation.hold.token != guest.start.token:
                    found.append(f"{name} runs, and does not hold {allocation.name}")
        for allocation in allocations.values():
            holder = allocation.hold.domain if allocation.hold is not None else None
            if holder is not None and holder not in self.running:
                found.append(f"{holder} does not run, and holds {allocation.name}")
        return found

    def _domains(self) -> tuple[Any, ...]:
        domains: tuple[Any, ...] = self.ground.stage.libvirt.domains()
        return domains

    def _destroy(self, name: str) -> None:
        with suppress(libvirt.libvirtError):
            self.ground.stage.on_libvirt(lambda connection: connection.lookupByName(name).destroy())

    def _let_go(self, vgpus: Any) -> None:
        for each in vgpus:
            self.ground.control("release", vgpu=str(each))

    def _release(self, start: DomainStart) -> None:
        vgpus = tuple(each.vgpu for each in start.vgpus)
        self.releases.append(
            DomainRelease(domain=start.domain, uuid=start.uuid, token=start.token, vgpus=vgpus, saved=False)
        )

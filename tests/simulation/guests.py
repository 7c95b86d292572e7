"""Domains that start and stop, as libvirt and its hook tell of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import libvirt

from tests.simulation.ground import Ground
from vgpuctl import errors
from vgpuctl.model.domain import MdevSource, vgpu_of_alias
from vgpuctl.model.start import DomainRelease, DomainStart, NamedVgpu
from vgpuctl.service.messages import Answer, ReleaseTold, StartAsked


@dataclass(frozen=True)
class Guest:
    """One start of a domain: its token, the vGPUs that it got, and those of hostdevs that are not ours."""

    start: DomainStart
    unasked: tuple[UUID, ...] = ()

    @property
    def asked(self) -> tuple[UUID, ...]:
        return tuple(each.vgpu for each in self.start.vgpus)

    @property
    def devices(self) -> tuple[UUID, ...]:
        return (*self.asked, *self.unasked)


@dataclass
class Guests:
    """Every domain that runs, or is about to."""

    ground: Ground
    running: dict[str, Guest] = field(default_factory=dict)
    saved: dict[str, Guest] = field(default_factory=dict)
    """Those that are stopped, and have a managed-save image."""
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
        self.starts += 1
        if not vgpus:
            # libvirt's hook lets it pass without a question.
            self._run(DomainStart(domain=name, uuid=domain.uuid, token=f"start-{self.starts}", vgpus=()))
            return None
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
        self._run(start)

    def _run(self, start: DomainStart) -> None:
        """QEMU opens what the XML names; the start fails where it cannot."""
        guest = Guest(start, self._unasked(start.domain))
        if not guest.devices:
            return
        got: list[UUID] = []
        for each in guest.devices:
            try:
                self.ground.stage.sim.control("hold", {"vgpu": str(each), "domain": start.domain})
            except errors.Conflict:
                if each in guest.asked and not self._is_open_unasked(each):
                    self.wrong.append(f"{start.domain} was let start, and another has vGPU {each}")
            except errors.NotFound:
                pass
            else:
                got.append(each)
        if len(got) < len(guest.devices):
            self._let_go(got)
            self._release(guest)
            return
        self.ground.stage.on_libvirt(lambda connection: connection.lookupByName(start.domain).create())
        self._forget_image(start.domain)
        self.running[start.domain] = guest

    def _unasked(self, name: str) -> tuple[UUID, ...]:
        """The mdevs of a domain's hostdevs that have no alias of ours."""
        domain = next(each for each in self._domains() if each.name == name)
        return tuple(
            each.source.uuid
            for each in domain.config or ()
            if vgpu_of_alias(each.alias) is None and isinstance(each.source, MdevSource)
        )

    def _is_open_unasked(self, vgpu: UUID) -> bool:
        """Whether somebody has it whom no hook asks about."""
        strangers = {each.get("vgpu") for each in self.ground.strangers}
        return str(vgpu) in strangers or any(vgpu in each.unasked for each in self.running.values())

    def stop(self, name: str) -> None:
        """A guest ends; its hook tells it, now or later."""
        guest = self.running.pop(name, None)
        if guest is None:
            return
        self._destroy(name)
        self._let_go(guest.devices)
        self._release(guest)

    def save(self, name: str) -> bool:
        """`virsh managedsave`: QEMU ends, and is to find the same vGPUs again."""
        guest = self.running.pop(name, None)
        if guest is None:
            return False
        self.ground.stage.on_libvirt(lambda connection: connection.lookupByName(name).managedSave(0))
        self._let_go(guest.devices)
        self.saved[name] = guest
        self._release(guest)
        return True

    def drop_image(self, name: str) -> None:
        """`virsh managedsave-remove`."""
        if self.saved.pop(name, None) is not None:
            self.ground.stage.on_libvirt(
                lambda connection: connection.lookupByName(name).managedSaveRemove(0)
            )

    def _forget_image(self, name: str) -> None:
        """A start has used it up."""
        self.saved.pop(name, None)
        with suppress(libvirt.libvirtError):
            self.ground.stage.on_libvirt(
                lambda connection: connection.lookupByName(name).managedSaveRemove(0)
            )

    def leave(self) -> None:
        """The history is over: no domain runs, and none has an image."""
        self.die()
        for name in list(self.saved):
            self.drop_image(name)

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
            for vgpu in guest.asked:
                allocation = allocations.get(vgpu)
                if allocation is None:
                    found.append(f"{name} runs with {vgpu}, which is nobody's")
                elif allocation.hold is None or allocation.hold.token != guest.start.token:
                    found.append(f"{name} runs, and does not hold {allocation.name}")
        for name, guest in self.saved.items():
            for vgpu in guest.asked:
                allocation = allocations.get(vgpu)
                hold = allocation.hold if allocation is not None else None
                if hold is None or (hold.domain, hold.saved) != (name, True):
                    found.append(f"{name} is saved with {vgpu}, which is not kept for it")
        for allocation in allocations.values():
            holder = allocation.hold.domain if allocation.hold is not None else None
            if holder is not None and holder not in {*self.running, *self.saved}:
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

    def _release(self, guest: Guest) -> None:
        """The hook looks for an image: also a start from one that failed leaves it."""
        start = guest.start
        saved = start.domain in self.saved
        if guest.asked:
            self.releases.append(
                DomainRelease(
                    domain=start.domain, uuid=start.uuid, token=start.token, vgpus=guest.asked, saved=saved
                )
            )

"""Where a vGPU is to stand in a domain's XML, and where it does.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from vgpuctl.model import frameworks
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.document import Affect
from vgpuctl.model.domain import Domain, Hostdev, HostdevSource, Hypervisor, vgpu_of_alias
from vgpuctl.model.gpu import ObservedVgpu


def wanted_in(affect: frozenset[Affect] | None, domain: Domain, hypervisor: Hypervisor) -> frozenset[Affect]:
    """The definitions of a domain in which a vGPU has to stand now."""
    wanted = set(affect or {Affect.LIVE, Affect.CONFIG})
    if not domain.state.is_active or (affect is None and not hypervisor.can_attach_live):
        wanted.discard(Affect.LIVE)
    if domain.config is None:
        wanted.discard(Affect.CONFIG)
    return frozenset(wanted)


_NO_UUID: Final = UUID(int=0)
"""Of a vGPU that is no mdev; its hostdev names the function."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A hostdev, and the definition of the domain in which it stands."""

    domain: str
    where: Affect
    hostdev: Hostdev

    @property
    def vgpu(self) -> UUID | None:
        """The allocation that its alias names; None where the alias is not ours."""
        return vgpu_of_alias(self.hostdev.alias)


class Attachments:
    """Every hostdev of every domain, by our alias and by what it names."""

    def __init__(self, domains: Iterable[Domain]) -> None:
        self._by_id: dict[UUID, list[Attachment]] = {}
        self._by_source: dict[HostdevSource, list[Attachment]] = {}
        for domain in domains:
            for each in _attachments_in(domain):
                self._by_source.setdefault(each.hostdev.source, []).append(each)
                if each.vgpu is not None:
                    self._by_id.setdefault(each.vgpu, []).append(each)

    def of(self, vgpu_id: UUID) -> list[Attachment]:
        """Where a hostdev with the alias of that allocation stands."""
        return self._by_id.get(vgpu_id, [])

    def ids(self) -> dict[UUID, list[Attachment]]:
        """Every allocation whose alias stands somewhere."""
        return self._by_id

    def naming(self, source: HostdevSource) -> list[Attachment]:
        """Where a hostdev names that device, whatever its alias."""
        return self._by_source.get(source, [])

    def naming_observed(self, vgpu: ObservedVgpu) -> list[Attachment]:
        """Where a hostdev names a vGPU that exists, whatever its alias."""
        return self.naming(frameworks.hostdev(vgpu.framework, vgpu.mdev_uuid or _NO_UUID, vgpu.parent).source)

    def standing_for(self, allocation: Allocation, *, by_source: bool) -> list[Attachment]:
        """Where a hostdev stands for an allocation: under its alias and, `by_source`, under none of ours."""
        mine = self.of(allocation.id)
        if not by_source or allocation.framework is None or allocation.parent is None:
            return mine
        source = frameworks.hostdev(allocation.framework, allocation.id, allocation.parent).source
        return [*mine, *(each for each in self.naming(source) if each.vgpu is None)]


def _attachments_in(domain: Domain) -> Iterator[Attachment]:
    for where, hostdevs in ((Affect.CONFIG, domain.config), (Affect.LIVE, domain.live)):
        for hostdev in hostdevs or ():
            yield Attachment(domain.name, where, hostdev)

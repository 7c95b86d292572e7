"""Where a vGPU is to stand in a domain's XML, and where it does.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

from vgpuctl.model.document import Affect
from vgpuctl.model.domain import Domain, Hostdev, HostdevSource, Hypervisor, vgpu_of_alias


def wanted_in(affect: frozenset[Affect] | None, domain: Domain, hypervisor: Hypervisor) -> frozenset[Affect]:
    """The definitions of a domain in which a vGPU has to stand now."""
    wanted = set(affect or {Affect.LIVE, Affect.CONFIG})
    if not domain.state.is_active or (affect is None and not hypervisor.can_attach_live):
        wanted.discard(Affect.LIVE)
    if domain.config is None:
        wanted.discard(Affect.CONFIG)
    return frozenset(wanted)


@dataclass(frozen=True, slots=True)
class Place:
    """A hostdev, and the definition of the domain in which it stands."""

    domain: str
    where: Affect
    hostdev: Hostdev


class Attachments:
    """Every hostdev of every domain, by our alias and by what it names."""

    def __init__(self, domains: Iterable[Domain]) -> None:
        self._by_id: dict[UUID, list[Place]] = {}
        self._by_source: dict[HostdevSource, list[Place]] = {}
        for domain in domains:
            for place in _places(domain):
                self._by_source.setdefault(place.hostdev.source, []).append(place)
                vgpu_id = vgpu_of_alias(place.hostdev.alias)
                if vgpu_id is not None:
                    self._by_id.setdefault(vgpu_id, []).append(place)

    def of(self, vgpu_id: UUID) -> list[Place]:
        """Where a hostdev with the alias of that allocation stands."""
        return self._by_id.get(vgpu_id, [])

    def naming(self, source: HostdevSource) -> list[Place]:
        """Where a hostdev names that device, whatever its alias."""
        return self._by_source.get(source, [])

    def ids(self) -> dict[UUID, list[Place]]:
        """Every allocation whose alias stands somewhere."""
        return self._by_id


def _places(domain: Domain) -> Iterator[Place]:
    for where, hostdevs in ((Affect.CONFIG, domain.config), (Affect.LIVE, domain.live)):
        for hostdev in hostdevs or ():
            yield Place(domain.name, where, hostdev)

"""What libvirt's numbers say of a domain, where no libvirt can be made to say them at will."""

from __future__ import annotations

from dataclasses import dataclass

import libvirt
import pytest

from vgpuctl.host.libvirt.listing import state_of
from vgpuctl.model.domain import DomainState


@dataclass
class Said:
    """A domain as libvirt's binding shows it: its state, and the id that came with the listing."""

    number: int
    id: int

    def state(self) -> tuple[int, int]:
        return self.number, 0

    def isActive(self) -> bool:  # noqa: N802  (the binding's name)
        return self.id >= 0

    def ID(self) -> int:  # noqa: N802  (the binding's name)
        return self.id


@pytest.mark.parametrize(
    ("number", "id_", "state"),
    [
        (libvirt.VIR_DOMAIN_SHUTOFF, -1, DomainState.SHUT_OFF),
        (libvirt.VIR_DOMAIN_SHUTOFF, 3, DomainState.OTHER),
        (libvirt.VIR_DOMAIN_RUNNING, 3, DomainState.RUNNING),
        (libvirt.VIR_DOMAIN_CRASHED, -1, DomainState.SHUT_OFF),
        (libvirt.VIR_DOMAIN_CRASHED, 3, DomainState.OTHER),
    ],
)
def test_a_domain_that_is_being_started_is_not_stopped(number: int, id_: int, state: DomainState) -> None:
    """libvirt says `shut off` until QEMU runs; a hold must not end meanwhile."""
    assert state_of(Said(number, id_)) is state

"""What the daemon and libvirt's hook leave for each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol
from uuid import UUID

from vgpuctl.model.allocation import Allocation
from vgpuctl.model.fact import Fact
from vgpuctl.model.start import HookState


class HookDesk(Protocol):
    """Where the hook finds what it needs while no daemon answers, and leaves what it did meanwhile."""

    def starts(self) -> Fact[Mapping[UUID, str]]:
        """The tokens of the starts whose end the hook has not noted, by the domain's UUID."""
        ...

    def publish(self, boot_id: str, allocations: Iterable[Allocation]) -> None:
        """Write down which vGPUs are ours; what cannot be written is logged."""
        ...

    def state(self) -> HookState:
        """Whether libvirt calls the hook."""
        ...

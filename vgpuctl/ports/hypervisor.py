"""libvirt, as far as vGPUs need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from vgpuctl.model.document import Affect
from vgpuctl.model.domain import Domain, Hostdev, Hypervisor


class DomainEventKind(StrEnum):
    """What happened to a domain, or to the connection."""

    DEFINED = "defined"
    UNDEFINED = "undefined"
    STARTED = "started"
    STOPPED = "stopped"
    DEVICE_REMOVED = "device-removed"
    DEVICE_REMOVAL_FAILED = "device-removal-failed"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """One event; `device` is a hostdev's alias for the device events."""

    kind: DomainEventKind
    domain: str
    device: str | None = None


class HypervisorPort(Protocol):
    """A libvirt connection that comes back by itself.  Never blocks beyond its deadline.

    Raises LibvirtUnreachable, DomainNotFound, LibvirtRefused, UnsupportedHere, InvalidDomainState or
    DeadlineExceeded of vgpuctl.errors.
    """

    def await_first(self) -> None:
        """From now on whoever asks waits for the first connection."""
        ...

    def info(self) -> Hypervisor:
        """What we are connected to and what it can do."""
        ...

    def domains(self) -> tuple[Domain, ...]:
        """Every domain, with the hostdevs of its config and of its running guest."""
        ...

    def xml(self, domain: str, *, live: bool = False) -> str:
        """The domain's XML: its config, or what its guest runs with."""
        ...

    def attach(self, domain: str, hostdev: Hostdev, affect: frozenset[Affect]) -> None:
        """Add a hostdev and read it back; one that is there already is left as it is."""
        ...

    def detach(self, domain: str, hostdev: Hostdev, affect: frozenset[Affect]) -> None:
        """Take a hostdev out, found by alias, else by source; one that is not there is done.

        A live detach returns when libvirt's event says that the guest let go, and raises
        DeadlineExceeded when it does not in time.
        """
        ...

    def subscribe(self, listener: Callable[[DomainEvent], None]) -> None:
        """Call `listener` on every event, from a thread of the adapter's."""
        ...

    def close(self) -> None:
        """Let go of libvirt."""
        ...

"""libvirt's events as DomainEvents, and waiting for the removal of one device."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import libvirt

from vgpuctl.ports.hypervisor import DomainEvent, DomainEventKind

_LIFECYCLE = {
    libvirt.VIR_DOMAIN_EVENT_DEFINED: DomainEventKind.DEFINED,
    libvirt.VIR_DOMAIN_EVENT_UNDEFINED: DomainEventKind.UNDEFINED,
    libvirt.VIR_DOMAIN_EVENT_STARTED: DomainEventKind.STARTED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: DomainEventKind.STOPPED,
}


def register(connection: Any, listener: Callable[[DomainEvent], None]) -> tuple[int, ...]:
    """Have `listener` called on events, in the event loop's thread; the callbacks' numbers.

    A driver without device events (test:///) still gives the others.
    """

    def lifecycle(_connection: Any, domain: Any, event: int, _detail: int, _opaque: object) -> None:
        listener(DomainEvent(_LIFECYCLE.get(event, DomainEventKind.OTHER), domain.name()))

    def removed(_connection: Any, domain: Any, device: str, _opaque: object) -> None:
        listener(DomainEvent(DomainEventKind.DEVICE_REMOVED, domain.name(), device))

    def failed(_connection: Any, domain: Any, device: str, _opaque: object) -> None:
        listener(DomainEvent(DomainEventKind.DEVICE_REMOVAL_FAILED, domain.name(), device))

    wanted = (
        (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
        (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, removed),
        (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, failed),
    )
    callbacks = []
    for event, callback in wanted:
        try:
            callbacks.append(connection.domainEventRegisterAny(None, event, callback, None))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise
    return tuple(callbacks)


class Removal(Enum):
    """How an unplug request ended."""

    REMOVED = "removed"
    REFUSED = "refused"


class Waiter:
    """Somebody who waits for one device of one domain to go."""

    def __init__(self) -> None:
        self._happened = threading.Event()
        self._outcome: Removal | None = None

    def wait(self, timeout_s: float) -> Removal | None:
        """How it ended; None when nothing was heard within `timeout_s`."""
        self._happened.wait(timeout_s)
        return self._outcome

    def tell(self, outcome: Removal) -> None:
        """It ended like this."""
        self._outcome = outcome
        self._happened.set()


class Removals:
    """Who waits for which device; told of every event before the listeners are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[tuple[str, str], list[Waiter]] = {}

    @contextlib.contextmanager
    def expect(self, domain: str, device: str) -> Iterator[Waiter]:
        """A waiter that hears from now on; made before the unplug is asked for, else it may be late."""
        waiter = Waiter()
        with self._lock:
            self._waiters.setdefault((domain, device), []).append(waiter)
        try:
            yield waiter
        finally:
            with self._lock:
                waiting = self._waiters[domain, device]
                waiting.remove(waiter)
                if not waiting:
                    del self._waiters[domain, device]

    def hear(self, event: DomainEvent) -> None:
        """Wake whoever waits for this."""
        outcome = {
            DomainEventKind.DEVICE_REMOVED: Removal.REMOVED,
            DomainEventKind.DEVICE_REMOVAL_FAILED: Removal.REFUSED,
        }.get(event.kind)
        if outcome is None or event.device is None:
            return
        with self._lock:
            waiting = tuple(self._waiters.get((event.domain, event.device), ()))
        for waiter in waiting:
            waiter.tell(outcome)

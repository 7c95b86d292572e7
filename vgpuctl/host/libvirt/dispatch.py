"""Events on their way to listeners."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import structlog

from vgpuctl.ports.hypervisor import DomainEvent

_log = structlog.get_logger(__name__)


class Dispatch:
    """Calls listeners one event after the other, in a thread of its own.

    libvirt's event thread only puts: a slow listener holds up other listeners, never the keepalive.
    """

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[DomainEvent | None] = queue.SimpleQueue()
        self._listeners: tuple[Callable[[DomainEvent], None], ...] = ()
        threading.Thread(target=self._run, name="libvirt-dispatch", daemon=True).start()

    def subscribe(self, listener: Callable[[DomainEvent], None]) -> None:
        """Call `listener` on every event from now on."""
        self._listeners = (*self._listeners, listener)

    def put(self, event: DomainEvent) -> None:
        """Pass `event` on; returns at once."""
        self._events.put(event)

    def close(self) -> None:
        """Stop, after what was put already."""
        self._events.put(None)

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            for listener in self._listeners:
                try:
                    listener(event)
                except Exception:  # noqa: BLE001 - whatever it is, the next listener gets its event
                    _log.exception("a listener failed", kind=event.kind, domain=event.domain)

"""The hypervisor port over libvirt."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import libvirt

from vgpuctl.errors import DeadlineExceeded, LibvirtRefused, LibvirtUnreachable, ReadBackMismatch
from vgpuctl.host.libvirt import attachment, driver, events
from vgpuctl.host.libvirt.dispatch import Dispatch
from vgpuctl.host.libvirt.link import Link
from vgpuctl.host.libvirt.listing import Listing
from vgpuctl.model.document import Affect
from vgpuctl.model.domain import Domain, Hostdev, Hypervisor
from vgpuctl.ports.hypervisor import DomainEvent, DomainEventKind

_LOOK_INTERVAL_S = 2.0
"""How often a guest's XML is read while it is to let go of a device: an event can be lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long things may take, in seconds.

    A live attach pins all of the guest's memory, which takes its time; a guest that does not answer an
    unplug request never will.
    """

    read_s: float = 10.0
    change_s: float = 60.0
    unplug_s: float = 30.0


class LibvirtHypervisor:
    """One libvirt, for as long as the daemon lives.  May be used from several threads."""

    def __init__(
        self,
        uri: str,
        *,
        deadlines: Deadlines | None = None,
        open_connection: Callable[[str], Any] = libvirt.open,
        awaited: bool = True,
    ) -> None:
        """Begin to connect; unless it is `awaited`, nobody waits for that before `await_first`."""
        self._deadlines = deadlines or Deadlines()
        self._dispatch = Dispatch()
        self._removals = events.Removals()
        self._listing = Listing()
        self._link = Link(
            uri,
            opened=lambda connection: events.register(connection, self._hear),
            changed=self._changed,
            open_connection=open_connection,
            awaited=awaited,
        )

    def await_first(self) -> None:
        """From now on whoever asks waits for the first connection."""
        self._link.await_first()

    def info(self) -> Hypervisor:
        """What we are connected to and what it can do."""
        return self._link.call("asking libvirt for its version", driver.describe, self._deadlines.read_s)

    def domains(self) -> tuple[Domain, ...]:
        """Every domain, with the hostdevs of its config and of its running guest."""
        return self._link.call("listing domains", self._listing.read, self._deadlines.read_s)

    def xml(self, domain: str, *, live: bool = False) -> str:
        """The domain's XML, without passwords; InvalidDomainState when there is no such definition."""
        where = Affect.LIVE if live else Affect.CONFIG
        return self._link.call(
            f"reading the XML of {domain}",
            lambda connection: attachment.xml(connection, domain, where),
            self._deadlines.read_s,
        )

    def attach(self, domain: str, hostdev: Hostdev, affect: frozenset[Affect]) -> None:
        """Add a hostdev and read it back; one that is there already is left as it is.

        The guest comes first: it is the one that may be refused, and then nothing was changed.
        """
        for where in _guest_first(affect):
            self._change(
                f"attaching a vGPU to {domain} ({where})",
                partial(attachment.attach, name=domain, hostdev=hostdev, where=where),
            )

    def detach(self, domain: str, hostdev: Hostdev, affect: frozenset[Affect]) -> None:
        """Take a hostdev out, found by alias, else by source; one that is not there is done.

        The guest comes first: while it holds the device, the config goes on naming it.
        """
        for where in _guest_first(affect):
            if where is Affect.LIVE:
                self._unplug(domain, hostdev)
            else:
                self._change(
                    f"detaching a vGPU from {domain}",
                    partial(attachment.detach_config, name=domain, hostdev=hostdev),
                )

    def subscribe(self, listener: Callable[[DomainEvent], None]) -> None:
        """Call `listener` on every event; it may take its time."""
        self._dispatch.subscribe(listener)

    def close(self) -> None:
        """Let go of libvirt."""
        self._link.close()
        self._dispatch.close()

    def _hear(self, event: DomainEvent) -> None:
        self._removals.hear(event)
        self._dispatch.put(event)

    def _changed(self, is_connected: bool) -> None:
        kind = DomainEventKind.CONNECTED if is_connected else DomainEventKind.DISCONNECTED
        self._dispatch.put(DomainEvent(kind, ""))

    def _change(self, doing: str, work: Callable[[Any], None]) -> None:
        self._link.call(doing, work, self._deadlines.change_s, changes=True)

    def _plugged(self, domain: str, hostdev: Hostdev) -> attachment.Plugged | None:
        return self._link.call(
            f"reading the XML of {domain}",
            lambda connection: attachment.plugged(connection, domain, hostdev),
            self._deadlines.read_s,
        )

    def _unplug(self, domain: str, hostdev: Hostdev) -> None:
        device = self._plugged(domain, hostdev)
        if device is None:
            return
        with self._removals.expect(device.domain, device.alias) as waiter:
            self._change(
                f"unplugging a vGPU from {domain}", partial(attachment.request_unplug, device=device)
            )
            self._until_gone(domain, hostdev, device, waiter)

    def _until_gone(
        self, domain: str, hostdev: Hostdev, device: attachment.Plugged, waiter: events.Waiter
    ) -> None:
        deadline = time.monotonic() + self._deadlines.unplug_s
        while True:
            left = deadline - time.monotonic()
            outcome = waiter.wait(max(0.0, min(left, _LOOK_INTERVAL_S)))
            if outcome is events.Removal.REFUSED:
                raise LibvirtRefused(
                    f"the guest of {domain} refused to let go of {device.alias}",
                    hint="Stop what uses the GPU in the guest, or shut the guest down.",
                    domain=domain,
                    device=device.alias,
                )
            # An event can be lost with the connection; the guest's XML cannot.
            with contextlib.suppress(LibvirtUnreachable):
                if self._plugged(domain, hostdev) is None:
                    return
            if outcome is events.Removal.REMOVED:
                raise ReadBackMismatch(
                    f"libvirt said that {device.alias} is gone, and the guest of {domain} still shows it",
                    domain=domain,
                )
            if left <= 0:
                raise DeadlineExceeded(
                    f"the guest of {domain} did not let go of {device.alias} "
                    f"within {self._deadlines.unplug_s:g} s",
                    hint="A guest lets go only with a running OS and an idle GPU; shutting it down works.",
                    domain=domain,
                    device=device.alias,
                )


def _guest_first(affect: frozenset[Affect]) -> tuple[Affect, ...]:
    return tuple(where for where in (Affect.LIVE, Affect.CONFIG) if where in affect)

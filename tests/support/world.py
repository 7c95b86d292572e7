"""A whole daemon without its sockets: simulated cards, real SQLite, libvirt's real test driver."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import libvirt

from vgpuctl.host.clock import SystemClock
from vgpuctl.host.libvirt.connection import LibvirtHypervisor
from vgpuctl.host.local import LocalHost
from vgpuctl.host.store.sqlite import SqliteStore
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import ProfileDocument
from vgpuctl.model.edit import Edit
from vgpuctl.model.record import Requester
from vgpuctl.service.service import Service
from vgpuctl.sim.host import SimHost
from vgpuctl.surface import RESOURCES, Field

CATALOG = Catalog()
WHO = Requester(uid=0, pid=1, name="root")
PROFILES = {
    "designer": ProfileDocument(name="designer", types=("L40S-8Q", "A40-8Q", "T4-8Q")),
    "office": ProfileDocument(name="office", types=("L40S-1B", "A40-1B", "T4-1B")),
}


def libvirt_file(directory: Path, domains: int) -> str:
    """The URI of a libvirt test driver with stopped domains `win1`, `win2` ..."""
    names = "".join(
        f"<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'><name>win{n}</name>"
        f"<uuid>{UUID(int=n, version=4)}</uuid><memory>65536</memory>"
        "<os><type>hvm</type></os><devices/><test:runstate>5</test:runstate></domain>"
        for n in range(1, domains + 1)
    )
    node = "<cpu><mhz>1000</mhz><model>i686</model><active>1</active><nodes>1</nodes>"
    node += "<sockets>1</sockets><cores>1</cores><threads>1</threads></cpu><memory>8192000</memory>"
    (directory / "libvirt.xml").write_text(f"<node>{node}{names}</node>")
    return f"test://{directory}/libvirt.xml"


class World:
    """One host and its daemon, which can be killed and started again."""

    def __init__(self, directory: Path, cards: str = "t4:mdev,l40s:sriov-mdev", domains: int = 4) -> None:
        self.directory = directory
        self.sim = SimHost.in_memory(cards)
        self.uri = libvirt_file(directory, domains)
        self._keep = libvirt.open(self.uri)
        self.hypervisor = LibvirtHypervisor(self.uri)
        self._stop: list[Callable[[], None]] = []
        self.start()

    def start(self, wrap: Callable[[Any], Any] = lambda host: host) -> None:
        """Start a daemon on the store; `wrap` may put something between it and its host."""
        self.store = SqliteStore(self.directory / "state.db")
        self.host = LocalHost(
            kernel=self.sim.kernel,
            nvml=self.sim.nvml,
            handles=self.sim.handles,
            hypervisor=self.hypervisor,
            catalog=CATALOG,
            clock=SystemClock(),
            simulated=True,
            gpu_timeout_s=2.0,
        )
        self.service = Service(wrap(self.host), self.store, SystemClock(), CATALOG, file_profiles=PROFILES)
        self.service.start()

    def restart(self, wrap: Callable[[Any], Any] = lambda host: host) -> None:
        """Stop the daemon and start another one on the same store and host."""
        self.service.stop()
        self.store.close()
        self.start(wrap)

    def close(self) -> None:
        self.service.stop()
        self.store.close()
        self.hypervisor.close()
        self._keep.close()

    # -- asking -----------------------------------------------------------------------------------

    def do(self, edit: Edit) -> dict[str, Any]:
        """Run an edit to its end; the operation."""
        operation = self.service.submit(edit, WHO)
        return self.service.wait(operation["id"], 30.0)

    def succeed(self, edit: Edit) -> dict[str, Any]:
        """Run an edit that has to succeed."""
        operation = self.do(edit)
        assert operation["state"] == "succeeded", operation["problem"]
        return operation

    def names(self, **where: Any) -> list[str]:
        """Names of the vGPUs with those fields."""
        return [
            row["name"]
            for row in self.service.vgpus()
            if all(row[key] == value for key, value in where.items())
        ]

    def kernel_vgpus(self) -> int:
        """How many vGPUs exist, as the kernel tells."""
        return len(self.host.observe().vgpus())

    def xml(self, domain: str) -> str:
        return self.service.domain_xml(domain, live=False)


@contextlib.contextmanager
def world(directory: Path, **options: Any) -> Iterator[World]:
    made = World(directory, **options)
    try:
        yield made
    finally:
        made.close()


class Gate:
    """Between a daemon and its host: holds steps until told, fails those told to fail."""

    def __init__(self, host: LocalHost) -> None:
        self._host = host
        self.open = threading.Event()
        self.reached = threading.Event()
        self.fail: Callable[[Any], Exception | None] = lambda _effect: None

    def run(self, effect: Any) -> None:
        self.reached.set()
        assert self.open.wait(20.0)
        error = self.fail(effect)
        if error is not None:
            raise error
        self._host.run(effect)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


def check_shape(resource: str, value: dict[str, Any]) -> None:
    """Every field of the surface, and no other; also of the objects within, where it names their keys."""
    fields = RESOURCES[resource].fields
    assert list(value) == [each.name for each in fields], resource
    for field in fields:
        keys = _keys_of(field)
        objects = value[field.name] if field.kind.startswith("[") else [value[field.name]]
        for each in filter(None, (objects or []) if keys else []):
            assert set(each) == keys, (resource, field.name)


def _keys_of(field: Field) -> set[str]:
    """Those that the field's text names behind its colon; what stands in brackets is about them."""
    if field.kind.strip("[]") != "object":
        return set()
    _, _, keys = re.sub(r" \(.*?\)", "", field.doc).rstrip(".").rpartition(": ")
    return set(keys.split(", ")) if ":" in field.doc else set()

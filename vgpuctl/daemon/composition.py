"""The one place that wires concrete adapters: a real host or a simulated one, store, libvirt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from vgpuctl.daemon.config import Config
from vgpuctl.daemon.libvirt_choice import choose_uri
from vgpuctl.model.catalog import Catalog
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.handles import VfioHandles
from vgpuctl.ports.host import Host, Simulator
from vgpuctl.ports.hypervisor import HypervisorPort
from vgpuctl.ports.kernel import Kernel
from vgpuctl.ports.nvml import Nvml
from vgpuctl.ports.store import Store

if TYPE_CHECKING:
    from vgpuctl.host.hook_desk import HookFiles

EARLIER_WRITES_S = 5.0
"""A write of an earlier daemon that takes longer hangs, and is not waited for."""

_log = structlog.get_logger("vgpuctl.daemon")


_OF_VGPUS: Final = frozenset({"mdev", "vfio", "vfio-dev"})
"""The subsystems of what comes and goes with a vGPU."""


class Wake(Protocol):
    """What is told that something happened on the host; `by_vgpu`: to a vGPU, and nothing else."""

    def __call__(self, *, by_vgpu: bool = False) -> None:
        """Tell it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a daemon is made of.  `closers` run in turn when it ends."""

    host: Host
    store: Store
    clock: Clock
    catalog: Catalog
    kernel: Kernel
    hypervisor: HypervisorPort | None
    simulator: Simulator | None
    libvirt_uri: str | None
    hooks: HookFiles | None
    closers: tuple[Callable[[], None], ...] = field(default=())

    def on_event(self, wake: Wake) -> None:
        """Call `wake` whenever the kernel or libvirt says that something happened."""
        if self.hypervisor is not None:
            self.hypervisor.subscribe(lambda _event: wake())
        threading.Thread(target=self._watch_kernel, args=(wake,), name="uevents", daemon=True).start()

    def _watch_kernel(self, wake: Wake) -> None:
        try:
            for event in self.kernel.uevents():
                wake(by_vgpu=event.subsystem in _OF_VGPUS)
        except OSError as error:
            _log.warning("no uevents; looking now and then instead", reason=str(error))

    def close(self) -> None:
        """Let go of everything; what cannot be closed is logged and left."""
        for closer in self.closers:
            try:
                closer()
            except Exception:  # noqa: BLE001 -- each part is let go of, whatever the one before did
                _log.exception("could not be closed")


@dataclass(frozen=True, slots=True)
class _Low:
    """The low ports, and what only a simulated host has."""

    kernel: Any
    nvml: Nvml
    handles: VfioHandles
    close: Callable[[], None]
    simulator: Simulator | None = None


def compose(config: Config) -> Parts:
    """Every part for `config`; raises VgpuctlError when one cannot be made."""
    from vgpuctl.host.clock import SystemClock  # noqa: PLC0415
    from vgpuctl.host.local import LocalHost  # noqa: PLC0415
    from vgpuctl.host.store.sqlite import SqliteStore  # noqa: PLC0415

    # The store first: a store that cannot be used must not leave anything else half made.
    store = SqliteStore(config.store_file)
    clock, catalog = SystemClock(), Catalog()
    low = _real(config.root) if config.simulate is None else _simulated(config.simulate, config.state_dir)
    uri = choose_uri(config.libvirt, simulated=low.simulator is not None, state_dir=config.state_dir)
    hypervisor = None if uri is None else _hypervisor(uri)
    host = LocalHost(
        kernel=low.kernel,
        nvml=low.nvml,
        handles=low.handles,
        hypervisor=hypervisor,
        catalog=catalog,
        clock=clock,
        simulated=low.simulator is not None,
    )
    closers = [low.close, *([hypervisor.close] if hypervisor is not None else []), store.close]
    return Parts(
        host=host,
        store=store,
        clock=clock,
        catalog=catalog,
        kernel=low.kernel,
        hypervisor=hypervisor,
        simulator=low.simulator,
        libvirt_uri=uri,
        hooks=_hooks(config, uri, hypervisor),
        closers=tuple(closers),
    )


def _hooks(config: Config, uri: str | None, hypervisor: HypervisorPort | None) -> HookFiles | None:
    """The desk of libvirt's hook; None where libvirt runs in our process, and calls none."""
    from vgpuctl.host.hook_desk import HookFiles  # noqa: PLC0415

    if hypervisor is None or uri is None or not uri.startswith("qemu") or "/system" not in uri:
        return None
    try:
        hooks = HookFiles(config.hook_dir, config.root)
    except OSError as error:
        _log.warning("libvirt's hook will find no daemon", reason=str(error))
        return None
    hypervisor.subscribe(hooks.hear)
    return hooks


def _real(root: Path) -> _Low:
    from vgpuctl.host.handles import ProcHandles  # noqa: PLC0415
    from vgpuctl.host.kernel import LocalKernel  # noqa: PLC0415
    from vgpuctl.host.nvml.adapter import HelperNvml, NullNvml  # noqa: PLC0415

    kernel = LocalKernel(root)
    if not kernel.wait_for_earlier_writes(EARLIER_WRITES_S):
        _log.warning("what an earlier daemon began to write is still in the kernel")
    # A copy of a host's files has no driver: NVML would tell of another machine.
    nvml: Nvml = HelperNvml() if root == Path("/") else NullNvml()

    def close() -> None:
        kernel.close()
        nvml.release()

    return _Low(kernel, nvml, ProcHandles(root), close)


def _hypervisor(uri: str) -> HypervisorPort:
    from vgpuctl.host.libvirt.connection import LibvirtHypervisor  # noqa: PLC0415

    # At boot libvirt begins after us: until the first restore is over, nothing may wait for it.
    return LibvirtHypervisor(uri, awaited=False)


def _simulated(cards: str, state_dir: Path) -> _Low:
    from vgpuctl.sim.host import SimHost  # noqa: PLC0415

    host = SimHost.launch(cards, socket=state_dir / "sim.sock", state=state_dir / "sim.json")
    return _Low(host.kernel, host.nvml, host.handles, host.close, host)

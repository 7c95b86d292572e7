"""The machine that we run on, with a card that somebody has named; it is left as it was found."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest

from tests.conformance.bench import Bench, identity, removal
from tests.conformance.holders import Holders
from vgpuctl.host.clock import SystemClock
from vgpuctl.host.handles import ProcHandles
from vgpuctl.host.kernel import LocalKernel
from vgpuctl.host.local import LocalHost
from vgpuctl.host.nvml.adapter import HelperNvml
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import Gpu, GpuState
from vgpuctl.model.step import CreateVgpu, Effect, SetVfs
from vgpuctl.sim.host import TEST_SEED
from vgpuctl.sim.spec import Spec, initial_state
from vgpuctl.sim.state import AS_USUAL

NVIDIA: Final = 0x10DE


class RealHosts:
    """One card of this machine, by its address; without one the first is looked at and nothing is changed."""

    def __init__(self, catalog: Catalog, address: str | None) -> None:
        self._catalog = catalog
        self._address = address
        self._kernel = CountedKernel()
        self._nvml = HelperNvml()
        self._handles = ProcHandles()
        self._host = RecordedHost(
            kernel=self._kernel,
            nvml=self._nvml,
            handles=self._handles,
            hypervisor=None,
            catalog=catalog,
            clock=SystemClock(),
        )
        self._holders = Holders()
        self._had_vfs = bool(self._gpu().vfs)
        if address is not None:
            self._refuse_unless_empty()

    def make(self, spec: Spec, *, vfs_timeout_s: float, any_model: bool) -> Bench:
        """This machine; skips the case that is about another one."""
        gpu = self._gpu()
        (card, *others) = spec.cards
        (board, *_) = initial_state(spec, self._catalog, TEST_SEED).boards
        if others or spec.disputed != AS_USUAL or spec.ready_delay_s or not spec.sriov_manage:
            pytest.skip("it is about a machine that this is not")
        model = self._catalog.find(gpu.device)
        if not any_model and (model is None or model.key != card.model):
            pytest.skip(f"it is about a {card.model}, and here is {gpu.model}")
        if (card.mig, card.mixed_size) != (gpu.mig is True, gpu.mixed_size is True):
            pytest.skip("it is about a card in another mode")
        if self._address is not None:
            if card.vfs and gpu.state is GpuState.VFS_OFF:
                self._host.run(SetVfs(gpu=identity(gpu), enabled=True))
                gpu = self._gpu()
            if not card.vfs and gpu.vfs:
                pytest.skip("its VFs are on")
        if gpu.framework not in (None, board.framework):
            pytest.skip(f"here the framework is {gpu.framework}")
        return RealBench(
            kernel=self._kernel,
            host=self._host,
            clock=SystemClock(),
            control=self._control,
            nvml=self._nvml,
            writes=lambda: self._kernel.writes,
            address=str(gpu.address),
        )

    def tidy(self) -> None:
        """Let go, and remove what the case has made, and nothing else."""
        self._holders.release_all()
        for step in self._host.created:
            self._host.run(removal(step))
        self._host.created.clear()

    def close(self) -> None:
        """VFs as they were found."""
        gpu = self._gpu()
        if self._address is not None and bool(gpu.vfs) is not self._had_vfs:
            self._host.run(SetVfs(gpu=identity(gpu), enabled=self._had_vfs))
        self._nvml.release()

    def _control(self, action: str, **arguments: Any) -> dict[str, Any]:
        """Hold and release; whatever else life does to a card, no test does to a real one."""
        match action:
            case "hold":
                return self._holders.hold(**arguments)
            case "release":
                return self._holders.release(**arguments)
        pytest.skip(f"no test does {action!r} to a real card")

    def _gpu(self) -> Gpu:
        gpus = [each for each in self._host.observe().gpus if each.device.vendor == NVIDIA]
        for gpu in gpus:
            if self._address in (None, str(gpu.address)):
                return gpu
        here = ", ".join(str(each.address) for each in gpus) or "none"
        pytest.exit(f"there is no NVIDIA GPU {self._address or ''} on this machine; there are: {here}", 4)

    def _refuse_unless_empty(self) -> None:
        """The mutating cases are for an empty card that nobody has open."""
        gpu = self._gpu()
        reasons = []
        if os.geteuid() != 0:
            reasons.append("this is not root")
        if gpu.vgpus:
            reasons.append(f"it carries {len(gpu.vgpus)} vGPUs")
        if gpu.state not in (GpuState.READY, GpuState.VFS_OFF):
            reasons.append(f"it is {gpu.state}")
        open_now = self._handles.holders()
        if isinstance(open_now, Unknown):
            reasons.append(f"who has it open is not known: {open_now.reason}")
        elif open_now:
            # Of all devices, not only of this card's: a machine in use is no place for these cases.
            pids = sorted({holder.pid for holders in open_now.values() for holder in holders})
            reasons.append(f"processes {', '.join(map(str, pids))} have {', '.join(sorted(open_now))} open")
        if reasons:
            pytest.exit(f"GPU {gpu.address} is not for these tests: {'; '.join(reasons)}", 4)


class RealBench(Bench):
    """A bench whose first GPU is the one that was named."""

    def __init__(self, *, address: str, **parts: Any) -> None:
        super().__init__(**parts)
        self._address = address

    def gpu(self, index: int = 0) -> Gpu:
        if index:
            pytest.skip("one card was named, and this wants two")
        return next(each for each in self.host.observe().gpus if str(each.address) == self._address)


class RecordedHost(LocalHost):
    """Remembers which vGPUs were made through it."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.created: list[CreateVgpu] = []

    def run(self, effect: Effect) -> None:
        super().run(effect)
        if isinstance(effect, CreateVgpu) and effect not in self.created:
            self.created.append(effect)


class CountedKernel(LocalKernel):
    """Counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, path: str, text: str) -> None:
        self.writes += 1
        super().write(path, text)

    def write_abandonable(self, path: str, text: str, timeout_s: float) -> None:
        self.writes += 1
        super().write_abandonable(path, text, timeout_s)

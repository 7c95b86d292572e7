"""Hosts in the rig: a real kernel with the simulated driver nvsim, under vgpuctl's own adapters."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.conformance import smi
from tests.conformance.bench import Bench
from tests.conformance.rig_controls import SRIOV_MANAGE, RigControls
from tests.rig.simulated import Nvsim
from vgpuctl.host.clock import SystemClock
from vgpuctl.host.handles import ProcHandles
from vgpuctl.host.kernel import LocalKernel
from vgpuctl.host.local import LocalHost
from vgpuctl.host.nvml.adapter import HelperNvml
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.pci import PciAddress
from vgpuctl.sim.host import TEST_SEED
from vgpuctl.sim.spec import Spec, initial_state
from vgpuctl.sim.state import Board

ANSWER_S: Final = 60.0
"""An emulated processor is some thirty times slower than one that the adapters' own deadlines are for."""
PARAMETERS: Final = Path("/sys/module/nvsim/parameters")
CHANGEABLE: Final = {"ready_delay_ms", "clear_held", "numvfs_errno", "creatable_header"}
MDEVS: Final = Path("/sys/bus/mdev/devices")
PCI: Final = Path("/sys/bus/pci/devices")
_BOUND: Final = "/sys/bus/pci/drivers/nvidia"


class RigHosts:
    """One set of cards at a time; the next case gets the same set when it is as it was when new.

    A parent that is not nvsim's (`mtty`, `mdpy`, `mbochs`) is the kernel's own sample driver.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._kernel = LocalKernel()
        self._nvml = HelperNvml()
        self._nvsim = Nvsim()
        self._loaded: tuple[str, dict[str, object]] | None = None
        self._cards: list[str] = []
        self._samples: list[str] = []
        self._controls: RigControls | None = None
        self._nvsim.unload()

    def make(self, spec: Spec, *, vfs_timeout_s: float, any_model: bool) -> Bench:
        """The cards of `spec`, at the addresses where the simulation puts them too."""
        boards = initial_state(spec, self._catalog, TEST_SEED).boards
        cards = [each for each in boards if isinstance(each.address, PciAddress)]
        parameters = parameters_of(spec)
        self._load(cards, parameters)
        self._samples = [str(each.address) for each in boards if each not in cards]
        for module in self._samples:
            run("modprobe", module)
        for each in cards:
            self._bring(each)
        self._cards = [str(each.address) for each in cards]
        if cards:
            self._nvsim.reset_writes()
        host = LocalHost(
            kernel=self._kernel,
            nvml=self._nvml,
            handles=ProcHandles(),
            hypervisor=None,
            catalog=self._catalog,
            clock=SystemClock(),
            gpu_timeout_s=ANSWER_S,
            nvml_timeout_s=ANSWER_S,
            vfs_timeout_s=vfs_timeout_s,
        )
        if not spec.sriov_manage:
            SRIOV_MANAGE.chmod(0o644)
        self._controls = RigControls(self._nvsim, self._nvml, host, parameters)
        return Bench(
            kernel=self._kernel,
            host=host,
            clock=SystemClock(),
            control=self._controls.control,
            nvml=self._nvml,
            writes=lambda: sum(self._nvsim.writes().values()),
        )

    def tidy(self) -> None:
        """Let go, heal, and remove every vGPU; cards that are not as new are taken out."""
        controls, self._controls = self._controls, None
        if controls is None:
            return
        controls.undo()
        if SRIOV_MANAGE.exists():
            SRIOV_MANAGE.chmod(0o755)
        remove_everything()
        for module in self._samples:
            run("modprobe", "-r", module)
        self._samples = []
        if controls.is_worn or not all(_are_filled(pf) for pf in self._cards):
            self._unload()

    def close(self) -> None:
        """Take out the cards."""
        self._unload()

    def _load(self, cards: list[Board], parameters: dict[str, object]) -> None:
        """Have these cards, and a driver with these parameters; most of them can be changed while it runs."""
        text = ",".join(f"{each.model}:{each.framework}@{each.address.bus:02x}" for each in cards)
        loaded, present = self._loaded or ("", {})
        changed = {name: value for name, value in parameters.items() if present.get(name) != value}
        if loaded == text and changed.keys() <= CHANGEABLE:
            for name, value in changed.items():
                (PARAMETERS / name).write_text(str(value))
        else:
            self._unload()
            if cards:
                self._nvsim.load(text, **parameters)
        self._loaded = (text, parameters) if cards else None

    def _bring(self, board: Board) -> None:
        """The modes and VFs that the case asked for."""
        address = str(board.address)
        model = self._catalog.keyed(board.model)
        if driver_of(address) != "nvidia":
            turn_vfs(address, on=False)
        if model.mig and smi.mig(address) != (board.mig, board.mig):
            turn_vfs(address, on=False)
            assert smi.set_mig(address, enabled=board.mig) == 0
        turn_vfs(address, on=board.vfs > 0)
        if board.mig:
            with smi.device(address) as gpu:
                smi.destroy_gis(gpu)
        elif model.mixed_size and smi.mixed_size(address) is not board.mixed_size:
            smi.set_mixed_size(address, enabled=board.mixed_size)

    def _unload(self) -> None:
        self._nvml.release()
        self._nvsim.unload()
        self._loaded = None


def parameters_of(spec: Spec) -> dict[str, object]:
    """The driver's parameters that make it behave as `spec` says (nvsim/README.md)."""
    told = spec.disputed
    return {
        "driver_version": spec.driver,
        "ready_delay_ms": int(spec.ready_delay_s * 1000),
        "clear_held": told.clear_held,
        "numvfs_errno": told.numvfs_errno,
        "placement_writable": int(told.placement_writable),
        "gi_writable": int(told.gi_writable),
        "creatable_header": int(told.creatable_header),
        "no_mdev_tree": int(not told.mdev_tree),
    }


def turn_vfs(pf: str, *, on: bool) -> None:
    """Bring a GPU's VFs into that state, whoever would do it."""
    numvfs = PCI / pf / "sriov_numvfs"
    if not numvfs.exists() or ((int(numvfs.read_text()) > 0) is on and driver_of(pf) == "nvidia"):
        return
    run(str(SRIOV_MANAGE), "-e" if on else "-d", pf)


def _are_filled(pf: str) -> bool:
    """Whether no VF still waits for its types: one that had to wait for an hour is for nobody else."""
    vfs = (PCI / pf).glob("virtfn*")
    return all((vf / "nvidia").is_dir() or _has_types(vf / "mdev_supported_types") for vf in vfs)


def _has_types(directory: Path) -> bool:
    return directory.is_dir() and not any(directory.glob("pci-*"))


def driver_of(pf: str) -> str:
    return (PCI / pf / "driver").resolve().name


def remove_everything() -> None:
    """No mdev, and no VF with a type."""
    for mdev in sorted(MDEVS.iterdir()) if MDEVS.exists() else ():
        quietly(lambda mdev=mdev: (mdev / "remove").write_text("1"))
    for file in types_of_vfs():
        if file.read_text().strip() != "0":
            quietly(lambda file=file: file.write_text("0"))


def types_of_vfs() -> Iterator[Path]:
    if Path(_BOUND).is_dir():
        yield from Path(_BOUND).glob("*:*/nvidia/current_vgpu_type")


def quietly(write: Callable[[], object]) -> None:
    """What a case left behind may refuse to go; the cards are then not as new, which `make` sees."""
    try:
        write()
    except OSError as error:
        os.write(2, f"not removed: {error}\n".encode())


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout

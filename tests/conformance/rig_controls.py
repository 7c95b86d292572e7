"""What life does to a host in the rig, by the names of `vgpuctl sim`: real processes, debugfs, NVML."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pynvml

from tests.conformance import smi
from tests.conformance.bench import PATIENCE_S, create_step, eventually
from tests.conformance.holders import Holders
from tests.rig.simulated import Nvsim
from vgpuctl.errors import Conflict
from vgpuctl.host.local import LocalHost
from vgpuctl.host.nvml.adapter import HelperNvml
from vgpuctl.model.gpu import FrameworkKind, Gpu

SRIOV_MANAGE: Final = Path("/usr/lib/nvidia/sriov-manage")
PAUSE: Final = Path("/run/sriov-manage.pause")
"""While it is there sriov-manage waits when the PF is on pci-pf-stub."""
PARKED: Final = Path("/sys/bus/pci/drivers/pci-pf-stub")
NVML_CONF: Final = Path("/run/nvsim/nvml.conf")
"""What a test wants of single calls of the simulated NVML (nvml/README.md)."""


class RigControls:
    """The controls of one case.  `is_worn`: its cards cannot be brought back, only put in anew."""

    def __init__(
        self, nvsim: Nvsim, nvml: HelperNvml, host: LocalHost, parameters: dict[str, object]
    ) -> None:
        self._nvsim = nvsim
        self._nvml = nvml
        self._host = host
        self._parameters = parameters
        self._is_slow = False
        self._holders = Holders()
        self._faults: list[str] = []
        self._interrupter: threading.Thread | None = None
        self.is_worn = False
        self._actions: dict[str, Callable[..., dict[str, Any]]] = {
            "fail": self._fail,
            "foreign": self._foreign,
            "heal": self._heal,
            "hold": self._holders.hold,
            "mig": self._mig,
            "mixed-size": self._mixed_size,
            "release": self._holders.release,
            "reload-driver": self._reload_driver,
            "remove-gpu": self._remove_gpu,
            "slow": self._slow,
            "swap-gpu": self._swap_gpu,
        }

    def control(self, action: str, **arguments: Any) -> dict[str, Any]:
        """Do it; KeyError for what cannot be done to a real kernel."""
        return self._actions[action](**arguments)

    def undo(self) -> None:
        """Let everybody go, and nothing fail."""
        self._holders.release_all()
        self._heal()

    def _fail(
        self, what: str, *, errno: str = "EIO", count: int = 1, gpu: str | None = None
    ) -> dict[str, Any]:
        match what:
            case "nvml":
                NVML_CONF.parent.mkdir(exist_ok=True)
                NVML_CONF.write_text(f"fail nvmlInitWithFlags {pynvml.NVML_ERROR_UNKNOWN}\n")
            case "sriov-manage":
                self._interrupter = threading.Thread(target=interrupt_sriov_manage, daemon=True)
                PAUSE.touch()
                self._interrupter.start()
            case "create":
                # One name for both frameworks, as `vgpuctl sim` has it; only one of them meets it.
                self._make_fail("create", errno, count, gpu)
                self._make_fail("type", errno, count, gpu)
            case "vgpu_params":
                self._make_fail("params", errno, count, gpu)
            case _:
                self._make_fail(what, errno, count, gpu)
        return {}

    def _make_fail(self, what: str, errno: str, count: int, gpu: str | None) -> None:
        self._faults.append(what)
        self._nvsim.fail(what, errno, count, gpu)

    def _heal(self) -> dict[str, Any]:
        for what in self._faults:
            self._nvsim.fail(what, count=0)
        self._faults.clear()
        if self._is_slow:
            self._nvsim.set("slow_ms", 0)
            self._is_slow = False
        NVML_CONF.unlink(missing_ok=True)
        PAUSE.unlink(missing_ok=True)
        if self._interrupter is not None:
            self._interrupter.join(PATIENCE_S)
            self._interrupter = None
        return {}

    def _slow(self, ms: int) -> dict[str, Any]:
        self._nvsim.set("slow_ms", ms)
        self._is_slow = True
        return {}

    def _reload_driver(self) -> dict[str, Any]:
        self._nvml.release()
        self._nvsim.unload_driver()
        self._nvsim.load_driver(**self._parameters)
        return {}

    def _remove_gpu(self, gpu: int | str) -> dict[str, Any]:
        address = self._address(gpu)
        self.is_worn = True
        self._nvml.release()
        self._nvsim.set("lost", 1, address)
        assert eventually(lambda: not Path(f"/sys/bus/pci/devices/{address}").exists())
        return {}

    def _swap_gpu(self, gpu: int | str) -> dict[str, Any]:
        address, uuid = self._address(gpu), f"GPU-{uuid4()}"
        self.is_worn = True
        self._nvml.release()
        self._nvsim.set("swap", uuid, address)
        information = Path(f"/proc/driver/nvidia/gpus/{address}/information")
        assert eventually(lambda: information.exists() and uuid in information.read_text())
        return {"uuid": uuid}

    def _mig(self, gpu: int | str, *, enabled: bool = True) -> dict[str, Any]:
        address = self._address(gpu)
        with _refused_as_conflict():
            status = smi.set_mig(address, enabled=enabled)
        return {"pending": status != pynvml.NVML_SUCCESS}

    def _mixed_size(self, gpu: int | str, *, enabled: bool = True) -> dict[str, Any]:
        with _refused_as_conflict():
            smi.set_mixed_size(self._address(gpu), enabled=enabled)
        return {}

    def _foreign(self, gpu: int | str, type: str) -> dict[str, Any]:  # noqa: A002  # the control's own word
        found = next(each for each in self._gpus() if gpu in (each.index, str(each.address)))
        step = create_step(found, type)
        device = Path(f"/sys/bus/pci/devices/{step.parent}")
        if step.framework is FrameworkKind.VENDOR_VFIO:
            (device / "nvidia/current_vgpu_type").write_text(str(step.type_id))
            return {"parent": str(step.parent), "uuid": None}
        (device / f"mdev_supported_types/nvidia-{step.type_id}/create").write_text(str(step.vgpu))
        return {"parent": str(step.parent), "uuid": str(step.vgpu)}

    def _address(self, gpu: int | str) -> str:
        return next(str(each.address) for each in self._gpus() if gpu in (each.index, str(each.address)))

    def _gpus(self) -> tuple[Gpu, ...]:
        return self._host.observe().gpus


def interrupt_sriov_manage() -> None:
    """Kill it when it waits half-way, with a PF on pci-pf-stub (guest/sriov-manage)."""
    if eventually(lambda: any(PARKED.glob("*:*")) or not PAUSE.exists()):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "comm").read_text() == "sriov-manage\n":
                    os.kill(int(process.name), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
    PAUSE.unlink(missing_ok=True)


@contextmanager
def _refused_as_conflict() -> Iterator[None]:
    """What NVML refuses is what `vgpuctl sim` calls a conflict."""
    try:
        yield
    except pynvml.NVMLError as error:
        raise Conflict(str(error)) from error

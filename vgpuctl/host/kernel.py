"""The kernel of the machine that we run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from vgpuctl.host.klog import log_from_now, read_log
from vgpuctl.host.sriov import SriovManage, usable_systemd_run
from vgpuctl.host.sysfs import RootedFiles
from vgpuctl.host.uevents import UeventSource
from vgpuctl.ports.kernel import CommandResult, KernelLogLine, Uevent

_SRIOV_MANAGE = "usr/lib/nvidia/sriov-manage"
_KMSG = "dev/kmsg"
_RUN = "run/vgpuctl/sriov"


class LocalKernel(RootedFiles):
    """The kernel whose sysfs, procfs and /dev stand under `root`; see ports.kernel.Kernel.

    Below another root than `/` (a tree of files) sriov-manage is never given to systemd.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        super().__init__(root)
        self._sriov = SriovManage(
            Path(self.locate(_SRIOV_MANAGE)),
            Path(self.locate(_RUN)),
            systemd_run=usable_systemd_run() if root == Path("/") else None,
        )
        self._uevents = UeventSource()

    def sriov_manage(self, address: str, *, enable: bool, timeout_s: float) -> CommandResult | None:
        """Run NVIDIA's sriov-manage for a PF; None where it is not installed."""
        return self._sriov.run(address, enable=enable, timeout_s=timeout_s)

    def log(self, since: int = 0) -> tuple[KernelLogLine, ...]:
        """The kernel's own messages with a sequence above `since`."""
        return read_log(self.locate(_KMSG), since)

    def log_from_now(self) -> AbstractContextManager[Callable[[], tuple[KernelLogLine, ...]]]:
        """What says, when called, the kernel's own messages since the block began."""
        return log_from_now(self.locate(_KMSG))

    def uevents(self) -> Iterator[Uevent]:
        """Uevents of GPUs, VFs, mdevs and drivers from now on; ends when closed."""
        return self._uevents.listen()

    def wait_for_earlier_writes(self, timeout_s: float) -> bool:
        """Wait for what a daemon that was killed has left writing; whether nothing is left of it."""
        return self._writers.wait_for_earlier(timeout_s)

    def close(self) -> None:
        """End the readers of uevents, and the processes that write."""
        self._uevents.close()
        self._writers.close()

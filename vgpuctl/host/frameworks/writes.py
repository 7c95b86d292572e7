"""Writes to a vGPU's files: what the kernel answered, why it refused, and whether it took."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from vgpuctl.errors import DeadlineExceeded, KernelRefused, ReadBackMismatch, UnsupportedHere
from vgpuctl.host.frameworks.parents import number_in
from vgpuctl.model.nvrm import NvrmRefusal, explain
from vgpuctl.ports.clock import Clock
from vgpuctl.ports.kernel import Kernel, KernelLogLine

READ_BACK_S: Final = 2.0
"""How long a written value may take to show: the driver fills its files after the write returned."""
RETRY_S: Final = 5.0
"""How long a create is repeated while the driver says that the GPU is not initialised (0x66)."""
WRITE_S: Final = 60.0
"""How long the driver may take over one write; a GPU that hangs keeps its writers for ever."""
_PAUSE_S: Final = 0.05

_MEANINGS: Final = {
    errno.EEXIST: "a device of that name exists already on this host",
    errno.EINVAL: "the kernel does not understand what was written",
    errno.EIO: "the driver refused",
    errno.ENODEV: "the parent is going away",
    errno.ENOENT: "there is no such file: the driver has not made it, or the device is gone",
    errno.ENOSPC: "the parent has no room left",
    errno.ENXIO: "there is no vGPU",
    errno.EPERM: "the driver does not allow it now: a type is set already, or a VM still uses the device",
    errno.EACCES: "not permitted; the daemon has to run as root",
    errno.EBUSY: "the device is in use",
}
_HINTS: Final = {
    errno.EIO: "`dmesg | grep NVRM` has the driver's own words; usual causes: another frame-buffer size on "
    "this GPU, MIG on without a GPU instance, or a VF in use",
    errno.ENODEV: "the driver was reloaded or sriov-manage runs; try again when the GPU is ready",
    errno.EBUSY: "stop the domain that uses it, gracefully",
    errno.EPERM: "stop the domain that uses it, gracefully; its teardown may outlive QEMU for minutes",
}


class Writer:
    """Writes one value, explains a refusal from the kernel log, and reads back."""

    def __init__(self, kernel: Kernel, clock: Clock) -> None:
        self._kernel = kernel
        self._clock = clock

    def write(self, path: str, text: str, doing: str) -> None:
        """One write; raises KernelRefused, which names the NVRM code where the log has one.

        `doing` completes "the kernel refused to ...".  A driver that is not initialised yet is asked
        again for a while.  Written from a process that can be left alone, for a thread of ours in D state
        would make the daemon unkillable; DeadlineExceeded when the driver does not return.
        """
        deadline = self._clock.monotonic_s() + RETRY_S
        while True:
            with self._listening() as said:
                try:
                    self._kernel.write_abandonable(path, text, WRITE_S)
                except TimeoutError as error:
                    raise DeadlineExceeded(
                        f"the driver has not returned from: {doing}",
                        hint="it may still happen; `dmesg` says whether the GPU hangs",
                        path=path,
                    ) from error
                except OSError as error:
                    refusal = explain(said())
                    is_over = self._clock.monotonic_s() >= deadline
                    if refusal is None or not refusal.is_transient or is_over:
                        raise refused(doing, path, error, refusal) from error
                else:
                    return
            self._clock.sleep(_PAUSE_S * 4)

    @contextmanager
    def _listening(self) -> Iterator[Callable[[], list[str]]]:
        """What says, when called, what has come into the kernel log; nothing where it cannot be read."""
        with ExitStack() as stack:
            lines: Callable[[], tuple[KernelLogLine, ...]] = tuple
            try:
                lines = stack.enter_context(self._kernel.log_from_now())
            except OSError:
                pass  # no right to read the log: a refusal is told without its code

            def said() -> list[str]:
                try:
                    return [line.text for line in lines()]
                except OSError:
                    return []

            yield said

    def until(self, holds: Callable[[], bool], within_s: float = READ_BACK_S) -> bool:
        """Whether `holds` comes true within `within_s`; OSErrors on the way count as not yet."""
        deadline = self._clock.monotonic_s() + within_s
        while True:
            try:
                if holds():
                    return True
            except OSError:
                pass  # not yet
            if self._clock.monotonic_s() >= deadline:
                return False
            self._clock.sleep(_PAUSE_S)

    def move(self, path: str, instance: int, what: str) -> None:
        """Move a vGPU that was just made to a GPU instance; where the driver refuses, its own choice stays.

        Only for a file that says it can be written: a try on one that cannot is a driver's undefined case.
        """
        if number_in(self._kernel, path) == instance:
            return
        with suppress(KernelRefused):
            self.write(path, str(instance), f"move {what} to GPU instance {instance}")
            self.until(lambda: number_in(self._kernel, path) == instance)

    def set_params(self, path: str, params: str, what: str) -> None:
        """Write `vgpu_params` as a whole and read it back; '' clears it, with a single space.

        One parameter cannot be taken away by itself, and an empty write reaches no driver.  The line ends
        as `echo` ends it, which is the only form that is documented [vGPU user guide 2.8.5].
        """
        try:
            present = self._kernel.read(path)
        except FileNotFoundError as error:
            if not params:
                return
            raise UnsupportedHere(
                f"{what} takes no parameters: there is no {path}",
                hint="leave `params` out for this GPU",
                path=path,
            ) from error
        except OSError as error:
            raise refused(f"show the parameters of {what}", path, error, None) from error
        if _pairs(present) == _pairs(params):
            return
        self.write(path, f"{params or ' '}\n", f"set the parameters of {what} to {params!r}")
        if not self.until(lambda: _pairs(self._kernel.read(path)) == _pairs(params)):
            shown = self._kernel.read(path)
            raise ReadBackMismatch(
                f"the parameters of {what} were set to {params!r} and read back as {shown!r}",
                path=path,
                wanted=params,
                shown=shown,
            )


def _pairs(text: str) -> list[str]:
    return sorted(part.strip() for part in text.split(",") if part.strip())


def refused(doing: str, path: str, error: OSError, refusal: NvrmRefusal | None) -> KernelRefused:
    """The error for a sysfs access that the kernel refused."""
    number = error.errno or errno.EIO
    name = errno.errorcode.get(number, str(number))
    meaning = refusal.meaning if refusal else _MEANINGS.get(number, error.strerror or "no reason given")
    facts: dict[str, object] = {"path": path, "errno": name}
    hint = _HINTS.get(number)
    if refusal is not None:
        facts["log"] = list(refusal.lines)
        if refusal.code is not None:
            facts["nvrm"] = f"0x{refusal.code:02x}"
            hint = None
    return KernelRefused(f"the kernel refused to {doing} ({name}): {meaning}", hint=hint, **facts)

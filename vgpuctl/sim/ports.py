"""The low ports over a simulated host."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from vgpuctl.model.fact import NOT_READ, Fact, Unknown
from vgpuctl.model.gpu import Holder
from vgpuctl.ports.kernel import CommandResult, KernelLogLine, Uevent
from vgpuctl.ports.nvml import (
    CutCompute,
    CutInstance,
    DestroyCompute,
    DestroyInstance,
    NvmlDone,
    NvmlHost,
    NvmlOrder,
    SetMode,
)
from vgpuctl.sim.mig import slices_of
from vgpuctl.sim.transport import Transport

_EVENTS_WAIT_S = 0.5


class SimKernel:
    """The Kernel port.  `operations` counts the calls by name."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._is_closed = threading.Event()
        self.operations: Counter[str] = Counter()
        self._newest_line = 0

    def read(self, path: str) -> str:
        """The text of a file, without the final newline."""
        text: str = self._call("read", path)
        return text

    def write(self, path: str, text: str) -> None:
        """Write `text` with one write; blocks where the kernel would."""
        self._call("write", path, text)

    def write_abandonable(self, path: str, text: str, timeout_s: float) -> None:
        """Like write; TimeoutError after `timeout_s`, and the write goes on by itself."""
        self._call("write", path, text, timeout_s=timeout_s)

    def replace(self, path: str, text: str) -> None:
        """Put a file of that text in the place of one that is there."""
        self._call("replace", path, text)

    def list(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted."""
        return tuple(self._call("list", path))

    def link(self, path: str) -> str:
        """The last component of what a symbolic link points to."""
        target: str = self._call("link", path)
        return target

    def resolve(self, path: str) -> str:
        """The real path, after following every link."""
        real: str = self._call("resolve", path)
        return real

    def exists(self, path: str) -> bool:
        """Whether something is there."""
        found: bool = self._call("exists", path)
        return found

    def is_writable(self, path: str) -> bool:
        """Whether a file has a write bit in its mode."""
        writable: bool = self._call("is_writable", path)
        return writable

    def sriov_manage(self, address: str, *, enable: bool, timeout_s: float) -> CommandResult | None:
        """Run sriov-manage for a PF; None where it is not installed."""
        result: CommandResult | None = self._call("sriov_manage", address, enable, timeout_s=timeout_s)
        return result

    def log(self, since: int = 0) -> tuple[KernelLogLine, ...]:
        """The kernel log's lines with a sequence above `since`."""
        lines: tuple[KernelLogLine, ...] = self._call("log", since)
        return lines

    @contextmanager
    def log_from_now(self) -> Iterator[Callable[[], tuple[KernelLogLine, ...]]]:
        """A block; what it gives says, when called, what came into the kernel log since it began."""
        lines = self.log(self._newest_line)
        newest = self._newest_line = max((each.sequence for each in lines), default=self._newest_line)
        yield lambda: self.log(newest)

    def uevents(self) -> Iterator[Uevent]:
        """Uevents from now on; ends when the kernel is closed."""
        last, _ = self._transport.events(None, 0)
        return self._uevents_after(last)

    def close(self) -> None:
        """End the iterators of uevents."""
        self._is_closed.set()

    def _uevents_after(self, last: int) -> Iterator[Uevent]:
        while not self._is_closed.is_set():
            last, events = self._transport.events(last, _EVENTS_WAIT_S)
            yield from events

    def _call(self, verb: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        self.operations[verb] += 1
        return self._transport.call(verb, *arguments, timeout_s=timeout_s)


class SimNvml:
    """The Nvml port."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def host(self, timeout_s: float, *, in_full: bool = False) -> Fact[NvmlHost]:
        """Everything in one call; Unknown when it fails or hangs."""
        try:
            found: Fact[NvmlHost] = self._transport.call("nvml", timeout_s=timeout_s)
        except TimeoutError:
            return Unknown(f"NVML did not answer within {timeout_s:g} s")
        except OSError as error:
            return Unknown(f"the simulated host does not answer: {error}")
        return found if in_full or isinstance(found, Unknown) else _as_asked(found)

    def order(self, order: NvmlOrder, timeout_s: float) -> Fact[NvmlDone]:
        """Change MIG; Unknown when it hangs."""
        gpu = str(order.gpu)
        match order:
            case SetMode(enabled=enabled):
                call: tuple[Any, ...] = ("mode", gpu, int(enabled))
            case CutInstance():
                call = ("create", gpu, order.profile_id, order.start, order.size)
            case DestroyInstance():
                call = ("destroy", gpu, order.instance)
            case CutCompute():
                call = ("create-compute", gpu, order.instance, slices_of(order.compute))
            case DestroyCompute():
                call = ("destroy-compute", gpu, order.instance, order.compute_id)
        try:
            done: NvmlDone = self._transport.call("nvml_order", *call, timeout_s=timeout_s)
        except TimeoutError:
            return Unknown(f"NVML did not answer within {timeout_s:g} s")
        except OSError as error:
            return Unknown(f"the simulated host does not answer: {error}")
        return done

    def release(self) -> None:
        """Nothing is kept open between calls."""


class SimHandles:
    """The VfioHandles port."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def holders(self) -> Fact[Mapping[str, tuple[Holder, ...]]]:
        """Every process that has a device node open."""
        try:
            found: Fact[Mapping[str, tuple[Holder, ...]]] = self._transport.call("holders")
        except OSError as error:
            return Unknown(f"the simulated host does not answer: {error}")
        return found


def _as_asked(answer: NvmlHost) -> NvmlHost:
    """An answer without what only a capture carries."""
    unasked: dict[str, Any] = dict.fromkeys(("virtualization_mode", "host_vgpu_mode", "active"), NOT_READ)
    return replace(answer, gpus=tuple(replace(gpu, **unasked) for gpu in answer.gpus))

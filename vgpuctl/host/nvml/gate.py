"""NVML that stays away while a GPU's functions are rearranged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.ports.nvml import Nvml, NvmlDone, NvmlHost, NvmlOrder

T = TypeVar("T")

_LAST_ANSWER_S: Final = 10.0
_OPEN_S: Final = 300.0
"""Several cards may turn their VFs one after the other, each for as long as sriov-manage takes."""
_STAYS_CLOSED: Final = Unknown(
    f"VFs were turned on or off for {_OPEN_S:g} s, and NVML is not asked meanwhile"
)


class NvmlGate:
    """The Nvml port over another one, with a gate that can be closed.

    To let go once is not enough: sriov-manage makes uevents, an observation follows them, and its NVML
    client would open the very GPU whose unbindLock is wanted (hardware.md 1.5.6).
    """

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._changed = threading.Condition()
        self._asking = 0
        self._closed = 0

    def host(self, timeout_s: float, *, in_full: bool = False) -> Fact[NvmlHost]:
        """Everything in one answer; Unknown while the gate is closed."""
        closed = Unknown("NVML is not asked while VFs are turned on or off")
        return self._ask(lambda: self._nvml.host(timeout_s, in_full=in_full), 0.0, closed)

    def order(self, order: NvmlOrder, timeout_s: float) -> Fact[NvmlDone]:
        """Change a GPU, once the gate is open; Unknown where it does not open in time."""
        return self._ask(lambda: self._nvml.order(order, timeout_s), _OPEN_S, _STAYS_CLOSED)

    def host_once_open(self, timeout_s: float) -> Fact[NvmlHost]:
        """Everything in one answer, for a step of one GPU while the VFs of another are turned."""
        return self._ask(lambda: self._nvml.host(timeout_s), _OPEN_S, _STAYS_CLOSED)

    def _ask(self, ask: Callable[[], Fact[T]], wait_s: float, closed: Unknown) -> Fact[T]:
        """The answer, asked for while the gate is open; `closed` where it does not open within that time."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._closed, wait_s):
                return closed
            self._asking += 1
        try:
            return ask()
        finally:
            with self._changed:
                self._asking -= 1
                self._changed.notify_all()

    def release(self) -> None:
        """Let go of every GPU."""
        self._nvml.release()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Let go of every GPU, and keep away from all until the block ends."""
        with self._changed:
            self._closed += 1
            self._changed.wait_for(lambda: not self._asking, _LAST_ANSWER_S)
        try:
            self._nvml.release()
            yield
        finally:
            with self._changed:
                self._closed -= 1
                self._changed.notify_all()

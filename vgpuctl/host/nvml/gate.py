"""NVML that stays away while a GPU's functions are rearranged."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.ports.nvml import Nvml, NvmlHost

_LAST_ANSWER_S: Final = 10.0


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

    def host(self, timeout_s: float) -> Fact[NvmlHost]:
        """Everything in one answer; Unknown while the gate is closed."""
        with self._changed:
            if self._closed:
                return Unknown("NVML is not asked while VFs are turned on or off")
            self._asking += 1
        try:
            return self._nvml.host(timeout_s)
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

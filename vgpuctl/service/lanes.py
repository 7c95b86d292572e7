"""Lanes: one thread per GPU and per domain, for as long as there is something to do."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

LINGER_S: Final = 10.0
"""How long the thread of a lane waits for the next step: a restore has many, one after the other."""


class Lanes:
    """Runs work, lane by lane in order.  A thread that hangs in its work hangs alone."""

    def __init__(self, linger_s: float = LINGER_S) -> None:
        self._linger_s = linger_s
        self._lock = threading.Lock()
        self._waiting: dict[str, queue.SimpleQueue[Callable[[], None]]] = {}

    def run(self, lane: str, work: Callable[[], None]) -> None:
        """Have `work`, which does not raise, done after what that lane was given before."""
        with self._lock:
            waiting = self._waiting.get(lane)
            is_new = waiting is None
            if waiting is None:
                waiting = self._waiting[lane] = queue.SimpleQueue()
            waiting.put(work)
        if is_new:
            threading.Thread(target=self._work, args=(lane, waiting), name=lane, daemon=True).start()

    def _work(self, lane: str, waiting: queue.SimpleQueue[Callable[[], None]]) -> None:
        while True:
            try:
                work = waiting.get(timeout=self._linger_s)
            except queue.Empty:
                with self._lock:
                    if waiting.empty():
                        del self._waiting[lane]
                        return
            else:
                work()

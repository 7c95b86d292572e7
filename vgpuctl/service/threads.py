"""The threads on which steps and looks at the host run."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

LINGER_S: Final = 10.0
"""How long a thread waits for more: a restore has many steps, one after the other."""

_Waiting = queue.SimpleQueue[Callable[[], None]]


class Threads:
    """Runs each work at once, on a thread that has nothing to do, else on a new one.

    Nothing ever waits for a thread that hangs.  Who must not run beside whom is the engine's business.
    """

    def __init__(self, linger_s: float = LINGER_S) -> None:
        self._linger_s = linger_s
        self._lock = threading.Lock()
        self._idle: list[_Waiting] = []

    def run(self, name: str, work: Callable[[], None]) -> None:
        """Have `work`, which does not raise, done; `name` is what a new thread is called."""
        with self._lock:
            waiting = self._idle.pop() if self._idle else None
        if waiting is None:
            waiting = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(waiting,), name=name, daemon=True).start()
        waiting.put(work)

    def _work(self, waiting: _Waiting) -> None:
        while True:
            try:
                work = waiting.get(timeout=self._linger_s)
            except queue.Empty:
                with self._lock:
                    if waiting in self._idle:
                        self._idle.remove(waiting)
                        return
                continue  # somebody has just chosen this thread
            work()
            with self._lock:
                self._idle.append(waiting)

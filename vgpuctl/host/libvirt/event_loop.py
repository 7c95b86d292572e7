"""libvirt's event loop: one a process, started once, before the first connection.

Without it there are no events and no keepalive.  A callback runs in its thread and must not call
libvirt: it would wait for an answer that only this thread can read.
"""

from __future__ import annotations

import threading
import time

import libvirt

_lock = threading.Lock()
_started = False


def ensure_running() -> None:
    """Start the loop's thread, unless it runs."""
    global _started  # noqa: PLW0603 - libvirt takes one event loop a process
    with _lock:
        if _started:
            return
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run, name="libvirt-events", daemon=True).start()
        _started = True


def _run() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            time.sleep(0.1)

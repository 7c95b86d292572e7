"""For every test."""

from __future__ import annotations

import signal

pytest_plugins = ["tests.rig.plugin", "pytester"]


def pytest_configure() -> None:
    # A shell without job control starts what runs in the background with SIGINT ignored, children too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

"""Signals reach the daemon whichever of its threads the kernel gives them to."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

TAKEN_BY_ANOTHER_THREAD = """
import os, signal, threading, time
from vgpuctl.daemon.main import Signals

signals = Signals()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIG{name}])
os.kill(os.getpid(), signal.SIG{name})
print(signals.next())
"""
TOLD_TWICE = """
import os, signal, time
from vgpuctl.daemon.main import Signals

signals = Signals()
for number in (signal.SIGHUP, signal.SIGTERM):
    os.kill(os.getpid(), number)
    assert signals.next() == number
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def ended(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.parametrize("name", ["TERM", "HUP"])
def test_a_signal_that_another_thread_gets_is_heard(name: str) -> None:
    done = ended(TAKEN_BY_ANOTHER_THREAD.format(name=name))
    assert (done.returncode, done.stdout) == (0, f"{int(getattr(signal, f'SIG{name}'))}\n"), done.stderr


def test_told_twice_it_ends_at_once() -> None:
    assert ended(TOLD_TWICE).returncode == 128 + signal.SIGTERM

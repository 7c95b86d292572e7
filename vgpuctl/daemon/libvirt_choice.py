"""Which libvirt the daemon talks to."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

SYSTEM_URI = "qemu:///system"
TEST_URI = "test:///default"
PROBE_S = 10.0

_log = structlog.get_logger("vgpuctl.libvirt")
_PROBE = """
import sys, libvirt
libvirt.registerErrorHandler(lambda *_: None, None)
libvirt.virEventRegisterDefaultImpl()
libvirt.open(sys.argv[1]).getLibVersion()
"""


def answers(uri: str) -> bool:
    """Whether that libvirt lets itself be opened soon.

    Asked in a process of its own: `libvirt.open` on a mute socket never returns, and an embedded
    driver first tries out QEMU, which takes a minute where /dev/kvm cannot run a guest.
    """
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE, uri],
            check=False,
            timeout=PROBE_S,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (subprocess.TimeoutExpired, OSError):
        return False
    return ended.returncode == 0


def choose_uri(
    given: str | None,
    *,
    simulated: bool,
    state_dir: Path,
    probe: Callable[[str], bool] = answers,
) -> str | None:
    """The URI to connect to; None when there is no libvirt at all.

    A real host's libvirt may come up after us: it is not asked now, the connection waits for it.
    Beside a simulated host stands libvirt's QEMU driver in our own process, whose definitions stay on
    disk, else libvirt's test driver: real domains must not get simulated devices unless somebody says so.
    """
    if importlib.util.find_spec("libvirt") is None:
        _log.warning("running without libvirt", reason="libvirt-python is not installed")
        return None
    if given is not None:
        return given
    if not simulated:
        return SYSTEM_URI
    embedded = f"qemu:///embed?root={state_dir / 'libvirt'}"
    return next((uri for uri in (embedded, TEST_URI) if probe(uri)), None)

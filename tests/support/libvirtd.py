"""A private libvirtd with real QEMU guests, and the same driver in a process of its own.

Import the fixtures in a conftest: `from tests.support.libvirtd import libvirtd`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from vgpuctl.host.libvirt.example_domain import example_domain

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


def wait_until(is_so: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Wait for something that is about to happen; the test fails when it does not."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            pytest.fail(f"did not happen within {timeout_s:g} s: {what}")
        time.sleep(0.02)


@dataclass(frozen=True)
class Libvirtd:
    """A libvirtd of our own: its state is below `directory`, guests are emulated."""

    directory: Path
    uri: str

    @property
    def pid(self) -> int:
        return int((self.directory / "pid").read_text())

    def start(self) -> None:
        start_libvirtd(self.directory)

    def stop(self) -> None:
        """End libvirtd; its guests go on."""
        pid = self.pid
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not _is_running(pid), "libvirtd ends", 30)

    def freeze(self) -> None:
        """Make it mute: the socket takes connections and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def virsh(self, *arguments: str, text: str | None = None) -> str:
        """What virsh prints; `text` is its standard input."""
        done = subprocess.run(
            ["virsh", "--quiet", "--connect", self.uri, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"virsh {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def define(self, xml: str) -> None:
        self.virsh("define", "/dev/stdin", text=xml)

    def wipe(self) -> None:
        """Back to no domains at all."""
        for name in self.virsh("list", "--name", "--state-running", "--state-paused").split():
            self.virsh("destroy", name)
        for name in self.virsh("list", "--name", "--all").split():
            self.virsh("undefine", name, "--managed-save")


def start_libvirtd(directory: Path) -> str:
    """Run scripts/libvirtd-for-tests; the URI."""
    done = subprocess.run(
        [SCRIPTS / "libvirtd-for-tests", directory], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout.strip()


def missing_for_libvirtd() -> str | None:
    """Why there can be no libvirtd here; None when there can."""
    if os.geteuid() != 0:
        return "a libvirtd with qemu:///system needs root"
    programs = ("libvirtd", "virsh", "qemu-system-x86_64", "unshare", "setsid")
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (see scripts/libvirtd-for-tests)"
    probe = subprocess.run([SCRIPTS / "without-kvm", "true"], capture_output=True, text=True, check=False)
    return f"no mount namespace can be made here: {probe.stderr}" if probe.returncode else None


def require(missing: str | None) -> None:
    """Skip where something is missing; under CI nothing may be missing."""
    if missing is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def libvirtd_session() -> Iterator[Libvirtd]:
    require(missing_for_libvirtd())
    # Not pytest's directory: the path of a socket has at most 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="vgpuctl-libvirtd-"))
    daemon = Libvirtd(directory, start_libvirtd(directory))
    try:
        yield daemon
    finally:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            daemon.wipe()
        with contextlib.suppress(OSError):
            os.kill(daemon.pid, signal.SIGTERM)
            wait_until(lambda: not (directory / "pid").exists(), "libvirtd ends", 30)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def libvirtd(libvirtd_session: Libvirtd) -> Iterator[Libvirtd]:
    """A running libvirtd without domains; the test may freeze, stop and start it."""
    yield libvirtd_session
    if not (libvirtd_session.directory / "pid").exists():
        libvirtd_session.start()
    libvirtd_session.thaw()
    libvirtd_session.wipe()


def tiny_domain(name: str) -> str:
    """A domain that starts in a second or two: no disk, no OS, little memory."""
    xml = example_domain("linux", name, kind="qemu", memory_mib=64)
    start, end = xml.index("<disk "), xml.index("</disk>") + len("</disk>")
    return xml[:start] + xml[end:]


def run_without_kvm(code: str, *arguments: str) -> str:
    """Run Python in a process that sees no /dev/kvm, for qemu:///embed, whose driver runs in the process."""
    require(missing_for_libvirtd())
    done = subprocess.run(
        [SCRIPTS / "without-kvm", sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

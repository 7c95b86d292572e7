"""A real libvirtd that calls the hook when it starts guests (emulated), a real daemon on simulated cards.

No guest can start on a simulated device: what a start comes to is seen from libvirt's own refusal, which
comes after the hook's.  Guests that really start with a vGPU are in the rig.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.daemon import Daemon
from tests.support.hook import domain, install, mdev_hostdev
from tests.support.libvirtd import Libvirtd, missing_for_libvirtd, require, start_libvirtd, wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow]

CARDS = "t4:mdev,t4:mdev"
BLOCKER = """#!/bin/sh
[ "$1 $2" = "slow prepare" ] || exit 0
touch /run/waits
read -r word </run/go
"""
RECORDER = """#!/bin/sh
echo "$@" >>/run/calls
"""


class Host:
    """A libvirtd with hooks, and a daemon whose socket is where the hook looks for it."""

    def __init__(self, directory: Path, state: Path) -> None:
        self.directory = directory
        self.hook = install(directory / "etc/hooks/qemu.d/vgpuctl", PREPARE_S=6.0, ANSWER_S=3.0)
        recorder = directory / "etc/hooks/qemu.d/00-recorder"
        recorder.write_text(RECORDER)
        recorder.chmod(0o755)
        self.libvirtd = Libvirtd(directory, start_libvirtd(directory))
        self.daemon = Daemon(state, cards=CARDS, libvirt=self.libvirtd.uri)
        self.daemon.socket = directory / "run/vgpuctl/vgpuctl.sock"
        self.daemon.env["VGPUCTL_HOST"] = f"unix://{self.daemon.socket}"

    def calls(self) -> list[str]:
        recorded = self.directory / "run/calls"
        return recorded.read_text().splitlines() if recorded.exists() else []

    def forget(self) -> None:
        (self.directory / "run/calls").unlink(missing_ok=True)

    def start(self, name: str) -> str:
        """What stands against a domain's start, '' for nothing."""
        done = subprocess.run(
            ["virsh", "--quiet", "--connect", self.libvirtd.uri, "start", name],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stderr if done.returncode else ""

    def told(self, vgpu: str) -> list[str]:
        """What the log tells of a vGPU, oldest first."""
        return [each["summary"] for each in self.daemon.json("events") if each["subject"] == vgpu]

    def wait_for_end_of_hold(self, vgpu: str, starts: int) -> None:
        wait_until(lambda: sum("is held by" in each for each in self.told(vgpu)) == starts, "the hold")
        wait_until(lambda: not self.is_held(vgpu), "the end of the hold")

    def is_held(self, vgpu: str) -> bool:
        """Whether that was told last of its place; that some drift is over may be told after it."""
        places = [each for each in self.told(vgpu) if re.search("is held by|has its place on", each)]
        return "is held by" in places[-1]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    require(missing_for_libvirtd())
    # Not pytest's directory: the path of a socket has at most 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="vgpuctl-libvirtd-"))
    state = Path(tempfile.mkdtemp(prefix="vgpuctl-state-"))
    found = Host(directory, state)
    try:
        found.daemon.start()
        yield found
    finally:
        found.daemon.close()
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            found.libvirtd.wipe()
        with contextlib.suppress(OSError):
            os.kill(found.libvirtd.pid, signal.SIGTERM)
            wait_until(lambda: not (directory / "pid").exists(), "libvirtd ends", 30)
        for each in (directory, state):
            shutil.rmtree(each, ignore_errors=True)


@pytest.fixture(autouse=True)
def fresh(host: Host) -> Iterator[None]:
    """Everything runs, no domain is there, nothing was called."""
    process = host.daemon.process
    if process is None or process.poll() is not None:
        host.daemon.start()
    host.forget()
    yield
    if host.daemon.process is not None and host.daemon.process.poll() is None:
        host.daemon.process.send_signal(signal.SIGCONT)
    host.libvirtd.wipe()


def desktop(host: Host, name: str) -> dict[str, Any]:
    """A domain with a vGPU of ours; the vGPU."""
    host.libvirtd.define(domain(name, uuid4()))
    host.daemon.ok("attach", name, "--type", "T4-8Q")
    found: dict[str, Any] = host.daemon.json("vgpu", "show", name)
    return found


def forget_desktop(host: Host, name: str) -> None:
    host.daemon.ok("detach", name, "--yes")


OF_LIBVIRT = "vfio"
"""A word of libvirt's own refusal: this machine has no VFIO, and libvirt sees no simulated mdev."""


def test_a_guest_without_our_vgpus_never_notices(host: Host):
    """hardware.md T4: every operation that libvirt calls, the daemon up and down, libvirtd restarted."""
    host.libvirtd.define(domain("plain", uuid4()))
    assert host.start("plain") == ""
    assert host.daemon.json("host", "show")["hook"] == "live"
    host.daemon.kill()
    host.libvirtd.stop()
    host.libvirtd.start()
    wait_until(lambda: "plain reconnect begin -" in host.calls(), "the reconnect hook")
    assert host.libvirtd.virsh("domstate", "plain").strip() == "running"
    host.libvirtd.virsh("managedsave", "plain")
    assert host.start("plain") == ""
    host.libvirtd.virsh("destroy", "plain")
    operations = {tuple(each.split()[1:3]) for each in host.calls()}
    assert operations == {
        ("prepare", "begin"),
        ("start", "begin"),
        ("started", "begin"),
        ("reconnect", "begin"),
        ("restore", "begin"),
        ("stopped", "end"),
        ("release", "end"),
    }


def test_whether_the_hook_is_live_is_known_only_of_this_libvirtd(host: Host):
    host.libvirtd.define(domain("plain", uuid4()))
    host.start("plain")
    assert host.daemon.json("host", "show")["hook"] == "live"
    host.libvirtd.stop()
    host.libvirtd.start()
    wait_until(lambda: host.daemon.json("host", "show")["libvirt_uri"], "libvirt again")
    host.libvirtd.virsh("destroy", "plain")
    wait_until(lambda: host.daemon.json("host", "show")["hook"] == "live", "the hook's nonce")


def test_a_desktop_whose_vgpu_is_there(host: Host):
    desktop(host, "seat-1")
    why = host.start("seat-1")
    assert OF_LIBVIRT in why.lower()
    assert "vgpuctl:" not in why
    called = [each.split()[1] for each in host.calls()]
    assert (called[0], called[-1]) == ("prepare", "release")
    host.wait_for_end_of_hold("seat-1", 1)
    forget_desktop(host, "seat-1")


def test_a_desktop_whose_vgpu_was_lost_gets_it_again(host: Host):
    vgpu = desktop(host, "seat-2")
    host.daemon.ok("pause")
    host.daemon.ok("sim", "reboot")
    why = host.start("seat-2")
    host.daemon.ok("resume")
    assert "vgpuctl:" not in why, why
    assert "start" in [each["kind"] for each in host.daemon.json("operation", "list")]
    assert host.daemon.json("vgpu", "show", "seat-2")["mdev_uuid"] == vgpu["uuid"]
    host.wait_for_end_of_hold("seat-2", 1)
    forget_desktop(host, "seat-2")


def test_a_refusal_is_what_virsh_shows(host: Host):
    stranger = uuid4()
    host.libvirtd.define(domain("stranger", uuid4(), mdev_hostdev(stranger)))
    why = host.start("stranger")
    assert f"vgpuctl: its XML names vGPU {stranger}, of which vgpuctl knows nothing" in why
    assert host.libvirtd.virsh("domstate", "stranger").strip() == "shut off"
    assert [each.split()[1] for each in host.calls()] == ["prepare", "stopped", "release"]


def test_no_daemon_and_no_vgpu(host: Host):
    desktop(host, "seat-3")
    host.daemon.kill()
    assert "vgpuctl: its daemon does not run" in host.start("seat-3")
    assert host.libvirtd.virsh("domstate", "seat-3").strip() == "shut off"
    host.daemon.start()
    assert "vgpuctl:" not in host.start("seat-3")
    host.wait_for_end_of_hold("seat-3", 1)
    forget_desktop(host, "seat-3")


def test_a_daemon_that_hangs_and_one_that_is_killed_in_the_middle(host: Host):
    desktop(host, "seat-4")
    process = host.daemon.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    assert "vgpuctl: its daemon does not run" in host.start("seat-4"), "after its own deadline"

    answers: list[str] = []
    starting = threading.Thread(target=lambda: answers.append(host.start("seat-4")))
    host.forget()
    starting.start()
    wait_until(lambda: any("prepare begin" in each for each in host.calls()), "the hook is called")
    host.daemon.kill()
    starting.join(30)
    assert "vgpuctl:" in answers[0]
    host.daemon.start()
    assert "vgpuctl:" not in host.start("seat-4")
    wait_until(lambda: not host.is_held("seat-4"), "the end of the hold")
    forget_desktop(host, "seat-4")


def test_libvirt_is_mute_while_a_hook_waits_and_starts_go_on(host: Host):
    """hardware.md T4, T15: whoever lists domains waits for the hook; a start waits for nobody who does.

    Shown by ordering: another hook keeps one domain locked, so that nobody gets a list of domains.
    Meanwhile a desktop whose vGPU was lost gets it, and its answer.
    """
    vgpu = desktop(host, "seat-5")
    blocker = host.directory / "etc/hooks/qemu.d/01-blocker"
    blocker.write_text(BLOCKER)
    blocker.chmod(0o755)
    go = host.directory / "run/go"
    os.mkfifo(go)
    host.libvirtd.define(domain("slow", uuid4()))
    host.daemon.ok("pause")
    host.daemon.ok("sim", "reboot")
    starting = threading.Thread(target=host.start, args=("slow",))
    listing = threading.Thread(target=host.libvirtd.virsh, args=("list", "--all"))
    try:
        starting.start()
        wait_until((host.directory / "run/waits").exists, "the other hook waits")
        listing.start()
        assert "vgpuctl:" not in host.start("seat-5")
        assert starting.is_alive()
        assert listing.is_alive(), "libvirt answers nobody"
    finally:
        go.write_text("go")
        starting.join(30)
        listing.join(30)
        blocker.unlink()
    host.daemon.ok("resume")
    assert host.daemon.json("vgpu", "show", "seat-5")["mdev_uuid"] == vgpu["uuid"]
    forget_desktop(host, "seat-5")

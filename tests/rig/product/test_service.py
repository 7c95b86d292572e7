"""vgpuctl.service as systemd runs it: what it may do, what it outlives, what it brings back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig.desktops import (
    T4,
    TYPES,
    Host,
    get,
    kill_daemon,
    main_pid,
    run,
    shown,
    type_in_kernel,
    until,
    vgpu,
    vgpuctl,
    vgpus,
)

pytestmark = pytest.mark.rig

CONFIGURATION = Path("/etc/vgpuctl/vgpuctl.toml")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """One desktop of each framework, running."""
    with Host() as made:
        for framework, vgpu_type in TYPES.items():
            made.define(framework)
            vgpuctl("attach", framework, "--type", vgpu_type)
            made.start(framework)
        yield made


def state() -> list[dict[str, Any]]:
    """What vgpuctl says of every vGPU and of who holds it."""
    return [
        {key: row[key] for key in ("name", "uuid", "vf", "state", "attached", "holders", "problem")}
        for row in vgpus()
    ]


def told_by_systemd(*properties: str) -> dict[str, str]:
    """What systemd says of the service."""
    words = [part for name in properties for part in ("-p", name)]
    lines = run("systemctl", "show", "vgpuctl.service", *words).splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_the_units_are_sound(host: Host) -> None:
    del host
    run("systemd-analyze", "verify", "--man=no", "vgpuctl.service", "vgpuctl.socket", "vgpuctl-ready.target")
    assert told_by_systemd("Type", "WatchdogUSec", "NRestarts") == {
        "Type": "notify",
        "WatchdogUSec": "30s",
        "NRestarts": "0",
    }
    status = Path(f"/proc/{main_pid()}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    # what the sandbox must leave: the kernel log, the holders (above, in every test), VFs, uevents, NVML
    assert get("host")["unknown"] == {}
    assert [each["vfs_enabled"] > 0 for each in get("gpus")] == [False, True, True]


def test_a_killed_daemon_comes_back_and_nothing_has_changed(host: Host) -> None:
    before, writes = state(), host.nvsim.writes()
    kill_daemon()
    assert told_by_systemd("NRestarts", "Result") == {"NRestarts": "1", "Result": "success"}
    until(lambda: state() == before, "the same state")
    assert host.nvsim.writes() == writes
    assert all(host.libvirt.lookupByName(each).isActive() for each in TYPES)


@pytest.mark.thorough
def test_a_stopped_process_is_started_anew_by_the_watchdog(host: Host) -> None:
    before, writes, pid = state(), host.nvsim.writes(), main_pid()
    os.kill(pid, signal.SIGSTOP)
    until(lambda: main_pid() not in (0, pid), "the watchdog")
    until(lambda: told_by_systemd("ActiveState")["ActiveState"] == "active", "being ready")
    until(lambda: state() == before, "the same state")
    assert host.nvsim.writes() == writes


def test_a_bad_configuration_is_not_taken_at_a_reload(host: Host) -> None:
    del host
    pid = main_pid()
    CONFIGURATION.parent.mkdir(exist_ok=True)
    CONFIGURATION.write_text("repair = 'sometimes'\n")
    try:
        run("systemctl", "reload", "vgpuctl.service")
        log = ("journalctl", "-u", "vgpuctl.service", "-n", "50", "--output=cat", "--no-pager")
        until(lambda: "the old one stays" in run(*log), "the refusal in the log")
        assert (main_pid(), get("host")["repair"]) == (pid, "auto")
        CONFIGURATION.write_text("repair = 'ask'\n")
        run("systemctl", "reload", "vgpuctl.service")
        until(lambda: get("host")["repair"] == "ask", "the new policy")
    finally:
        CONFIGURATION.unlink()
        run("systemctl", "reload", "vgpuctl.service")
    until(lambda: get("host")["repair"] == "auto", "the old policy")
    assert main_pid() == pid


def test_whoever_calls_starts_it_and_is_known(host: Host) -> None:
    """Its socket is systemd's; who asks is seen by the kernel's credentials all the same."""
    del host
    run("systemctl", "stop", "vgpuctl.service")
    assert len(get("vgpus")) == len(TYPES)
    assert main_pid() != 0
    reader = ("setpriv", "--reuid=nobody", "--regid=vgpuctl-ro", "--clear-groups", "vgpuctl")
    assert "sriov-mdev" in run(*reader, "vgpu", "list")
    run(*reader, "vgpu", "create", "--type", TYPES["mdev"], status=6)
    stranger = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "vgpuctl")
    run(*stranger, "vgpu", "list", status=6)
    assert len(get("vgpus")) == len(TYPES)


def test_a_daemon_killed_in_the_middle_of_a_write_takes_it_up(host: Host) -> None:
    host.nvsim.set("slow_ms", 4000)
    operation = vgpuctl("vgpu", "create", "--type", TYPES["vendor-vfio"], "--name", "cut", "--no-wait")["id"]
    until(lambda: "running" in [each["state"] for each in get(f"operations/{operation}")["steps"]])
    kill_daemon()
    ended = vgpuctl("operation", "wait", operation)
    host.nvsim.set("slow_ms", 0)
    assert ended["state"] == "succeeded"
    assert type_in_kernel(vgpu("cut")) is not None
    vgpuctl("vgpu", "delete", "cut")
    assert len(vgpus()) == len(TYPES)


def test_libvirtd_may_be_restarted_under_it(host: Host) -> None:
    before, pid = state(), main_pid()
    run("systemctl", "restart", "libvirtd.service")
    until(lambda: get("host")["libvirt_uri"], "the new connection")
    until(lambda: state() == before, "the same state")
    assert main_pid() == pid
    host.connect()
    host.define("later")
    vgpuctl("attach", "later", "--type", TYPES["mdev"])
    vgpuctl("detach", "later")
    host.libvirt.lookupByName("later").undefine()


def test_a_write_that_hangs_in_the_driver_holds_up_no_restart(host: Host) -> None:
    """hardware.md 1.6.1: the process that writes cannot be killed; it is left behind."""
    before = state()
    host.nvsim.set("hang", f"create {T4}")
    try:
        operation = vgpuctl("vgpu", "create", "--type", TYPES["mdev"], "--name", "stuck", "--no-wait")["id"]
        until(lambda: re.search(r"^D.*writer", run("ps", "-ewwo", "stat,args"), re.MULTILINE), "the hang")
        kill_daemon()
        vgpuctl("vgpu", "create", "--type", TYPES["vendor-vfio"], "--name", "other")
        shown("other", state="present")
        vgpuctl("vgpu", "delete", "other")
    finally:
        host.nvsim.set("hang", "none")
    ended = vgpuctl("operation", "wait", operation)
    assert ended["state"] == "succeeded"
    vgpuctl("vgpu", "delete", "stuck")
    until(lambda: state() == before, "the same state")


def test_a_driver_reload_brings_everything_back(host: Host) -> None:
    """What needs sriov-manage comes back when somebody asks (docs/adr/0005), and that is said."""
    with pytest.raises(subprocess.CalledProcessError):
        host.nvsim.unload_driver()
    before = {row["name"]: row["uuid"] for row in vgpus()}
    assert all(host.libvirt.lookupByName(each).isActive() for each in TYPES)
    for each in TYPES:
        host.stop(each)
    host.nvsim.unload_driver_once_free()
    until(lambda: not vgpus(state="present"), "the loss")
    host.nvsim.load_driver()
    shown("mdev", state="present")
    for each in ("sriov-mdev", "vendor-vfio"):
        problem = until(lambda each=each: vgpu(each)["problem"], "the reason why it is not there")
        assert (vgpu(each)["state"], problem["code"]) == ("absent", "not-restored")
        assert "vgpuctl repair" in problem["hint"]
        vgpuctl("repair", each, "--yes")
    until(lambda: {row["name"]: row["uuid"] for row in vgpus(state="present")} == before, "all of them")
    for each in TYPES:
        pid = host.start(each)
        shown(each, holders=[{"pid": pid, "command": "qemu-system-x86", "domain": each}])

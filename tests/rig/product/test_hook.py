"""The hook under a real libvirtd, with guests that really start on the vGPUs: their starts and every end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import libvirt
import pytest

from tests.rig.desktops import (
    MDEVS,
    PCI,
    TYPES,
    Host,
    alias_of,
    get,
    held_by,
    hostdev_xml,
    qemu_pid,
    run,
    type_in_kernel,
    until,
    vfio_group,
    vgpu,
    vgpuctl,
    vgpus,
)
from tests.support.marks import thorough

pytestmark = pytest.mark.rig

SOURCES: Final = Path(__file__).parents[3] / "packaging/libvirt"
PROGRAM: Final = Path("/usr/local/lib/vgpuctl/qemu_hook.py")
HOOK: Final = Path("/etc/libvirt/hooks/qemu.d/vgpuctl")
SAVED: Final = Path("/var/lib/libvirt/qemu/save")
VENDOR: Final = TYPES["vendor-vfio"]
POWEROFF: Final = bytes.fromhex("ba0406 b80020 ef f4").ljust(510, b"\0") + b"\x55\xaa"
"""A boot sector that writes `off` to the ACPI register of a q35, as an operating system does: mov dx, 0x604;
mov ax, 0x2000; out dx, ax; hlt."""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """libvirtd looks for hooks when it begins, which it does with each Host."""
    for source, place in (("qemu_hook.py", PROGRAM), ("libvirt-hook", HOOK)):
        run("install", "-D", "-m", "755", str(SOURCES / source), str(place))
    with Host() as made:
        yield made
    HOOK.unlink()
    PROGRAM.unlink()


def start(name: str) -> str:
    """What virsh says against a start; '' when the guest runs."""
    done = subprocess.run(
        ["virsh", "-q", "start", name], capture_output=True, text=True, check=False, timeout=120
    )
    return done.stderr if done.returncode else ""


def held(row: dict[str, Any], domain: str) -> bool:
    """Whether the QEMU of that domain has the vGPU's device open."""
    return str(vfio_group(row)) in held_by(qemu_pid(domain))


def lose(row: dict[str, Any]) -> None:
    """Somebody removes a vGPU behind vgpuctl's back; background changes are paused, so that it stays away."""
    vgpuctl("pause")
    if row["framework"] == "vendor-vfio":
        (PCI / row["vf"] / "nvidia/current_vgpu_type").write_text("0")
    else:
        (MDEVS / row["uuid"] / "remove").write_text("1")
    assert type_in_kernel(row) is None


def ours(row: dict[str, Any]) -> str:
    """A hostdev for a vGPU under our alias, as in the XML of a desktop that was copied."""
    return hostdev_xml(row).replace("</hostdev>", f"<alias name='{alias_of(row)}'/></hostdev>")


def told(name: str) -> list[str]:
    """What the log tells of a vGPU, oldest first."""
    return [each["summary"] for each in get("events", limit=1000) if each["subject"] == name]


def is_free(name: str) -> bool:
    get("vgpus")  # who reads makes the daemon look
    lines = told(name)
    return bool(lines) and not [each for each in lines[-1:] if "held by" in each or "kept for" in each]


def off(host: Host, name: str) -> None:
    until(lambda: not host.libvirt.lookupByName(name).isActive(), f"{name} is off")


def power_off(host: Host, name: str) -> None:
    """It does so by itself, as soon as its firmware has booted it."""
    off(host, name)


def destroy(host: Host, name: str) -> None:
    host.stop(name)


def kill(host: Host, name: str) -> None:
    os.kill(qemu_pid(name), signal.SIGKILL)
    off(host, name)


def disk(tmp_path: Path, how: Callable[..., None]) -> str:
    """A disk that powers the guest off, where the test wants that."""
    if how is not power_off:
        return ""
    image = tmp_path / "off.img"
    image.write_bytes(POWEROFF.ljust(1 << 20, b"\0"))
    tmp_path.chmod(0o755)
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{image}'/>"
        "<target dev='sda' bus='sata'/></disk>"
    )


def restart_libvirtd(host: Host) -> None:
    """Its guests go on; it knows what it read anew."""
    host.libvirt.close()
    run("systemctl", "restart", "libvirtd")
    host.libvirt = libvirt.open("qemu:///system")
    for domain in host.libvirt.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        # answered once libvirt has reconnected to its QEMU; an end before that is not told well
        run("virsh", "-q", "qemu-monitor-command", domain.name(), "--hmp", "info status")


@pytest.mark.parametrize(
    "how", [power_off, thorough(destroy), thorough(kill)], ids=lambda each: each.__name__
)
def test_after_every_end_the_vf_is_free_and_another_desktop_starts_on_it(
    host: Host, tmp_path: Path, how: Callable[..., None]
) -> None:
    """hardware.md 1.4.13, T11: a VF is reused; the one who had it, and the one who has it, are told apart."""
    first, second = f"{how.__name__}-1".replace("_", "-"), f"{how.__name__}-2".replace("_", "-")
    host.define(first, devices=disk(tmp_path, how))
    vgpuctl("attach", first, "--type", VENDOR)
    row = vgpu(first)
    assert start(first) == ""
    how(host, first)
    until(lambda: is_free(first), "the end of the hold")
    assert any(f"held by domain {first}" in each for each in told(first))
    vgpuctl("detach", first)

    host.define(second)
    vgpuctl("attach", second, "--type", VENDOR)
    assert vgpu(second)["vf"] == row["vf"]
    assert start(second) == ""
    assert held(vgpu(second), second)
    assert vgpu(second)["held_by"] == second
    host.stop(second)
    vgpuctl("detach", second)
    assert get("host")["hook"] == "live"


@pytest.mark.parametrize("framework", ["mdev", "vendor-vfio"])
def test_a_vgpu_that_was_lost_is_made_for_the_start_and_a_failure_refuses_it(
    host: Host, framework: str
) -> None:
    """hardware.md T4: a refused start leaves nothing, and the next one is as the first."""
    name = f"lost-{framework}"
    host.define(name)
    vgpuctl("attach", name, "--type", TYPES[framework])
    row = vgpu(name)
    lose(row)
    host.nvsim.fail("create" if framework == "mdev" else "type", "EIO", 1)
    why = start(name)
    assert f"create vGPU {name}" in why.partition("vgpuctl: ")[2], why
    assert not host.libvirt.lookupByName(name).isActive()
    assert (type_in_kernel(row), is_free(name)) == (None, True)

    assert start(name) == ""
    now = vgpu(name)
    assert (now["uuid"], now["vf"]) == (row["uuid"], row["vf"])
    assert held(now, name)
    vgpuctl("resume")
    host.stop(name)
    vgpuctl("detach", name)


@pytest.fixture
def seat(host: Host) -> Iterator[dict[str, Any]]:
    """A vGPU that two domains name, as a desktop and its copy do."""
    vgpuctl("vgpu", "create", "--type", VENDOR, "--name", "seat")
    row = vgpu("seat")
    for name in ("one", "two"):
        host.define(name, devices=ours(row))
    yield row
    for name in ("one", "two"):
        if host.libvirt.lookupByName(name).isActive():
            host.stop(name)
        host.libvirt.lookupByName(name).undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
    until(lambda: is_free("seat"), "the end of the hold")
    vgpuctl("vgpu", "delete", "seat", "--yes")
    assert vgpus(name="seat") == []


def test_one_vgpu_two_domains_and_a_daemon_that_is_down(host: Host, seat: dict[str, Any]) -> None:
    """hardware.md T4, T9: held by one; a guest never dies of the hook, whoever restarts and is not there."""
    assert start("one") == ""
    assert "domain one has it" in start("two")

    # libvirtd restarts while nobody answers its hook: the guest goes on
    pid = qemu_pid("one")
    run("systemctl", "stop", "vgpuctl.socket", "vgpuctl.service")
    restart_libvirtd(host)
    assert (qemu_pid("one"), held(seat, "one")) == (pid, True)

    # it stops, and the other one starts, while no daemon is there: exactly that vGPU is there and free
    assert "vgpuctl:" in start("two"), "the guest still has it"
    host.stop("one")
    assert start("two") == ""
    assert held(seat, "two")
    run("systemctl", "start", "vgpuctl.socket", "vgpuctl.service")
    assert vgpu("seat")["holders"][0]["domain"] == "two"
    until(lambda: is_free("seat"), "the end of the hold that nobody told of")


def test_under_libvirtds_apparmor_profile_it_runs_and_sees_who_holds(
    host: Host, seat: dict[str, Any], libvirtds_profile: str
) -> None:
    """Debian and Ubuntu confine libvirtd, and what it runs below /usr/lib or /usr/local it may not run."""

    def called(*arguments: str, xml: str) -> tuple[int, str]:
        done = subprocess.run(
            ["aa-exec", "-p", libvirtds_profile, "--", HOOK, *arguments, "-"],
            input=xml,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stderr

    plain = host.define("plain")
    for arguments in (("prepare", "begin"), ("reconnect", "begin"), ("release", "end")):
        assert called("plain", *arguments, xml=plain) == (0, "")
    run("systemctl", "stop", "vgpuctl.socket", "vgpuctl.service")
    try:
        # that nobody has it open it can see only outside of the profile
        assert called("one", "prepare", "begin", xml=host.xml("one")) == (0, "")
        assert start("one") == ""
        status, why = called("two", "prepare", "begin", xml=host.xml("two"))
        assert (status, "vgpuctl: " in why) == (1, True)
    finally:
        run("systemctl", "start", "vgpuctl.socket", "vgpuctl.service")
    assert held(seat, "one")


@pytest.fixture
def libvirtds_profile() -> Iterator[str]:
    """The one of Debian's package, in force for whatever is run under it; its name."""
    profile = "/etc/apparmor.d/usr.sbin.libvirtd"
    run("apparmor_parser", "--replace", profile)
    yield "libvirtd"
    run("apparmor_parser", "--remove", profile)


def test_an_image_keeps_its_vgpu(host: Host, seat: dict[str, Any]) -> None:
    """Here it is only a file, which libvirt takes for an image: no vGPU of this rig can be saved."""
    assert start("one") == ""
    SAVED.mkdir(exist_ok=True)
    (SAVED / "one.save").write_bytes(b"")
    restart_libvirtd(host)
    host.stop("one")
    until(lambda: "kept for the managed-save image of domain one" in told("seat")[-1], "the image's hold")
    assert vgpu("seat")["held_by"] == "one"
    assert "managed-save" in start("two")
    run("virsh", "-q", "managedsave-remove", "one")
    until(lambda: is_free("seat"), "the end of the image's hold")
    assert start("two") == ""
    assert held(seat, "two")

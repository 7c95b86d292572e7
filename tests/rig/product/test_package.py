"""The Debian package on a host that runs desktops: installed by the role, upgraded, removed, purged."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.conftest import collections, controller
from tests.ansible.controller import Controller, Run
from tests.ansible.relay import relayed
from tests.rig.desktops import domain_xml
from tests.rig.guests import TRIXIE
from tests.support.package import built

__all__ = ["collections", "controller"]

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

CARDS = "t4:mdev@41,a2:vendor-vfio@81"
TYPES = {"mdev": "T4-4Q", "vendor-vfio": "A2-4Q"}
HOOK = "/etc/libvirt/hooks/qemu.d/vgpuctl"
SLOW_S = 300.0
WITHOUT_A_PACKAGE = (
    "systemctl stop vgpuctl.socket vgpuctl.service; rm -rf /usr/bin/vgpuctl "
    "/usr/local/lib/python3*/dist-packages/vgpuctl "
    "/usr/lib/systemd/system/vgpuctl* /usr/lib/*.d/vgpuctl.conf /var/lib/vgpuctl; systemctl daemon-reload"
)
PLAYBOOK = """
- hosts: hv
  gather_facts: false
  roles:
    - role: vgpuctl.vgpuctl.vgpuctl
      vars:
        vgpuctl_package: {package}
        vgpuctl_config: {{wait_for_gpus_s: 29}}
        vgpuctl_profiles: [{{name: cad, types: [T4-8Q]}}]
        vgpuctl_readers: [games]
"""
IN_PLACE = (
    "find /etc /usr /var/lib /var/cache -name '*vgpuctl*' | sort; getent group vgpuctl vgpuctl-ro || true"
)
ONLY_A_RUN_SEES = {"Install the package", "Let users in", "Look for the hook after", "Restart libvirt"}
NEWER = (
    "cd /root && dpkg-deb -R /var/cache/vgpuctl/*.deb newer && "
    "sed -i 's/^Version: .*/&.1/' newer/DEBIAN/control && dpkg-deb -Znone -b newer newer.deb && rm -r newer"
)


@contextmanager
def from_a_controller(machine: Any, controller: Controller) -> Iterator[Callable[..., Run]]:
    """Playbooks that come to the machine from here; each has to succeed."""

    def play(*arguments: str) -> Run:
        run = controller.play(*arguments)
        assert run.status == 0, run.output
        return run

    # Not pytest's directory: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="vgpuctl-relay-") as directory:
        socket = Path(directory) / "relay"
        (controller.directory / "hosts").write_text(
            f"hv ansible_connection=rig rig_relay={socket} ansible_python_interpreter=/usr/bin/python3\n"
        )
        with relayed(machine, socket, timeout_s=SLOW_S):
            yield play


def rows(machine: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(machine.must("vgpuctl vgpu list -o json"))}


def told(machine: Any, prop: str, unit: str = "vgpuctl.service") -> str:
    return machine.must(f"systemctl show -P {prop} {unit}").strip()


def running(machine: Any) -> dict[str, str]:
    """Each desktop's process, and when it began: a restarted one is another one."""
    return {
        name: machine.must(f"ps -o pid=,lstart= -p $(cat /run/libvirt/qemu/{name}.pid)").strip()
        for name in TYPES
    }


def test_a_package_comes_and_goes_under_running_desktops(machine: Any, controller: Controller) -> None:
    machine.must(WITHOUT_A_PACKAGE)
    machine.must(f"modprobe nvsim_cards gpus={CARDS}; modprobe nvsim; udevadm settle")

    # the role installs it: what --check foresees happens, and the second time nothing does
    before = machine.must(IN_PLACE)
    with from_a_controller(machine, controller) as play:
        playbook = PLAYBOOK.format(package=built(TRIXIE))
        checked = play(playbook, "--check")
        assert machine.must(IN_PLACE) == before
        ran, again = play(playbook), play(playbook)
    assert set(ran.changed) - set(checked.changed) == ONLY_A_RUN_SEES
    assert set(checked.changed) - set(ran.changed) == {"Foresee its installation"}
    assert again.changed == []
    assert "cad" in machine.must("setpriv --reuid=games --regid=games --init-groups vgpuctl profile list")

    # it serves, and libvirt, which the role has restarted, calls its hook
    assert machine.must("systemctl is-active vgpuctl.service vgpuctl.socket").split() == ["active"] * 2
    assert machine.must("systemctl is-enabled vgpuctl.service vgpuctl.socket").split() == ["enabled"] * 2
    assert "/usr/lib/vgpuctl/bin/python3" in machine.must(
        "tr '\\0' ' ' </proc/$(systemctl show -P MainPID vgpuctl)/cmdline"
    )
    machine.must("udevadm control --reload; udevadm trigger --subsystem-match=pci; udevadm settle")
    machine.must("systemctl is-active 'vgpuctl-gpu-0000:41:00.0.device'")
    for name, vgpu_type in TYPES.items():
        machine.must("cat >/root/domain.xml", stdin=domain_xml(name).encode())
        machine.must("virsh -q define /root/domain.xml")
        machine.must(f"vgpuctl attach {name} --type {vgpu_type}", timeout_s=SLOW_S)
        machine.must(f"virsh -q start {name}", timeout_s=SLOW_S)
    assert re.search(r"(?m)^hook: +live$", machine.must("vgpuctl host show"))
    before, desktops = rows(machine), running(machine)
    assert {name: row["state"] for name, row in before.items()} == dict.fromkeys(TYPES, "present")

    # upgraded: another daemon, the same desktops, and the same socket
    pid, socket = told(machine, "MainPID"), told(machine, "ActiveEnterTimestampMonotonic", "vgpuctl.socket")
    machine.must(NEWER, timeout_s=SLOW_S)
    machine.must("dpkg -i /root/newer.deb", timeout_s=SLOW_S)
    machine.must("systemctl is-active vgpuctl.service")
    assert told(machine, "MainPID") != pid
    assert told(machine, "ActiveEnterTimestampMonotonic", "vgpuctl.socket") == socket
    assert running(machine) == desktops
    assert {name: row["uuid"] for name, row in rows(machine).items()} == {
        name: row["uuid"] for name, row in before.items()
    }

    # removed: the desktops run on, stop, and those without a vGPU start without the hook
    machine.must("dpkg -r vgpuctl", timeout_s=SLOW_S)
    assert running(machine) == desktops
    assert machine.sh(f"test -e {HOOK}")[0] != 0
    assert machine.sh("systemctl is-active vgpuctl.service vgpuctl.socket")[0] != 0
    machine.must("virsh -q destroy mdev && virsh -q start mdev", timeout_s=SLOW_S)
    machine.must("test -e /var/lib/vgpuctl/vgpuctl.db")

    # purged: its state goes, what is in the kernel stays
    machine.must("rm /etc/vgpuctl/vgpuctl.toml /etc/vgpuctl/profiles/ansible.yaml")  # are not the package's
    said = machine.must("dpkg -P vgpuctl 2>&1", timeout_s=SLOW_S)
    assert "removing its state in /var/lib/vgpuctl" in said
    assert machine.sh("ls -d /var/lib/vgpuctl /run/vgpuctl /etc/vgpuctl")[1].count("No such file") == 3
    assert sorted(machine.must("virsh -q list --name").split()) == ["mdev", "vendor-vfio"]
    machine.must(f"test -e /sys/bus/mdev/devices/{before['mdev']['uuid']}")

"""The inventory plugin, by a real ansible-inventory; a program stands for ssh and runs the command here."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.ansible.controller import Controller
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SSH = """#!/bin/sh
[ "$1 $2" = "-o BatchMode=yes" ] && shift 2
case $1 in
    root@hv1.example) exec sh -c "$2" ;;
    mute) echo 'this is not JSON' ;;
    *) echo "ssh: could not resolve hostname $1" >&2; exit 255 ;;
esac
"""
INVENTORY = """
plugin: vgpuctl.vgpuctl.hosts
hosts: {hv1: root@hv1.example, here: local, gone: , mute: }
ssh: [./ssh, -o, BatchMode=yes]
vgpuctl: %s -m vgpuctl
compose: {revision: vgpuctl_host.revision}
groups: {has_mdev: "'mdev' in (vgpuctl_gpus | map(attribute='framework'))"}
keyed_groups: [{prefix: numa, key: "vgpuctl_gpus | map(attribute='numa_node') | unique"}]
"""


def plain(value: dict[str, Any]) -> Any:
    """Text from outside comes marked."""
    return value.get("__ansible_unsafe", value)


@pytest.fixture
def listing(controller: Controller):
    ssh = controller.directory / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    (controller.directory / "gpus.vgpuctl.yml").write_text(INVENTORY % sys.executable)

    def listing(daemon: Daemon) -> tuple[dict[str, Any], str]:
        controller.env |= {each: daemon.env[each] for each in ("VGPUCTL_HOST", "PYTHONPATH")}
        done = controller.run("ansible-inventory", "-i", "gpus.vgpuctl.yml", "--list")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout, object_hook=plain), done.stderr

    return listing


def test_hosts_are_grouped_by_what_they_have(listing, daemon: Daemon):
    daemon.ok("vgpu", "create", "--type", "L40S-8Q")  # before its VFs are on a card says no framework
    found, warnings = listing(daemon)
    answering = ["here", "hv1"]
    for group in ("model_t4", "model_l40s", "framework_mdev", "framework_sriov_mdev", "free_designer"):
        assert found[f"vgpuctl_{group}"]["hosts"] == answering, group
    assert found["numa_1"]["hosts"] == found["has_mdev"]["hosts"] == answering
    assert found["vgpuctl_unreachable"]["hosts"] == ["gone", "mute"]
    assert "could not resolve hostname gone" in warnings
    variables = found["_meta"]["hostvars"]["hv1"]
    assert [each["model"] for each in variables["vgpuctl_gpus"]][:2] == ["Tesla T4", "NVIDIA L40S"]
    assert variables["revision"] == variables["vgpuctl_host"]["revision"]


def test_a_profile_of_which_no_more_fits_is_not_free(listing, daemon: Daemon):
    assert "vgpuctl_free_designer" in listing(daemon)[0]
    for number in range(8):  # six on the L40S, two on the T4
        daemon.ok("vgpu", "create", "--profile", "designer", "--name", f"v{number}")
    found = listing(daemon)[0]
    assert "vgpuctl_free_designer" not in found
    assert "vgpuctl_model_l40s" in found

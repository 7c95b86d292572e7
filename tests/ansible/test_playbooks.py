"""The playbooks that come with the collection."""

from __future__ import annotations

import signal
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from tests.ansible.controller import Controller, Run
from tests.support.daemon import TOP, Daemon, running
from tests.support.libvirtd import libvirtd, libvirtd_session

__all__ = ["libvirtd", "libvirtd_session"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def play(controller: Controller, daemon: Daemon, name: str, *arguments: str) -> Run:
    controller.env["VGPUCTL_HOST"] = daemon.env["VGPUCTL_HOST"]
    here = ("-e", "target=hv", "-e", "ansible_become=false")
    run = controller.play(f"vgpuctl.vgpuctl.{name}", *here, *arguments)
    assert run.status == 0, run.output
    return run


@pytest.mark.root
def test_a_new_hypervisor_has_forty_desktops(controller: Controller, tmp_path: Path, libvirtd):
    """With libvirt's own QEMU driver; what installs the daemon is left out."""
    arguments = ("--skip-tags", "install", "-e", f"libvirt_uri={libvirtd.uri}", "-e", "domain_type=qemu")
    with running(tmp_path, cards="l40s:sriov-mdev,l40s:sriov-mdev", libvirt=libvirtd.uri) as daemon:
        first = play(controller, daemon, "hypervisor", *arguments)
        assert first.changed == ["Define those that are missing", "Give each its vGPU"]
        vgpus = daemon.json("vgpu", "list")
        assert len(vgpus) == 40
        assert {(each["state"], each["profile"], *each["attached"]) for each in vgpus} == {
            ("present", "office", "config")
        }
        assert {each["domain"] for each in vgpus} == {f"win11-{number:03d}" for number in range(1, 41)}
        assert vgpus[0]["uuid"] in libvirtd.virsh("dumpxml", str(vgpus[0]["domain"]))
        assert play(controller, daemon, "hypervisor", *arguments).changed == []


def test_the_layout_of_a_gpu_follows_the_hour(controller: Controller, tmp_path: Path):
    shifts = {
        "7": ({"1g.10gb": 7}, {"desk-1", "desk-2", "desk-3"}),
        "19": ({"3g.40gb": 2}, {"train-1", "train-2"}),
        "6": ({"3g.40gb": 2}, {"train-1", "train-2"}),
    }
    with running(tmp_path, cards="a100-80") as daemon:
        for hour, (layout, names) in shifts.items():
            run = play(controller, daemon, "mig_by_time", "-e", f"hour={hour}")
            assert (run.changed == []) == (hour == "6")
            cut = daemon.json("gpu", "show", "0")["gpu_instances"]
            assert Counter(each["profile"] for each in cut) == layout
            vgpus = daemon.json("vgpu", "list")
            assert {each["name"] for each in vgpus if each["state"] == "present"} == names
            assert len(vgpus) == len(names)


def test_desktops_get_another_profile_when_they_are_off(controller: Controller, daemon: Daemon):
    """All that are off at once, with what else they have; the one that runs is named."""
    daemon.ok("vgpu", "create", "--type", "T4-1B", "--name", "spare")
    daemon.ok("attach", "win1", "--vgpu", "spare")
    for domain, profile in (("win1", "designer"), ("win2", "designer"), ("win3", "kiosk")):
        daemon.ok("attach", domain, "--profile", profile)
    daemon.kill(signal.SIGTERM)
    path = daemon.directory / "libvirt.xml"
    before, after = path.read_text().split("<name>win3</name>")
    path.write_text(f"{before}<name>win3</name>{after.replace('>5<', '>1<', 1)}")
    daemon.start()
    daemon.ok("repair", "--yes")  # the test driver forgets what is attached with its process
    arguments = ("-e", '{"desktops": ["win1", "win2", "win3"], "profile": "engineer"}')
    checked = play(controller, daemon, "change_profile", *arguments, "--check", "--diff")
    ran = play(controller, daemon, "change_profile", *arguments, "--diff")
    task = "Give those that are off the profile"
    assert checked[task]["diff"] == ran[task]["diff"] != []
    assert "win3" in ran["Name those that are left"]["msg"]
    profiles = {each["name"]: (each["profile"], each["domain"]) for each in daemon.json("vgpu", "list")}
    assert profiles == {
        "spare": (None, "win1"),
        "win1": ("engineer", "win1"),
        "win2": ("engineer", "win2"),
        "win3": ("kiosk", "win3"),
    }
    assert play(controller, daemon, "change_profile", *arguments).changed == []


def test_the_tasks_of_the_documentation_do_what_they_say(controller: Controller, tmp_path: Path):
    page = (TOP / "docs/ansible.md").read_text()
    tasks = page[page.index("For example:\n\n") :].split("\n\nMany desktops")[0].partition("\n\n")[2]
    (controller.directory / "desktops.yaml").write_text(
        "apiVersion: vgpuctl/v1\nkind: Profile\nname: cad\ntypes: [L40S-8Q]\n"
    )
    with running(tmp_path, cards="a100-80,l40s:sriov-mdev") as daemon:
        daemon.kill(signal.SIGTERM)
        path = daemon.directory / "libvirt.xml"
        path.write_text(path.read_text().replace("<name>win1</name>", "<name>win11-042</name>"))
        daemon.start()
        first = controller.tasks(daemon.socket, textwrap.dedent(tasks))
        assert first.changed == [
            "The card is cut",
            "The desktop has its vGPU",
            "Everything that stands in a file",
        ]
        assert controller.tasks(daemon.socket, textwrap.dedent(tasks)).changed == []
        assert [each["domain"] for each in daemon.json("vgpu", "list")] == ["win11-042"]

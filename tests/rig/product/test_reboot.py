"""A boot of the machine: vGPUs are there before libvirt starts the desktops that want them, cut cards too."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.rig.desktops import domain_xml

pytestmark = pytest.mark.slow

CARDS = "t4:mdev@41,a16:sriov-mdev@61,a2:vendor-vfio@81,t4:mdev@a1,h100:vendor-vfio@21,a100-80:sriov-mdev@31"
KEEPS_MIG = "+mig"
"""What a power cycle leaves of a real A100, a simulated one has to be told: its mode."""
TAKEN_OUT = ",t4:mdev@c1"
BROKEN, GONE = "0000:a1:00.0", "0000:c1:00.0"
CUT = {"0000:21:00.0": "H100-2-20C", "0000:31:00.0": "A100D-2-20C"}
WELL = {"mdev": "T4-4Q", "sriov-mdev": "A16-4Q", "vendor-vfio": "A2-4Q"}
TYPES = {**WELL, "broken": "T4-4Q", "gone": "T4-8Q"}
GPUS = {"mdev": "0000:41:00.0", "broken": BROKEN, "gone": GONE}
PATIENCE_S = 300.0
FOREIGN = "22222222-2222-4222-8222-222222222222"


def put(machine: Any, path: str, text: str) -> None:
    machine.must(f"mkdir -p $(dirname {path}); cat > {path}", stdin=text.encode())


def vgpus(machine: Any) -> dict[str, dict[str, Any]]:
    rows = json.loads(machine.must("vgpuctl vgpu list -o json"))
    return {row["name"] or row["mdev_uuid"]: row for row in rows}


def journal(machine: Any) -> list[dict[str, Any]]:
    """This boot's entries, in the order of their time."""
    fields = "MESSAGE,SYSLOG_IDENTIFIER,_PID,VGPUCTL_VGPU,VGPUCTL_REASON"
    command = f"journalctl -b -o json --output-fields={fields} --no-pager"
    lines = machine.must(command, timeout_s=120).splitlines()
    return sorted(map(json.loads, lines), key=lambda each: int(each["__MONOTONIC_TIMESTAMP"]))


def holders(row: dict[str, Any]) -> list[str]:
    return [each["domain"] for each in row["holders"] or ()]


def until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(1)


def first(entries: list[dict[str, Any]], pattern: str, **fields: str) -> int:
    """The position of the first entry with that message."""
    for position, each in enumerate(entries):
        told = each.get("MESSAGE")
        if isinstance(told, str) and re.search(pattern, told) and fields.items() <= each.items():
            return position
    raise AssertionError(f"nothing in the journal says {pattern!r} {fields}")


def cut(machine: Any) -> dict[str, list[tuple[str, int]]]:
    """The GPU instances of the cards that are in MIG mode."""
    return {
        each["address"]: sorted((it["profile"], it["start"]) for it in each["gpu_instances"])
        for each in json.loads(machine.must("vgpuctl gpu list -o json"))
        if each["gpu_instances"]
    }


def wishes() -> list[dict[str, Any]]:
    """Two cards cut for a vGPU each."""
    documents: list[dict[str, Any]] = []
    for gpu, of in CUT.items():
        documents += [
            {"apiVersion": "vgpuctl/v1", "kind": "Gpu", "name": gpu, "mig": {"vgpus": {of: 1}}},
            {"apiVersion": "vgpuctl/v1", "kind": "Vgpu", "name": of.lower(), "type": of},
        ]
    return documents


@dataclass(frozen=True)
class Before:
    """What was there when the machine went down: vGPUs, and the GPU instances by card."""

    vgpus: dict[str, dict[str, Any]]
    cut: dict[str, list[tuple[str, int]]]


@pytest.fixture(scope="module")
def before(machine: Any) -> Before:
    """It has booted: one card taken out, one without a driver, a vGPU of mdevctl's, two cards cut."""
    put(machine, "/etc/modules-load.d/cards.conf", "nvsim_cards\nnvsim\n")
    put(machine, "/etc/vgpuctl/vgpuctl.toml", "wait_for_gpus_s = 10\n")
    # Debian's rule for udev names mdevctl where Debian does not put it.
    machine.must("[ -e /usr/sbin/mdevctl ] || ln -s ../bin/mdevctl /usr/sbin/mdevctl")
    machine.must(f"modprobe nvsim_cards gpus={CARDS}{TAKEN_OUT}; modprobe nvsim; udevadm settle")
    machine.must("systemctl enable --now vgpuctl.service", timeout_s=120)
    for name, vgpu_type in TYPES.items():
        put(machine, f"/root/{name}.xml", domain_xml(name))
        machine.must(f"virsh -q define /root/{name}.xml && virsh -q autostart {name}")
        where = f"--gpu {GPUS[name]}" if name in GPUS else ""
        machine.must(f"vgpuctl attach {name} --type {vgpu_type} {where}")
    put(machine, "/root/wishes.json", json.dumps(wishes()))
    machine.must("vgpuctl apply -f /root/wishes.json --yes", timeout_s=240)
    found = Before(vgpus(machine), cut(machine))
    assert {row["state"] for row in found.vgpus.values()} == {"present"}
    assert {gpu: len(instances) for gpu, instances in found.cut.items()} == dict.fromkeys(CUT, 1)
    kind = f"nvidia-{vgpu_type_id(machine)}"
    machine.must(f"mdevctl define --auto --uuid {FOREIGN} --parent {GPUS['mdev']} --type {kind}")
    unbind = f"echo {BROKEN} >/sys/bus/pci/drivers/nvidia/unbind"
    put(
        machine,
        "/etc/modprobe.d/cards.conf",
        f"options nvsim_cards gpus={CARDS}{KEEPS_MIG}\n"
        f"install nvsim modprobe --ignore-install nvsim && {unbind}\n",
    )
    machine.reboot()
    machine.sh("systemctl is-system-running --wait", timeout_s=300)
    return found


def test_desktops_that_start_by_themselves_find_their_vgpus(machine: Any, before: Before) -> None:
    until(lambda: sorted(machine.must("virsh -q list --name").split()) == sorted(WELL), "autostart")

    held = [[name] for name in WELL]
    until(lambda: [holders(vgpus(machine)[name]) for name in WELL] == held, "showing who holds what")
    after = vgpus(machine)
    ours = {name: row for name, row in after.items() if name in before.vgpus}
    assert [(name, row["uuid"], row["vf"]) for name, row in ours.items()] == [
        (name, row["uuid"], row["vf"]) for name, row in before.vgpus.items()
    ]
    for name in ("broken", "gone"):
        assert after[name]["state"] != "present"
        assert after[name]["problem"] is not None

    foreign = after[FOREIGN]
    assert (foreign["state"], foreign["uuid"], foreign["holders"]) == ("foreign", None, [])
    assert machine.must("mdevctl list").split().count(FOREIGN) == 1

    entries = journal(machine)
    made = [first(entries, f"create vGPU {name} ", SYSLOG_IDENTIFIER="vgpuctl") for name in WELL]
    missed = [
        first(entries, "a vGPU is missing", SYSLOG_IDENTIFIER="vgpuctl", VGPUCTL_VGPU=name)
        for name in ("broken", "gone")
    ]
    over = first(entries, "the first restore is over", SYSLOG_IDENTIFIER="vgpuctl")
    ready = first(entries, "^Started vgpuctl.service", _PID="1")
    libvirt = first(entries, "^Starting libvirtd.service", _PID="1")
    assert GPUS["broken"] in entries[missed[0]]["VGPUCTL_REASON"]
    assert GPUS["gone"] in entries[missed[1]]["VGPUCTL_REASON"]
    assert max(made) < min(missed) < max(missed) < over < ready < libvirt
    assert not [each for each in entries if "ordering cycle" in str(each.get("MESSAGE"))]


def test_a_card_that_forgets_mig_is_cut_again(machine: Any, before: Before) -> None:
    """Hopper forgets its mode with the driver, Ampere keeps it; VFs, instances and vGPUs are gone on both."""
    until(lambda: cut(machine) == before.cut, "the GPU instances")
    names = [of.lower() for of in CUT.values()]
    until(lambda: {vgpus(machine)[name]["state"] for name in names} == {"present"}, "the vGPUs")


def vgpu_type_id(machine: Any) -> int:
    """The number of the type of the T4s' vGPUs."""
    types = json.loads(machine.must("vgpuctl type list --gpu 0000:41:00.0 -o json"))
    return next(each["type_id"] for each in types if each["name"] == TYPES["mdev"])

"""What a restore asks of the driver: each vGPU once and nothing else, past a card that hangs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.rig.desktops import SOCKET, Host, until, vgpuctl, vgpus
from vgpuctl.client.client import Client
from vgpuctl.client.operation import follow, submit

pytestmark = pytest.mark.rig

T4S = ("0000:21:00.0", "0000:41:00.0")
L40SS = ("0000:61:00.0", "0000:81:00.0")
CARDS = "t4:mdev@21,t4:mdev@41,l40s:vendor-vfio@61,l40s:vendor-vfio@81"
EACH = 6


@pytest.fixture
def host() -> Iterator[Host]:
    """Four cards with some vGPUs each."""
    with Host(CARDS) as made:
        documents = [
            {"apiVersion": "vgpuctl/v1", "kind": "Vgpu", "name": f"v{gpu[5:7]}-{n}", "type": of, "gpu": gpu}
            for gpus, of in ((T4S, "T4-1Q"), (L40SS, "L40S-3Q"))
            for gpu in gpus
            for n in range(EACH)
        ]
        client = Client(SOCKET)
        operation = follow(client, submit(client, {"action": "apply", "documents": documents}))
        assert operation["state"] == "succeeded", operation
        yield made


def reload_driver(host: Host) -> None:
    """And turn the VFs on, as NVIDIA's own unit does; then one card hangs, and vgpuctl begins."""
    vgpuctl("pause")
    host.nvsim.unload_driver_once_free()
    host.nvsim.load_driver()
    for gpu in L40SS:
        until(lambda gpu=gpu: has_vfs(gpu), "sriov-manage: whoever looks through NVML has a GPU open")
    host.nvsim.set("hang", f"create {T4S[0]}")
    host.nvsim.reset_writes()
    vgpuctl("resume")


def has_vfs(gpu: str) -> bool:
    command = ["/usr/lib/nvidia/sriov-manage", "-e", gpu]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def made(*gpus: str) -> int:
    """How many vGPUs are there."""
    return sum(each["gpu"] in gpus for each in vgpus(state="present"))


def test_each_vgpu_is_written_once_and_a_hung_card_holds_up_its_own_alone(host: Host) -> None:
    before = {each["name"]: (each["uuid"], each["gpu"], each["vf"]) for each in vgpus()}
    reload_driver(host)
    others = (T4S[1], *L40SS)
    until(lambda: made(*others) == 3 * EACH, "the restore of the other cards")
    assert made(T4S[0]) == 0
    host.nvsim.set("hang", "none")
    until(lambda: made(*T4S, *L40SS) == 4 * EACH, "the restore")
    assert {each["name"]: (each["uuid"], each["gpu"], each["vf"]) for each in vgpus()} == before
    writes = {what: count for what, count in host.nvsim.writes().items() if count}
    assert writes == {"create": 2 * EACH, "type": 2 * EACH}

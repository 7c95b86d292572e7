"""MIG-backed desktops: from a few lines of YAML to a domain that runs, and another layout beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig.desktops import (
    Host,
    get,
    held_by,
    refused,
    run,
    type_in_kernel,
    vfio_group,
    vgpu,
    vgpuctl,
)
from tests.support.marks import thorough

pytestmark = pytest.mark.rig

SRIOV, VENDOR = "0000:61:00.0", "0000:41:00.0"
CARDS = "h100:vendor-vfio@41,a100-80:sriov-mdev@61"
TYPES = {"vendor-vfio": (VENDOR, "H100"), "sriov-mdev": (SRIOV, "A100D")}
WISH = """\
{{apiVersion: vgpuctl/v1, kind: Gpu, name: "{gpu}", mig: {{vgpus: {{{board}-2-20C: 1, {board}-1-10C: 2}}}}}}
---
{{apiVersion: vgpuctl/v1, kind: Desktop, name: {name}, vgpus: [{{type: {board}-2-20C}}]}}
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host(CARDS) as made:
        yield made


def instances(gpu: str) -> dict[str, list[dict[str, Any]]]:
    """What is cut, by profile, as the driver tells."""
    found: dict[str, list[dict[str, Any]]] = {}
    (shown,) = [each for each in get("gpus") if each["address"] == gpu]
    for each in shown["gpu_instances"]:
        found.setdefault(each["profile"], []).append(each)
    return found


@pytest.mark.parametrize("framework", ["vendor-vfio", thorough("sriov-mdev")])
def test_from_a_wish_to_a_desktop_that_does_not_notice_another_layout(host: Host, framework: str) -> None:
    gpu, board = TYPES[framework]
    name = f"desk-{framework}"
    host.define(name)
    run("vgpuctl", "apply", "-f", "-", "--yes", stdin=WISH.format(gpu=gpu, board=board, name=name))
    cut = instances(gpu)
    assert {profile: len(found) for profile, found in cut.items()} == {"2g.20gb": 1, "1g.10gb": 2}
    row = vgpu(name)
    assert (row["state"], row["framework"], row["gpu"]) == ("present", framework, gpu)
    assert type_in_kernel(row) is not None

    pid = host.start(name)
    assert str(vfio_group(row)) in held_by(pid)

    plan = vgpuctl("mig", "plan", "--gpu", gpu, "--layout", "2g.20gb:1,3g.40gb:1")
    assert [step["action"] for step in plan["steps"]].count("DestroyGpuInstance") == 2
    assert (plan["touches"], plan["mig"][0]["source"]) == ([], "hardware")
    vgpuctl("mig", "apply", "--gpu", gpu, "--layout", "2g.20gb:1,3g.40gb:1", "--yes")
    after = instances(gpu)
    assert after["2g.20gb"] == cut["2g.20gb"], "the desktop's instance is the same one"
    assert sorted(after) == ["2g.20gb", "3g.40gb"]
    assert vgpu(name)["holders"] == [{"pid": pid, "command": "qemu-system-x86", "domain": name}]
    assert str(vfio_group(row)) in held_by(pid)

    problem = refused(action="set-mig", gpu=gpu, mig={"enabled": False})
    assert problem["code"] == "vgpu-busy"
    assert name in problem["detail"]
    too_large = {"profiles": {"7g.80gb": 1}}
    assert refused(action="set-mig", gpu=gpu, mig=too_large)["code"] == "no-capacity"
    assert instances(gpu) == after

    host.stop(name)
    vgpuctl("detach", name)
    vgpuctl("mig", "disable", gpu, "--yes")
    assert instances(gpu) == {}

"""A captured host, read again."""

from __future__ import annotations

import errno
import json

import pytest

from tests.sim.hosts import DEVICES, FIRST, refused, set_type, vf, with_vfs
from vgpuctl.errors import InvalidInput
from vgpuctl.model.fact import Unknown
from vgpuctl.ports.kernel import CommandResult
from vgpuctl.sim.host import SimHost
from vgpuctl.sim.spec import parse

REAL = "sys/devices/pci0000:40/0000:40:01.0/0000:41:00.0"

CAPTURE = {
    "format": "vgpuctl-capture/1",
    "host": {"kernel": "6.8.0", "sriov_manage": True},
    "files": {
        f"{REAL}/vendor": "0x10de",
        f"{REAL}/class": "0x030200\n",
        f"{REAL}/numa_node": {"errno": "EACCES"},
        "proc/sys/kernel/osrelease": "6.8.0",
    },
    "links": {f"{DEVICES}/{FIRST}": REAL, f"{REAL}/driver": "sys/bus/pci/drivers/nvidia"},
    "dirs": [DEVICES, "sys/bus/pci/drivers/nvidia"],
    "log": ["NVRM: hello"],
    "nvml": {"driver_version": "580", "gpus": []},
}


@pytest.fixture
def replayed(tmp_path):
    path = tmp_path / "host.json"
    path.write_text(json.dumps(CAPTURE))
    return SimHost.in_memory(parse(str(path)))


def test_it_reads_as_it_was(replayed):
    assert replayed.kernel.list(DEVICES) == (FIRST,)
    assert replayed.kernel.read(f"{DEVICES}/{FIRST}/vendor") == "0x10de"
    assert replayed.kernel.read(f"{DEVICES}/{FIRST}/class") == "0x030200"
    assert replayed.kernel.link(f"{DEVICES}/{FIRST}/driver") == "nvidia"
    with refused(errno.EACCES):
        replayed.kernel.read(f"{DEVICES}/{FIRST}/numa_node")
    with refused(errno.ENOENT):
        replayed.kernel.read(f"{DEVICES}/{FIRST}/device")
    assert [line.text for line in replayed.kernel.log()] == ["NVRM: hello"]
    assert replayed.nvml.host(1).driver_version == "580"


def test_it_cannot_be_changed(replayed):
    with refused(errno.EPERM):
        replayed.kernel.write(f"{DEVICES}/{FIRST}/vendor", "1")
    result = replayed.kernel.sriov_manage(FIRST, enable=True, timeout_s=1)
    assert isinstance(result, CommandResult)
    assert result.exit_status == 1
    with pytest.raises(InvalidInput):
        replayed.control("reboot")


def test_who_held_what_is_not_known(replayed):
    """DESIGN.md: UNKNOWN is neither false nor zero; a capture has no handles."""
    assert isinstance(replayed.handles.holders(), Unknown)


@pytest.mark.parametrize("nvml", [None, {"unknown": "no driver"}, {"gpus": 3}])
def test_a_capture_without_nvml_says_so(nvml):
    host = SimHost.in_memory(parse_capture(CAPTURE | {"nvml": nvml}))
    assert isinstance(host.nvml.host(1), Unknown)


def test_facts_that_nvml_did_not_know_stay_unknown():
    unknown = {"unknown": "Not Supported"}
    gpu = dict.fromkeys(
        ("uuid", "name", "fb_mib", "mig_current", "mig_pending", "virtualization_mode", "host_vgpu_mode"),
        unknown,
    )
    gpu |= {"address": FIRST, "mixed_size": False, "types": unknown, "active": []}
    host = SimHost.in_memory(parse_capture(CAPTURE | {"nvml": {"driver_version": unknown, "gpus": [gpu]}}))
    answer = host.nvml.host(1)
    assert answer.driver_version == Unknown("Not Supported")
    assert answer.gpus[0].types == Unknown("Not Supported")
    assert answer.gpus[0].mixed_size is False


@pytest.mark.parametrize("files", [{"a": "1", "a/b": "2"}])
def test_a_damaged_capture_is_refused(files):
    with pytest.raises(InvalidInput):
        SimHost.in_memory(parse_capture(CAPTURE | {"files": files})).kernel.list("a")


def parse_capture(capture):
    from vgpuctl.sim.spec import Spec

    return Spec(capture=capture)


def test_a_simulated_host_that_was_captured_reads_the_same(tmp_path):
    """What this room writes out of its own tree comes back as it was."""
    host = with_vfs("l40s")
    set_type(host, 0, "L40S-8Q")
    path = f"{DEVICES}/{vf(0)}"
    real = host.kernel.resolve(path)
    files = {
        f"{real}/nvidia/{n}": host.kernel.read(f"{path}/nvidia/{n}")
        for n in host.kernel.list(f"{path}/nvidia")
    }
    again = SimHost.in_memory(
        parse_capture({"format": "vgpuctl-capture/1", "files": files, "links": {path: real}})
    )
    for name in host.kernel.list(f"{path}/nvidia"):
        assert again.kernel.read(f"{path}/nvidia/{name}") == host.kernel.read(f"{path}/nvidia/{name}")

"""A captured host, read again."""

from __future__ import annotations

import errno
import json
from dataclasses import replace

import pytest

from tests.sim.hosts import DEVICES, FIRST, refused, set_type, with_vfs
from vgpuctl.errors import InvalidInput
from vgpuctl.host.capture import capture
from vgpuctl.host.observer import Observer
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.fact import Unknown
from vgpuctl.ports.kernel import CommandResult
from vgpuctl.sim.host import SimHost
from vgpuctl.sim.spec import Spec, parse

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


@pytest.mark.parametrize("nvml", [None, {"$kind": "Unknown", "reason": "no driver"}, {"gpus": 3}, 7])
def test_a_capture_without_nvml_says_so(nvml):
    host = SimHost.in_memory(parse_capture(CAPTURE | {"nvml": nvml}))
    assert isinstance(host.nvml.host(1), Unknown)


def test_facts_that_nvml_did_not_know_stay_unknown():
    unknown = {"$kind": "Unknown", "reason": "Not Supported"}
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
    return Spec(capture=capture)


def test_a_simulated_host_that_was_captured_reads_the_same():
    """DESIGN.md: every bug report becomes a test; what `host capture` wrote is observed as the host was."""
    host = with_vfs("l40s,t4")
    set_type(host, 0, "L40S-8Q")
    document = capture(host.kernel, host.nvml.host(1), (), taken_at=host.clock.now(), key=b"key")
    again = SimHost.in_memory(parse_capture(json.loads(json.dumps(document))))
    here, there = observed(host), observed(again)
    assert here.gpus[0].vgpus
    assert [shown(gpu) for gpu in here.gpus] == [shown(gpu) for gpu in there.gpus]
    assert isinstance(there.gpus[0].vgpus[0].holders, Unknown)


def observed(host):
    return Observer(
        kernel=host.kernel,
        nvml=host.nvml,
        handles=host.handles,
        hypervisor=None,
        catalog=Catalog(),
        clock=host.clock,
    ).observe()


def shown(gpu):
    """What a capture keeps: not the GPU's UUID, which is redacted, and not who held what."""
    return replace(gpu, uuid="", holders=(), vgpus=tuple(replace(each, holders=()) for each in gpu.vgpus))

"""What to simulate."""

from __future__ import annotations

import pytest

from tests.sim.hosts import DEVICES
from vgpuctl.errors import InvalidInput
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import PciAddress
from vgpuctl.sim.host import SimHost
from vgpuctl.sim.models import FIRST_UNKNOWN_ID
from vgpuctl.sim.spec import Card, Spec, parse


def test_a_list_of_models():
    assert parse("t4, l40s:sriov-mdev@numa1,2xa100-80@numa0") == Spec(
        cards=(
            Card(model="t4"),
            Card(model="l40s", framework=FrameworkKind.SRIOV_MDEV, numa=1),
            Card(model="a100-80", numa=0),
            Card(model="a100-80", numa=0),
        )
    )


def test_slots_and_uuids_are_always_the_same():
    first, second = SimHost.in_memory("10xt4"), SimHost.in_memory("10xt4")
    gpus = first.nvml.host(1).gpus
    assert [str(gpu.address) for gpu in gpus[:3]] == ["0000:41:00.0", "0000:61:00.0", "0000:81:00.0"]
    assert len({gpu.address for gpu in gpus}) == len({gpu.uuid for gpu in gpus}) == 10
    assert [gpu.uuid for gpu in gpus] == [gpu.uuid for gpu in second.nvml.host(1).gpus]
    nodes = [first.kernel.read(f"{DEVICES}/{gpu.address}/numa_node") for gpu in gpus[:3]]
    assert nodes == ["0", "1", "0"]


def test_a_board_of_four_gpus_is_four_gpus():
    """hardware.md 2.5, 2.7: A16 = 4 GPUs; A16 and A2 share 0x25b6 and differ by subsystem."""
    host = SimHost.in_memory("a16,a2")
    gpus = host.nvml.host(1).gpus
    assert [gpu.name for gpu in gpus] == ["NVIDIA A16"] * 4 + ["NVIDIA A2"]
    ids = [
        [host.kernel.read(f"{DEVICES}/{gpu.address}/{name}") for name in ("device", "subsystem_device")]
        for gpu in gpus[3:]
    ]
    assert ids == [["0x25b6", "0x14a9"], ["0x25b6", "0x157e"]]


def test_types_without_a_known_id_are_numbered_from_90001():
    host = SimHost.in_memory("h100,l40s,l40s")
    seen: dict[int, str] = {}
    for gpu in host.nvml.host(1).gpus:
        for each in gpu.types:
            assert seen.setdefault(each.type_id, each.name) == each.name
    numbered = sorted(number for number in seen if number >= FIRST_UNKNOWN_ID)
    assert numbered == list(range(FIRST_UNKNOWN_ID, FIRST_UNKNOWN_ID + len(numbered)))
    assert numbered


def test_a_yaml_file(tmp_path):
    path = tmp_path / "host.yaml"
    path.write_text(
        "kernel: 5.14.0\ndriver: '550.1'\nready_delay_s: 2\n"
        "cards:\n- t4\n"
        "- {model: l40s, framework: sriov-mdev, address: '0000:3d:00.0', uuid: GPU-x, vfs: true}\n"
    )
    spec = parse(str(path))
    assert spec.cards[1].address == PciAddress(0, 0x3D, 0, 0)
    host = SimHost.in_memory(spec)
    assert host.kernel.read("proc/sys/kernel/osrelease") == "5.14.0"
    assert host.nvml.host(1).driver_version == "550.1"
    assert host.nvml.host(1).gpus[1].uuid == "GPU-x"
    assert host.kernel.exists("sys/class/mdev_bus/0000:3d:00.4")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cards: [{model: t4, colour: green}]", "cards.colour"),
        ("kards: []", "kards"),
        ("cards: [{framework: mdev}]", "model"),
        ("cards: {t4: 1}", "list of cards"),
        ("cards: [", "neither YAML nor JSON"),
        ("cards: [{model: t4, mig: true}]", "no MIG"),
        (
            "cards: [{model: t4, address: '0000:41:00.0'}, {model: t4, address: '0000:41:00.0'}]",
            "0000:41:00.0",
        ),
        ("cards: [{model: t4, address: '0000:41:01.0'}]", "0000:41:01.0"),
        ("cards: [{model: t4, address: '0000:00:00.0'}]", "0000:00:00.0"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, text, says):
    path = tmp_path / "host.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=says):
        SimHost.in_memory(parse(str(path)))


@pytest.mark.parametrize(
    "argument", ["", ",", "t4:", "t4:sriov-mdev", "l40s:mdev", "t4@node1", "99xt4", "no/file.yaml", "2xmtty"]
)
def test_a_wrong_list_is_refused(argument):
    with pytest.raises(InvalidInput):
        SimHost.in_memory(parse(argument))


def test_an_unknown_model_names_near_ones():
    with pytest.raises(InvalidInput) as caught:
        SimHost.in_memory("l40z")
    assert "l40s" in (caught.value.hint or "")


def test_bystanders_are_on_the_bus():
    """A BMC's display and a network card with VFs are on every server: discovery has to pass them by."""
    host = SimHost.in_memory("t4")
    classes = {name: host.kernel.read(f"{DEVICES}/{name}/class") for name in host.kernel.list(DEVICES)}
    assert sorted(classes.values()) == ["0x020000", "0x030000", "0x030200"]

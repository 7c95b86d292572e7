"""The capture of a host, over a tree of files like its own."""

from __future__ import annotations

import errno
import json
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from captured_host import BOOT_ID, FILES, GPU_UUID, HOSTNAME, L40S, LINKS, MDEV, MTTY, NIC, T4, VF, build
from hypothesis import given
from hypothesis import strategies as st

from vgpuctl.host.capture import capture
from vgpuctl.host.kernel import LocalKernel
from vgpuctl.host.redaction import Pseudonyms
from vgpuctl.model import codec
from vgpuctl.model.domain import Domain, DomainState, Hostdev, MdevSource, PciSource, alias_for
from vgpuctl.model.fact import Unknown
from vgpuctl.model.pci import PciAddress
from vgpuctl.ports.nvml import NvmlGpu, NvmlHost
from vgpuctl.sim.host import SimHost
from vgpuctl.sim.spec import Spec

KEY = b"key"
VM = UUID("11111111-2222-4333-8444-555555555555")
NO_ANSWER = Unknown("not asked")
DOMAINS = (
    Domain(
        name="alice-desktop",
        uuid=VM,
        state=DomainState.RUNNING,
        live=(Hostdev(MdevSource(UUID(MDEV)), alias_for(UUID(MDEV))),),
        config=(Hostdev(PciSource(PciAddress.parse("0000:61:00.4")), "ua-alice"),),
    ),
)
NVML = NvmlHost(
    driver_version="550.54.16",
    gpus=(
        NvmlGpu(
            address=PciAddress.parse("0000:41:00.0"),
            uuid=GPU_UUID,
            name="Tesla T4",
            fb_mib=15360,
            **dict.fromkeys(
                ("mig_current", "mig_pending", "virtualization_mode", "host_vgpu_mode", "mixed_size"),
                NO_ANSWER,
            ),
            types=(),
            active=(),
        ),
    ),
)


class RefusingKernel(LocalKernel):
    """A kernel that refuses some reads, as sysfs does."""

    def __init__(self, root: Path, refusals: dict[str, int]) -> None:
        super().__init__(root)
        self._refusals = refusals

    def read(self, path: str) -> str:
        if number := self._refusals.get(path.rpartition("/")[2]):
            raise OSError(number, "", path)
        return super().read(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return build(tmp_path)


def taken(root: Path, *, nvml=NVML, domains=DOMAINS, key: bytes | None = KEY, kernel=None) -> dict:
    kernel = kernel or LocalKernel(root)
    try:
        return capture(kernel, nvml, domains, taken_at=datetime(2026, 11, 23, tzinfo=UTC), key=key)
    finally:
        kernel.close()


def pseudonym(uuid: str) -> str:
    return Pseudonyms(KEY).uuid(uuid)


def test_it_is_json_of_this_format(root):
    document = taken(root)
    assert json.loads(json.dumps(document)) == document
    assert document["format"] == "vgpuctl-capture/1"
    assert document["host"] == {
        "kernel": "6.8.0-45-generic",
        "taken_at": "2026-11-23T00:00:00+00:00",
        "sriov_manage": False,
    }


def test_every_file_of_the_gpus_is_in_it_and_nothing_else(root):
    document = taken(root, key=KEY)
    left_out = {"dev/kmsg", f"{NIC}/class", f"{T4}/resource", f"{VF}/vfio-dev/vfio3/dev"}
    expected = {path.replace(MDEV, pseudonym(MDEV)) for path in FILES if path not in left_out}
    assert set(document["files"]) == expected
    assert (
        document["files"][f"{VF}/nvidia/creatable_vgpu_types"] == FILES[f"{VF}/nvidia/creatable_vgpu_types"]
    )
    assert document["files"][f"{MTTY}/mdev_supported_types/mtty-1/name"] == "Single port serial"


def test_links_lead_where_they_led(root):
    expected = {
        path.replace(MDEV, pseudonym(MDEV)): target.replace(MDEV, pseudonym(MDEV))
        for path, target in LINKS.items()
        if target != NIC
    }
    assert taken(root)["links"] == expected


def test_a_listing_is_known_to_be_one(root):
    dirs = taken(root)["dirs"]
    assert {L40S, VF, f"{VF}/vfio-dev/vfio3", f"{T4}/mdev_supported_types", "sys/bus/mdev/devices"} <= set(
        dirs
    )


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("placement_id", errno.ENXIO, {"errno": "ENXIO"}),
        ("current_vgpu_type", errno.EIO, {"errno": "EIO"}),
        ("available_instances", errno.EACCES, {"errno": "EACCES"}),
    ],
)
def test_what_cannot_be_read_is_part_of_it(root, name, number, expected):
    """hardware.md 1.4.7: reading placement_id gives ENXIO while no vGPU exists."""
    (root / VF / "nvidia/placement_id").touch()
    files = taken(root, kernel=RefusingKernel(root, {name: number}))["files"]
    assert [value for path, value in files.items() if path.endswith(name)] == [expected]


def test_a_host_without_any_gpu_driver(tmp_path):
    document = taken(tmp_path, nvml=NO_ANSWER, domains=Unknown("libvirt is away"))
    assert (document["files"], document["links"], document["dirs"], document["log"]) == ({}, {}, [], [])
    assert document["nvml"] == {"$kind": "Unknown", "reason": "not asked"}
    assert document["domains"] == {"$kind": "Unknown", "reason": "libvirt is away"}


def taken_from(host: SimHost) -> dict:
    return capture(host.kernel, host.nvml.host(60), (), taken_at=datetime(2026, 11, 23, tzinfo=UTC), key=KEY)


@pytest.mark.parametrize(
    ("cards", "type_name"), [("t4", "T4-2Q"), ("l40s:sriov-mdev", "L40S-8Q"), ("l40s,mtty", "L40S-8Q")]
)
def test_the_replay_of_a_capture_says_what_was_captured(cards, type_name):
    """What `vgpuctl host capture` writes, `--simulate` reads: captured again it is the same."""
    with closing(SimHost.in_memory(cards)) as host:
        host.kernel.sriov_manage("0000:41:00.0", enable=True, timeout_s=60)
        host.control("foreign", {"gpu": "0000:41:00.0", "type": type_name})
        original = taken_from(host)
    with closing(SimHost.in_memory(Spec(capture=original))) as replayed:
        again = taken_from(replayed)
    assert len(original["files"]) > 20
    expected = Pseudonyms(KEY).document(original)
    hostname = "proc/sys/kernel/hostname"
    expected["files"][hostname] = Pseudonyms(KEY).name("host", original["files"][hostname])
    for part in ("files", "links", "dirs", "nvml"):
        assert again[part] == expected[part]


class TestRedaction:
    def test_nothing_that_identifies_the_site_is_left(self, root):
        text = json.dumps(taken(root))
        secrets = (MDEV, GPU_UUID.removeprefix("GPU-"), BOOT_ID, HOSTNAME, str(VM), "alice", "1324020012345")
        assert [secret for secret in secrets if secret in text] == []

    def test_what_belongs_together_still_does(self, root):
        """An mdev keeps one name in its path, in the log and in the domain that has it."""
        document = taken(root)
        mdev = pseudonym(MDEV)
        assert f"sys/bus/mdev/devices/{mdev}" in document["links"]
        (domain,) = document["domains"]
        assert codec.decode(domain, Domain).live == (Hostdev(MdevSource(UUID(mdev)), alias_for(UUID(mdev))),)
        assert document["log"] == [f"NVRM: nvidia-vgpu-vfio {mdev}: start failed. status: 0x1"]
        gpu = "GPU-" + pseudonym(GPU_UUID.removeprefix("GPU-"))
        assert document["nvml"]["gpus"][0]["uuid"] == gpu
        assert gpu in document["files"]["proc/driver/nvidia/gpus/0000:41:00.0/information"]

    def test_what_is_needed_to_replay_stays(self, root):
        document = taken(root)
        (domain,) = document["domains"]
        decoded = codec.decode(domain, Domain)
        assert decoded.config == (Hostdev(PciSource(PciAddress.parse("0000:61:00.4")), None),)
        assert (decoded.state, decoded.managed_save) == (DomainState.RUNNING, False)
        assert codec.decode(document["nvml"], NvmlHost).gpus[0].fb_mib == 15360

    def test_two_captures_of_one_host_cannot_be_joined(self, root):
        first, second = (taken(root, key=None)["files"]["proc/sys/kernel/random/boot_id"] for _ in range(2))
        assert first != second

    @given(uuid=st.uuids())
    def test_a_uuid_stays_a_uuid_whatever_its_case(self, uuid):
        pseudonyms = Pseudonyms(KEY)
        assert UUID(pseudonyms.text(str(uuid))) != uuid
        assert pseudonyms.text(str(uuid)) == pseudonyms.text(str(uuid).upper())
        assert (
            pseudonyms.text(f"GPU-{uuid}, {uuid}")
            == f"GPU-{pseudonyms.uuid(str(uuid))}, {pseudonyms.uuid(str(uuid))}"
        )

    @given(
        value=st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        )
    )
    def test_what_identifies_nothing_stays_as_it_is(self, value):
        assert Pseudonyms(KEY).document(value) == value

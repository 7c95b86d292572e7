"""Frameworks and types per GPU (docs/hardware.md, sections 0 and 2)."""

from __future__ import annotations

import pytest

from vgpuctl.model.gpu import FrameworkKind


def test_the_framework_is_found_per_gpu_and_not_per_host_or_model(host):
    """hardware.md 0.1, 1.4.2: three kinds in one host; two A40 differ by what the kernel shows."""
    rig = host("t4,a40:sriov-mdev,a40:vendor-vfio")
    for index in (1, 2):
        rig.turn_on(index)
    assert [gpu.framework for gpu in rig.host.observe().gpus] == [
        FrameworkKind.MDEV,
        FrameworkKind.SRIOV_MDEV,
        FrameworkKind.VENDOR_VFIO,
    ]


def test_vfs_are_all_there_when_sriov_manage_returns(host):
    """hardware.md 1.5.7: no polling is needed for the VFs themselves."""
    rig = host("l40s")
    rig.kernel.sriov_manage("0000:41:00.0", enable=True, timeout_s=60)
    assert len(rig.gpu().vfs) == 32


@pytest.mark.parametrize(
    ("name", "heads", "resolution", "frl_fps"),
    [
        ("T4-4Q", 4, "7680x4320", 60),
        ("T4-2B", 4, "5120x2880", 45),
        ("T4-4A", 1, "1280x1024", 60),
        ("T4-4C", 1, "4096x2160", 60),
    ],
)
def test_a_series_has_its_displays(host, name, heads, resolution, frl_fps):
    """hardware.md 2.1: Q, B, A and C differ in heads, resolution and frame-rate limit."""
    found = host("t4").gpu().type_named(name)
    assert (found.series, found.heads, found.max_resolution) == (name[-1], heads, resolution)
    assert name.endswith("C") or found.frl_fps == frl_fps


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("a100-40:sriov-mdev", "A100-10C"),
        ("a100-40-sxm:sriov-mdev", "A100X-10C"),
        ("a100-80:sriov-mdev", "A100D-10C"),
        ("h100", "H100-10C"),
        ("h100-94", "H100L-11C"),
        ("h200-sxm", "H200X-14C"),
        ("rtx-pro-6000", "DC-8Q"),
    ],
)
def test_a_board_has_its_code(host, card, name):
    """hardware.md 2.4: the name of a type begins with the board's code, not with the card's name."""
    rig = host(card)
    gpu = rig.turn_on()
    assert gpu.type_named(name) is not None
    assert {each.name.split("-")[0] for each in gpu.types} == {name.split("-")[0]}


def test_a_type_has_one_number_in_both_frameworks(host):
    """hardware.md 2.10: `nvidia-<n>` and `current_vgpu_type` use the same decimal number."""
    rig = host("l40s:sriov-mdev,l40s:vendor-vfio")
    by_mdev, by_vendor = rig.turn_on(0), rig.turn_on(1)
    number = by_mdev.type_named("L40S-8Q").type_id
    types = f"sys/bus/pci/devices/{by_mdev.vfs[0].address}/mdev_supported_types"
    assert rig.kernel.read(f"{types}/nvidia-{number}/name") == "NVIDIA L40S-8Q"
    step = rig.create(by_vendor, "L40S-8Q")
    assert rig.kernel.read(f"sys/bus/pci/devices/{step.parent}/nvidia/current_vgpu_type") == str(number)


def test_one_size_exists_on_gpu_instances_of_several_sizes(host):
    """hardware.md 2.11: 24 GB exists on DC-1, DC-2 and DC-4, which need different partitions."""
    gpu = host("rtx-pro-6000").turn_on()
    types = [gpu.type_named(f"DC-{slices}-24Q") for slices in (1, 2, 4)]
    assert {each.fb_mib for each in types} == {24576}
    assert len({each.gi_profile for each in types}) == 3

"""Frameworks and types per GPU (docs/hardware.md, sections 0 and 2)."""

from __future__ import annotations

import pytest

from tests.support.cards import CATALOG
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.types import TypeKind

THREE = "t4,a2:sriov-mdev,a2:vendor-vfio"
"""A card of each framework."""
CODES = {
    "a100-40:sriov-mdev": "A100-10C",
    "a100-40-sxm:sriov-mdev": "A100X-10C",
    "a100-80:sriov-mdev": "A100D-10C",
    "h100": "H100-10C",
    "h100-94": "H100L-11C",
    "h200-sxm": "H200X-14C",
    "rtx-pro-6000": "DC-8Q",
}

DISPLAYS = {
    "T4-4Q": (4, "7680x4320", 60),
    "T4-2B": (4, "5120x2880", 45),
    "T4-4A": (1, "1280x1024", 60),
    "T4-4C": (1, "4096x2160", None),
}
"""Heads, resolution, and the frame-rate limit where it is of interest."""


def test_the_framework_is_found_per_gpu_and_not_per_host_or_model(host):
    """hardware.md 0.1, 1.4.2: three kinds in one host; two A2 differ by what the kernel shows."""
    bench = host(THREE, vfs=True)
    assert [gpu.framework for gpu in bench.host.observe().gpus] == [
        FrameworkKind.MDEV,
        FrameworkKind.SRIOV_MDEV,
        FrameworkKind.VENDOR_VFIO,
    ]


def test_a_type_has_one_number_in_both_frameworks(host):
    """hardware.md 2.10: `nvidia-<n>` and `current_vgpu_type` use the same decimal number."""
    bench = host(THREE, vfs=True)
    _, by_mdev, by_vendor = bench.host.observe().gpus
    number = by_mdev.type_named("A2-8Q").type_id
    types = f"sys/bus/pci/devices/{by_mdev.vfs[0].address}/mdev_supported_types"
    assert bench.kernel.read(f"{types}/nvidia-{number}/name") == "NVIDIA A2-8Q"
    step = bench.create(by_vendor, "A2-8Q")
    assert bench.kernel.read(f"sys/bus/pci/devices/{step.parent}/nvidia/current_vgpu_type") == str(number)


@pytest.mark.read_only
def test_a_series_has_its_displays(host):
    """hardware.md 2.1: Q, B, A and C differ in heads, resolution and frame-rate limit."""
    gpu = host("t4").gpu()
    for name, (heads, resolution, frl_fps) in DISPLAYS.items():
        found = gpu.type_named(name)
        assert (found.series, found.heads, found.max_resolution) == (name[-1], heads, resolution)
        assert frl_fps in (None, found.frl_fps)


@pytest.mark.read_only
def test_the_maximum_is_what_fits_with_exceptions(host):
    """hardware.md 2.8, 2.14: floor(FB/size); 1 GB types on 48 GB are 32, and DC-2B is 32 for its channels."""
    turing, ada, blackwell = host("t4,l40s,rtx-pro-6000").host.observe().gpus
    limits = {each.name: each.max_per_gpu for gpu in (turing, ada, blackwell) for each in gpu.types}
    assert [limits[f"T4-{size}Q"] for size in (16, 8, 4, 2, 1)] == [1, 2, 4, 8, 16]
    assert [limits[f"L40S-{size}Q"] for size in (48, 24, 16, 12, 8, 6, 4, 3, 2, 1)] == [
        *(1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    ]
    assert (limits["DC-2B"], limits["DC-1-2Q"]) == (32, 48)


@pytest.mark.read_only
def test_a_board_has_its_code(host):
    """hardware.md 2.4: the name of a type begins with the board's code, not with the card's name."""
    gpus = host(",".join(CODES)).host.observe().gpus
    assert len(gpus) == len(CODES)
    names = {card.partition(":")[0]: name for card, name in CODES.items()}
    for gpu in gpus:
        name = names[CATALOG.find(gpu.device).key]
        assert gpu.type_named(name) is not None
        assert {each.name.split("-")[0] for each in gpu.types} == {name.split("-")[0]}


@pytest.mark.read_only
def test_one_size_exists_on_gpu_instances_of_several_sizes(host):
    """hardware.md 2.11: 24 GB exists on DC-1, DC-2 and DC-4, which need different partitions."""
    gpu = host("rtx-pro-6000").gpu()
    types = [gpu.type_named(f"DC-{slices}-24Q") for slices in (1, 2, 4)]
    assert {each.fb_mib for each in types} == {24576}
    assert len({each.gi_profile for each in types}) == 3


@pytest.mark.read_only
def test_every_type_is_supported_also_with_mig_off_and_names_its_gpu_instance(host):
    """hardware.md 3.3.5: a time-sliced type has no profile (not profile 0); a MIG type as many as fit."""
    gpu = host("h100").gpu()
    assert gpu.mig is False
    by_kind = {
        kind: [each for each in gpu.types if each.kind is kind]
        for kind in (TypeKind.MIG_BACKED, TypeKind.TIME_SLICED)
    }
    assert {each.gi_profile for each in by_kind[TypeKind.TIME_SLICED]} == {None}
    mig = {each.name: (each.gi_profile, each.max_per_gpu) for each in by_kind[TypeKind.MIG_BACKED]}
    assert mig["H100-7-80C"] == ("7g.80gb", 1)
    assert mig["H100-3-40C"] == ("3g.40gb", 2)
    assert mig["H100-1-10C"] == ("1g.10gb", 7)

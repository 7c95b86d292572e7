"""mdev parents that nobody here wrote: the kernel's sample drivers mtty, mdpy and mbochs.

They are no PCI devices, know no NVIDIA, and name their types as they like (`mdpy-vga` has no number).
"""

from __future__ import annotations

import errno
from uuid import uuid4

import pytest

from tests.conformance.bench import create_step, removal
from vgpuctl.errors import KernelRefused, UnsupportedHere
from vgpuctl.model.gpu import FrameworkKind, GpuState
from vgpuctl.model.pci import ParentName
from vgpuctl.model.types import TypeKind

SAMPLES = {
    "mtty": {"mtty-1": 24, "mtty-2": 12},
    "mdpy": {"mdpy-vga": 4, "mdpy-xga": 4, "mdpy-hd": 4},
    "mbochs": {"mbochs-small": 64, "mbochs-medium": 16, "mbochs-large": 4},
}
"""How many of each type fit when there is none."""
LARGEST = {"mtty": "mtty-2", "mdpy": "mdpy-hd", "mbochs": "mbochs-large"}
AFTER_ONE = {
    "mtty": {"mtty-1": 22, "mtty-2": 11},
    "mdpy": {"mdpy-vga": 3, "mdpy-xga": 3, "mdpy-hd": 3},
    "mbochs": {"mbochs-small": 48, "mbochs-medium": 12, "mbochs-large": 3},
}
"""The same after one of the largest."""
FULL = {"mtty": errno.ENOSPC, "mdpy": errno.EUSERS, "mbochs": errno.ENOSPC}
"""mdpy leaves the counting to the kernel's mdev core, which has an errno of its own [mdev_core.c]."""


def available(bench, parent):
    types = f"sys/class/mdev_bus/{parent}/mdev_supported_types"
    return {
        each: int(bench.kernel.read(f"{types}/{each}/available_instances"))
        for each in bench.kernel.list(types)
    }


@pytest.mark.parametrize("card", SAMPLES)
def test_a_parent_that_is_no_pci_device_carries_vgpus_like_any_other(host, card):
    """hardware.md 0.1, 1.1.1: create, observe, read availability and remove, over a driver not of ours."""
    bench = host(card)
    gpu = bench.gpu()
    assert gpu.address == ParentName(card)
    assert (gpu.state, gpu.framework, gpu.mig, gpu.holders) == (GpuState.READY, FrameworkKind.MDEV, False, ())
    assert {each.name: each.kind for each in gpu.types} == dict.fromkeys(SAMPLES[card], TypeKind.OTHER)
    assert available(bench, card) == SAMPLES[card]
    step = bench.create(gpu, LARGEST[card])
    seen = bench.vgpu(step)
    assert (seen.type_name, seen.type_id, seen.params, seen.holders) == (
        LARGEST[card],
        step.type_id,
        None,
        (),
    )
    assert available(bench, card) == AFTER_ONE[card]
    assert bench.creatable() == set(SAMPLES[card])
    bench.host.run(step)
    bench.host.run(removal(step))
    bench.host.run(removal(step))
    assert bench.gpu().vgpus == ()
    assert available(bench, card) == SAMPLES[card]


@pytest.mark.parametrize("card", SAMPLES)
def test_a_full_parent_offers_nothing_and_refuses_in_its_own_way(host, card):
    """hardware.md 0.4: counted at creation."""
    bench = host(card)
    gpu = bench.gpu()
    number, parent = SAMPLES[card][LARGEST[card]], f"sys/class/mdev_bus/{card}/mdev_supported_types"
    for _ in range(number):
        bench.kernel.write(f"{parent}/{LARGEST[card]}/create", str(uuid4()))
    full = bench.gpu()
    assert (len(full.vgpus), full.creatable) == (number, frozenset())
    with pytest.raises(KernelRefused) as caught:
        bench.host.run(create_step(gpu, LARGEST[card]))
    assert caught.value.facts["errno"] == errno.errorcode[FULL[card]]


def test_parameters_are_nvidias_and_refused_elsewhere(host):
    """hardware.md 1.2.2: `nvidia/vgpu_params` is a file of NVIDIA's driver."""
    bench = host("mtty")
    with pytest.raises(UnsupportedHere):
        bench.create(bench.gpu(), "mtty-1", params="frame_rate_limiter=0")


def test_a_held_one_is_seen_to_be_held(host):
    """hardware.md 1.6.1: a process holds it by its group, whatever the driver."""
    bench = host("mtty")
    step = bench.create(bench.gpu(), "mtty-1")
    bench.control("hold", vgpu=str(step.vgpu), domain="console")
    assert [each.domain for each in bench.vgpu(step).holders] == ["console"]

"""MIG mode and mixed-size mode: when they can be set, and what takes them away (hardware.md 3.2 to 3.4)."""

from __future__ import annotations

import pytest

from tests.conformance.bench import create_step, identity, removal
from vgpuctl.errors import Conflict, KernelRefused
from vgpuctl.model.step import SetVfs


def turn(bench, *, on):
    bench.host.run(SetVfs(gpu=identity(bench.gpu()), enabled=on))


def test_mig_on_without_a_gpu_instance_takes_nothing(host):
    """hardware.md 1.4.5, 1.4.10, 3.3.1, 3.3.4: time-sliced types are never creatable with MIG on; 0x38."""
    bench = host("a30:sriov-mdev")
    bench.control("mig", gpu=0, enabled=True)
    gpu = bench.turn_on()
    assert gpu.mig is True
    assert gpu.creatable == frozenset()
    with pytest.raises(KernelRefused) as caught:
        bench.create(gpu, "A30-6C")
    assert caught.value.facts["nvrm"] == "0x38"


def test_a_mig_type_with_mig_off_is_an_invalid_operation(host):
    """hardware.md 1.4.10, 3.3.4: and vice versa; 0x38."""
    bench = host("h100", vfs=True)
    gpu = bench.gpu()
    assert not any(gpu.type_numbered(each).gi_profile for each in gpu.creatable)
    with pytest.raises(KernelRefused) as caught:
        bench.create(gpu, "H100-1-10C")
    assert caught.value.facts["nvrm"] == "0x38"


def test_mig_mode_is_changed_with_vfs_off_only(host):
    """hardware.md 1.6.7, 3.3.7, T1: in use by another client, whether it is to be turned on or off."""
    bench = host("h100", mig=True, vfs=True)
    assert bench.gpu().mig is True
    with pytest.raises(Conflict):
        bench.control("mig", gpu=0, enabled=False)
    turn(bench, on=False)
    bench.control("mig", gpu=0, enabled=False)
    turn(bench, on=True)
    with pytest.raises(Conflict):
        bench.control("mig", gpu=0, enabled=True)
    assert bench.gpu().mig is False


def test_on_ampere_the_mode_stays_pending_while_somebody_uses_the_gpu(host):
    """hardware.md 3.2.1, 3.2.3: success, and a status that says why it is not in force."""
    bench = host("a30")
    pf = str(bench.gpu().address)
    bench.control("hold", parent=pf)
    assert bench.control("mig", gpu=0, enabled=True) == {"pending": True}
    assert bench.mig() == (False, True)
    assert bench.gpu().mig is False
    bench.control("release", parent=pf)
    turn(bench, on=True)
    assert bench.mig() == (True, True)
    assert bench.creatable() == set()


def test_sriov_manage_takes_mixed_size_mode_in_both_directions(host):
    """hardware.md 0.6, 3.4.3, T2: set before, it reads back Enabled and is wiped."""
    bench = host("a2")
    bench.control("mixed-size", gpu=0, enabled=True)
    assert bench.gpu().mixed_size is True
    turn(bench, on=True)
    assert bench.gpu().mixed_size is False
    bench.control("mixed-size", gpu=0, enabled=True)
    turn(bench, on=False)
    assert bench.gpu().mixed_size is False


def test_mixed_size_mode_wants_an_empty_gpu_and_then_sizes_mix(host):
    """hardware.md 1.6.8, 3.4.3: IN_USE while there is a vGPU; the default is equal-size."""
    bench = host("a2", vfs=True)
    gpu = bench.gpu()
    step = bench.create(gpu, "A2-8Q")
    with pytest.raises(Conflict):
        bench.control("mixed-size", gpu=0, enabled=True)
    assert "A2-4Q" not in bench.creatable()
    bench.host.run(removal(step))
    bench.control("mixed-size", gpu=0, enabled=True)
    bench.create(bench.gpu(), "A2-8Q")
    assert {"A2-4Q", "A2-8Q", "A2-2Q"} <= bench.creatable()
    bench.create(bench.gpu(), "A2-4Q")
    assert {each.type_name for each in bench.gpu().vgpus} == {"A2-8Q", "A2-4Q"}


def test_placements_are_fewer_where_sizes_may_mix(host):
    """hardware.md 3.4.4, 3.4.5: of three 8 GB on 24 GB only two fit in mixed-size mode, at 0 and 16."""
    bench = host("a10", vfs=True)
    steps = [bench.create(bench.gpu(), "A10-8Q") for _ in range(3)]
    assert {each.placement_id for each in bench.gpu().vgpus} == {None}
    for step in steps:
        bench.host.run(removal(step))
    bench.control("mixed-size", gpu=0, enabled=True)
    for _ in range(2):
        bench.create(bench.gpu(), "A10-8Q")
    assert sorted(each.placement_id for each in bench.gpu().vgpus) == [0, 16]
    assert "A10-8Q" not in bench.creatable()
    assert "A10-4Q" in bench.creatable()
    with pytest.raises(KernelRefused):
        bench.host.run(create_step(bench.gpu(), "A10-8Q"))


def test_a_card_without_sriov_has_neither_mode(host):
    """hardware.md 3.4.3: mixed sizes are for SR-IOV GPUs."""
    bench = host("t4")
    gpu = bench.gpu()
    assert (gpu.mig, gpu.mixed_size) == (False, False)
    for mode in ("mig", "mixed-size"):
        with pytest.raises(Conflict):
            bench.control(mode, gpu=0, enabled=True)

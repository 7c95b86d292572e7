"""Schedulers of time-sliced vGPUs (hardware.md 4), by NVML."""

from __future__ import annotations

import pynvml
import pytest

from tests.conformance import smi
from tests.conformance.bench import removal

pytestmark = pytest.mark.only("rig", reason="vgpuctl neither reads nor changes schedulers yet")

BEST_EFFORT = pynvml.NVML_VGPU_SCHEDULER_POLICY_BEST_EFFORT
EQUAL_SHARE = pynvml.NVML_VGPU_SCHEDULER_POLICY_EQUAL_SHARE
FIXED_SHARE = pynvml.NVML_VGPU_SCHEDULER_POLICY_FIXED_SHARE


def refused(gpu, policy):
    with pytest.raises(pynvml.NVMLError) as caught:
        smi.set_scheduler(gpu, policy)
    return caught.value.value


def test_best_effort_is_the_default_and_the_limits_are_the_drivers(host):
    """hardware.md 4.1, 4.5: three policies; a time slice of 1 to 30 ms, 63 to 960 Hz, a factor up to 60."""
    with smi.device(host("a2", vfs=True).gpu().address) as gpu:
        assert smi.scheduler_policy(gpu) == BEST_EFFORT
        told = pynvml.nvmlDeviceGetVgpuSchedulerCapabilities(gpu)
        assert {BEST_EFFORT, EQUAL_SHARE, FIXED_SHARE} == set(told.supportedSchedulers)
        assert (told.minTimeslice, told.maxTimeslice) == (1_000_000, 30_000_000)
        assert (told.minFrequencyForARR, told.maxFrequencyForARR) == (63, 960)
        assert (told.minAvgFactorForARR, told.maxAvgFactorForARR) == (1, 60)


def test_it_is_changed_while_there_is_no_vgpu_and_lost_with_the_driver(host):
    """hardware.md 0.9, 4.4: no vGPU on the device; not kept across a module reload."""
    bench = host("a2", vfs=True)
    address = bench.gpu().address
    step = bench.create(bench.gpu(), "A2-8Q")
    with smi.device(address) as gpu:
        assert refused(gpu, EQUAL_SHARE) in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_IN_USE)
        assert smi.scheduler_policy(gpu) == BEST_EFFORT
    bench.host.run(removal(step))
    with smi.device(address) as gpu:
        smi.set_scheduler(gpu, EQUAL_SHARE)
        assert smi.scheduler_policy(gpu) == EQUAL_SHARE
    bench.control("reload-driver")
    with smi.device(address) as gpu:
        assert smi.scheduler_policy(gpu) == BEST_EFFORT


def test_fixed_share_and_mixed_sizes_exclude_each_other(host):
    """hardware.md 3.4.3, 4.1."""
    bench = host("a2", vfs=True, mixed_size=True)
    with smi.device(bench.gpu().address) as gpu:
        assert refused(gpu, FIXED_SHARE) == pynvml.NVML_ERROR_NOT_SUPPORTED
        smi.set_scheduler(gpu, EQUAL_SHARE)
        smi.set_scheduler(gpu, BEST_EFFORT)


def test_with_mig_on_the_device_has_no_scheduler(host):
    """hardware.md 4.4: under MIG the variants of the GPU instance are to be used."""
    bench = host("h100", mig=True)
    with smi.device(bench.gpu().address) as gpu:
        assert refused(gpu, EQUAL_SHARE) == pynvml.NVML_ERROR_NOT_SUPPORTED

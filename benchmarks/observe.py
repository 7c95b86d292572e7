"""One observation of eight GPUs with 256 VFs and as many vGPUs: calls and time."""

from __future__ import annotations

import statistics
import time
from typing import Any
from uuid import UUID

from benchmarks import hosts
from vgpuctl.model.fact import known
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.situation import identity_of
from vgpuctl.model.step import CreateVgpu, SetVfs
from vgpuctl.sim.host import SimHost

DELAY_S = 0.002


def filled(framework: FrameworkKind) -> SimHost:
    """Eight cards, every VF with a 1 GiB vGPU."""
    sim = SimHost.in_memory(hosts.EIGHT.format(framework=framework))
    host = hosts.make(sim)
    for gpu in host.observe().gpus:
        host.run(SetVfs(gpu=identity_of(gpu), enabled=True))
    number = 0
    for gpu in host.observe().gpus:
        vgpu_type = gpu.type_named("L40S-1B")
        assert vgpu_type is not None
        assert vgpu_type.type_id is not None
        for vf in gpu.vfs:
            number += 1
            host.run(
                CreateVgpu(
                    vgpu=UUID(int=number, version=4),
                    name=f"v{number}",
                    gpu=identity_of(gpu),
                    framework=framework,
                    parent=vf.address,
                    type_id=vgpu_type.type_id,
                    type_name=vgpu_type.name,
                )
            )
    return sim


def measure(sim: SimHost, *, delay_s: float = 0.0, rounds: int = 5) -> dict[str, Any]:
    """Calls and median time of a warm observation."""
    host = hosts.make(sim, delay_s=delay_s)
    host.observe()
    times: list[float] = []
    for _ in range(rounds):
        before = sum(sim.kernel.operations.values())
        began = time.perf_counter()
        snapshot = host.observe()
        times.append((time.perf_counter() - began) * 1000)
        calls = sum(sim.kernel.operations.values()) - before
    vfs = sum(len(gpu.vfs) for gpu in snapshot.gpus)
    vgpus = len(snapshot.vgpus())
    functions = len(sim.kernel.list("sys/bus/pci/devices")) - vfs
    types = len(snapshot.gpus[0].types) if snapshot.gpus[0].framework is FrameworkKind.SRIOV_MDEV else 0
    bound = 8 + 2 * functions + (16 + types) * len(snapshot.gpus) + 3 * vfs + 6 * vgpus
    return {
        "gpus": len(snapshot.gpus),
        "vfs": vfs,
        "vgpus": vgpus,
        "kernel_calls": calls,
        "nvml_calls": 1,
        "bound": bound,
        "median_ms": round(statistics.median(times), 1),
    }


def hung(sim: SimHost) -> dict[str, Any]:
    """With the reads of one GPU hanging: how long the others take to be seen."""
    host = hosts.make(sim)
    host.observe()
    first = host.observe().gpus[0]
    sim.control("fail", {"what": "gpu", "gpu": str(first.address), "hang": True})
    began = time.perf_counter()
    snapshot = host.observe()
    first_ms = (time.perf_counter() - began) * 1000
    began = time.perf_counter()
    host.observe()
    again_ms = (time.perf_counter() - began) * 1000
    sim.control("heal", {})
    return {
        "readable_gpus": sum(gpu.is_readable for gpu in snapshot.gpus),
        "known_uuids": sum(known(gpu.uuid) is not None for gpu in snapshot.gpus),
        "first_ms": round(first_ms, 1),
        "again_ms": round(again_ms, 1),
    }


def run() -> dict[str, Any]:
    """Both SR-IOV frameworks."""
    found: dict[str, Any] = {}
    for framework in (FrameworkKind.SRIOV_MDEV, FrameworkKind.VENDOR_VFIO):
        sim = filled(framework)
        found[str(framework)] = {
            "plain": measure(sim),
            "2_ms_per_read": measure(sim, delay_s=DELAY_S, rounds=3),
            "one_gpu_hung": hung(sim),
        }
    return found

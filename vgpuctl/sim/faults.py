"""Faults that somebody asked for: who meets one, and when it is used up."""

from __future__ import annotations

from dataclasses import replace

from vgpuctl.model.pci import GpuAddress
from vgpuctl.sim.state import Fault, State

KINDS = {
    "create": "making a vGPU",
    "remove": "removing a vGPU",
    "vgpu_params": "writing a vGPU's parameters",
    "read": "reading a file of a GPU",
    "gpu": "every access to a GPU's files",
    "nvml": "NVML",
    "nvml-order": "a change of MIG",
    "holders": "reading who holds what",
    "sriov-manage": "sriov-manage, which dies half-way",
}
"""What can fail."""

_ABOUT_GPUS = frozenset({"create", "remove", "vgpu_params", "read", "gpu"})


def hit(state: State, gpu: GpuAddress | None, *whats: str) -> tuple[State, Fault | None]:
    """The fault that an operation on `gpu` meets, and the state with one hit less.

    A hanging fault is not used up: it ends when it is healed.
    """
    for number, fault in enumerate(state.faults):
        if fault.what not in whats or (fault.gpu is not None and fault.gpu != gpu):
            continue
        if gpu is None and fault.what in _ABOUT_GPUS:
            continue
        if fault.count is None or fault.hang:
            return state, fault
        left = replace(fault, count=fault.count - 1)
        kept = (left,) if left.count else ()
        faults = (*state.faults[:number], *kept, *state.faults[number + 1 :])
        return replace(state, faults=faults), fault
    return state, None

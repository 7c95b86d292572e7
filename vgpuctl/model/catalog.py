"""What is known of GPU models and vGPU types, for where there is no hardware to ask."""

from __future__ import annotations

from dataclasses import dataclass

from vgpuctl.model.types import VgpuType


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuModel:
    """A GPU model.

    `key` is its short name (`l40s`, `a100-80`), `board` the token of its type names (`L40S`, `A100D`).
    `vfs` is the number of VFs that sriov-manage makes, 0 for a model without SR-IOV.
    """

    key: str
    name: str
    board: str
    family: str
    device: int
    subsystem: int | None
    fb_mib: int
    vfs: int
    gpus_per_board: int
    mixed_size: bool
    mig: bool
    types: tuple[VgpuType, ...]

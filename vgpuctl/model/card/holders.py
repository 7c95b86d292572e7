"""Who holds a PF open: a PF that anyone holds gives sriov-manage no unbindLock (hardware.md 1.5)."""

from __future__ import annotations

from typing import Any

from vgpuctl import errors
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import Gpu, Holder


def held_refusal(gpu: Gpu, consequence: str) -> errors.VgpuctlError | None:
    """Why `consequence` follows from whoever holds the PF open; None when nobody does."""
    if isinstance(gpu.holders, Unknown):
        return errors.FactUnknown(
            f"who holds GPU {gpu.address} open could not be read, so {consequence}: {gpu.holders.reason}"
        )
    if not gpu.holders:
        return None
    return errors.InvalidGpuState(
        f"GPU {gpu.address} is held open by {named(gpu.holders)}, so {consequence}",
        hint="stop what uses the driver on this GPU (nvidia-smi loops, DCGM, exporters)",
        gpu=str(gpu.address),
        holders=holder_facts(gpu.holders),
    )


def named(holders: tuple[Holder, ...]) -> str:
    """Holders, for people."""
    return ", ".join(
        f"{each.command} (pid {each.pid}" + (f", domain {each.domain})" if each.domain else ")")
        for each in holders
    )


def holder_facts(holders: tuple[Holder, ...]) -> list[dict[str, Any]]:
    """Holders, for programs."""
    return [{"pid": each.pid, "command": each.command, "domain": each.domain} for each in holders]

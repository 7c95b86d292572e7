"""The hosts on which histories play."""

from __future__ import annotations

from dataclasses import dataclass

from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.sim.spec import Card, Spec

FIRST, SECOND = "0000:41:00.0", "0000:61:00.0"
GPUS = (FIRST, SECOND)
FREE = "0000:c1:00.0"
"""The slot into which a card may be moved."""


@dataclass(frozen=True)
class Setting:
    """Two cards, and the types that are asked for there."""

    name: str
    spec: Spec
    types: tuple[str, ...]
    profiles: tuple[str, ...] = ()
    """Profiles of GPU instances, where the cards have MIG."""
    desktops: bool = True
    """libvirt 9 does not take the VF of a vendor-VFIO vGPU into a domain."""
    has_mdevs: bool = True
    has_vfs: bool = True


def _two(
    model: str, framework: FrameworkKind, *, types: tuple[str, ...], delay_s: float = 0.0, mig: bool = False
) -> Setting:
    return Setting(
        name=f"2x{model}:{framework}",
        spec=Spec(cards=(Card(model=model, framework=framework),) * 2, ready_delay_s=delay_s),
        types=types,
        profiles=("1g.6gb", "2g.12gb") if mig else (),
        desktops=framework is not FrameworkKind.VENDOR_VFIO,
        has_mdevs=framework is not FrameworkKind.VENDOR_VFIO,
        has_vfs=framework is not FrameworkKind.MDEV,
    )


SETTINGS = (
    _two("t4", FrameworkKind.MDEV, types=("T4-8Q", "T4-4Q")),
    _two("a2", FrameworkKind.SRIOV_MDEV, types=("A2-8Q", "A2-4Q")),
    _two("a2", FrameworkKind.VENDOR_VFIO, types=("A2-8Q", "A2-4Q"), delay_s=1.5),
    _two("a30", FrameworkKind.SRIOV_MDEV, types=("A30-1-6C", "A30-2-12C"), mig=True),
    _two("a30", FrameworkKind.VENDOR_VFIO, types=("A30-1-6C", "A30-2-12C"), mig=True),
)
"""A seed plays on one of them: seeds that follow each other take turns."""


def setting_of(seed: int) -> Setting:
    """The host of a seed."""
    return SETTINGS[seed % len(SETTINGS)]

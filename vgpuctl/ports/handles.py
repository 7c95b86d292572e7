"""Who holds a VFIO device open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from vgpuctl.model.fact import Fact
from vgpuctl.model.gpu import Holder


class VfioHandles(Protocol):
    """The open VFIO handles of a host.

    A device is named by its IOMMU group's number as `/dev/vfio/<n>`, by `/dev/vfio/devices/vfio<n>`, or
    is a driver node such as `/dev/nvidia0`.
    """

    def holders(self) -> Fact[Mapping[str, tuple[Holder, ...]]]:
        """Every process that has one of those open, by device node; one pass over all processes.

        A process whose handles cannot be read makes the whole answer Unknown: it may be the holder.
        """
        ...

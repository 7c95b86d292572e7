"""What was chosen for a wish, once: type, GPU, VF.  A plan keeps it while it can be honoured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import DeviceId, FrameworkKind
from vgpuctl.model.pci import GpuAddress


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """Who a GPU is: its UUID; and where it last was.  An address is where, not who."""

    address: GpuAddress
    device: DeviceId
    uuid: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """That one domain has a vGPU, from the moment in which libvirt was about to start it.

    Many stopped desktops may name a vGPU; one holds it.  `token` is of that one start.  With `saved`
    the domain is stopped and has a managed-save image, which needs the vGPU again.
    """

    domain: str
    domain_uuid: UUID
    token: str
    boot_id: str
    gpu: GpuAddress
    parent: GpuAddress | None
    type_id: int | None
    saved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The place of one wished vGPU.

    `id` is ours, stands in the domain's XML and is the UUID of the mdev.  `framework` and `parent` are
    None while the GPU's VFs are off: the GPU is chosen, the VF is not.  `created_boot` is the boot id
    under which we created it; in another boot, whatever stands there was not made by us (an mdev is
    still known by its UUID).  `lost` says that it was seen to be gone in that boot: under the vendor
    framework, what shows on its VF since then is somebody else's.  `instance` is the GPU instance that it
    is to stand on, if the driver lets that be chosen, or that it was last seen on.
    """

    id: UUID
    name: str
    type_name: str
    type_id: int | None
    fb_mib: int | None
    gpu: GpuIdentity
    framework: FrameworkKind | None
    parent: GpuAddress | None
    params: str | None
    created_at: datetime
    created_boot: str | None = None
    adopted: bool = False
    lost: bool = False
    hold: Hold | None = None
    instance: GiPlace | None = None

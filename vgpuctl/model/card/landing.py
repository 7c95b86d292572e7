"""On which GPU instance a vGPU is to stand, where the driver lets that be chosen.

Left to itself the driver takes the first by id with room (hardware.md 3.3.3): then small vGPUs are
strewn over instances that share, and a size that needs one for itself finds none.
"""

from __future__ import annotations

from vgpuctl.model.card.occupancy import Card, supported_types
from vgpuctl.model.fact import Unknown
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.gpu import GpuInstance
from vgpuctl.model.types import VgpuType


def landing(card: Card, vgpu_type: VgpuType, before: GiPlace | None = None) -> GpuInstance | None:
    """The instance for one more vGPU of that type: where it was before, else the fullest, else the first.

    None where the driver is to choose: without MIG, and where it is not known who stands where.
    """
    instances = card.gpu.gpu_instances
    if isinstance(instances, Unknown) or vgpu_type.gi_profile is None:
        return None
    fitting = {each.place: each for each in instances if each.profile == vgpu_type.gi_profile}
    residents: dict[GiPlace, list[int | None]] = {place: [] for place in fitting}
    types = {each.name: each for each in supported_types(card)}
    for occupant in card.occupants:
        its_type = types.get(occupant.type_name)
        if its_type is not None and its_type.gi_profile != vgpu_type.gi_profile:
            continue
        if occupant.exists and occupant.instance not in fitting:
            return None
        if occupant.instance in residents:
            residents[occupant.instance].append(occupant.fb_mib)
    most = vgpu_type.max_per_gi or 1
    free = [
        place for place, sizes in residents.items() if len(sizes) < most and {*sizes} <= {vgpu_type.fb_mib}
    ]
    if before in free:
        return fitting[before]
    return min(
        (fitting[place] for place in free),
        key=lambda each: (-len(residents[each.place]), each.id is None, each.id or 0, each.start),
        default=None,
    )

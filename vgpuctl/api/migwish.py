"""MIG as documents and requests say it, to `model.document.MigWish` and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vgpuctl.api.faults import Path
from vgpuctl.api.schema import MigShape
from vgpuctl.model.document import ComputeWish, MigWish
from vgpuctl.model.giprofile import GiPlace

_LEVELS = ("instances", "profiles", "vgpus")


def cross_mig(value: Any) -> Iterator[tuple[Path, str]]:
    """What is wrong between the keys of a MIG wish."""
    if not isinstance(value, dict):
        return
    given = [key for key in _LEVELS if value.get(key) is not None]
    if len(given) > 1:
        yield (given[-1],), f"give at most one of {', '.join(_LEVELS[:-1])} and {_LEVELS[-1]}"
    if given and value.get("enabled") is False:
        yield (given[0],), "has no place where MIG mode is to be off"


def mig_wish(shape: MigShape) -> MigWish:
    """The wish; a layout in a fixed order, so that equal ones are equal."""
    instances = None
    compute: tuple[ComputeWish, ...] = ()
    if shape.instances is not None:
        instances = tuple(sorted(GiPlace(each.start, each.profile) for each in shape.instances))
        compute = tuple(
            sorted(
                ComputeWish(GiPlace(each.start, each.profile), tuple(sorted(each.compute_instances.items())))
                for each in shape.instances
                if each.compute_instances is not None
            )
        )
    return MigWish(
        enabled=shape.enabled,
        instances=instances,
        profiles=None if shape.profiles is None else tuple(sorted(shape.profiles.items())),
        vgpus=None if shape.vgpus is None else tuple(sorted(shape.vgpus.items())),
        compute=compute,
    )


def plain_mig(mig: MigWish) -> dict[str, Any]:
    """A plain dict that is read back as the same wish."""
    plain: dict[str, Any] = {"enabled": mig.enabled}
    if mig.instances is not None:
        shares = {each.place: {"compute_instances": dict(each.counts)} for each in mig.compute}
        plain["instances"] = [
            {"profile": each.profile, "start": each.start, **shares.get(each, {})} for each in mig.instances
        ]
    if mig.profiles is not None:
        plain["profiles"] = dict(mig.profiles)
    if mig.vgpus is not None:
        plain["vgpus"] = dict(mig.vgpus)
    return plain

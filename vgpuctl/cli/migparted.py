"""How the GPUs of a host are cut, in mig-parted's words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from vgpuctl.errors import FactUnknown

NVIDIA = "10de:"


def configuration(gpus: list[dict[str, Any]]) -> dict[str, Any]:
    """One configuration, `current`, of every NVIDIA GPU with MIG; GPUs that are cut alike share an entry.

    A GPU instance without compute instances is told like one with a single whole one: mig-parted makes no
    difference.  Raises FactUnknown where one cannot be read: left out it would pass for one without MIG.
    """
    entries: list[dict[str, Any]] = []
    nvidia = [each for each in gpus if each["device_id"].startswith(NVIDIA)]
    for index, gpu in enumerate(nvidia):
        if not gpu.get("mig_slices"):
            continue
        if gpu.get("mig") is None or gpu.get("gpu_instances") is None:
            raise FactUnknown(f"how GPU {gpu['address']} is cut could not be read")
        entry = {
            "mig-enabled": gpu["mig"],
            "mig-devices": dict(sorted(Counter(_devices(gpu)).items())),
        }
        same = next(
            (each for each in entries if {**each, "devices": None} == {"devices": None, **entry}), None
        )
        if same is None:
            entries.append({"devices": [index], **entry})
        else:
            same["devices"].append(index)
    return {"version": "v1", "mig-configs": {"current": entries}}


def _devices(gpu: dict[str, Any]) -> Iterator[str]:
    for each in gpu["gpu_instances"]:
        if each["compute_instances"] is None:
            raise FactUnknown(
                f"how GPU instance {each['id']} of GPU {gpu['address']} is shared out is not known"
            )
        yield from each["compute_instances"] or [each["profile"]]

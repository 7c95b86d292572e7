"""The vGPU types that an mdev parent offers, as its sysfs describes them."""

from __future__ import annotations

import re
from typing import Final

from vgpuctl.host.frameworks.parents import device_path, type_directories, type_number
from vgpuctl.host.frameworks.typefacts import named_type
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.types import VgpuType
from vgpuctl.ports.kernel import Kernel

_FIELD = re.compile(r"\s*([a-z_]+)\s*[=:]\s*([^,\n]+)")
_MIB: Final = re.compile(r"(\d+)\s*M?B?")


class TypeMemory:
    """What types are called, read once per GPU and driver load.

    Names and descriptions do not change while a driver is loaded; to read them again for every VF is
    what makes other tools slow on a host of many VFs.
    """

    def __init__(self) -> None:
        self._types: dict[tuple[str, ...], tuple[VgpuType, ...]] = {}
        self._names: dict[tuple[str, str], dict[int, VgpuType]] = {}

    def of_parent(self, kernel: Kernel, gpu: GpuAddress, parent: GpuAddress) -> tuple[VgpuType, ...]:
        """Every type that `parent`, which belongs to `gpu`, offers."""
        directories = type_directories(kernel, parent)
        key = (str(gpu), driver_load(kernel), *directories)
        if key not in self._types:
            base = f"{device_path(parent)}/mdev_supported_types"
            self._types[key] = tuple(described_type(kernel, base, each) for each in directories)
        return self._types[key]

    def listed(self, kernel: Kernel, gpu: GpuAddress, types: tuple[VgpuType, ...]) -> tuple[VgpuType, ...]:
        """`types`, and those listed earlier since the driver was loaded: a type in use is not listed."""
        names = self._names.setdefault((str(gpu), driver_load(kernel)), {})
        names.update({each.type_id: each for each in types if each.type_id is not None})
        return tuple(names[number] for number in sorted(names))


def driver_load(kernel: Kernel) -> str:
    """What changes when the driver is loaded anew after an upgrade, or the host boots."""
    parts = []
    for path in ("proc/sys/kernel/random/boot_id", "proc/driver/nvidia/version"):
        try:
            parts.append(kernel.read(path))
        except OSError:
            parts.append("")
    return "\n".join(parts)


def described_type(kernel: Kernel, base: str, directory: str) -> VgpuType:
    """The type in one directory.  Sample drivers have no `description`, some have no `name`."""
    path = f"{base}/{directory}"
    raw_name = _optional(kernel, f"{path}/name") or directory
    fields = dict(_FIELD.findall(_optional(kernel, f"{path}/description") or ""))
    return named_type(
        name=None if directory.startswith("nvidia-") else directory,
        raw_name=raw_name.strip(),
        type_id=type_number(directory),
        fb_mib=_mib(fields.get("framebuffer")),
        max_per_gpu=_number(fields.get("max_instance")),
        heads=_number(fields.get("num_heads")),
        max_resolution=fields.get("max_resolution", "").strip() or None,
        frl_fps=_number(fields.get("frl_config")),
        source=f"{path}/description",
    )


def available(kernel: Kernel, parent: GpuAddress) -> Fact[frozenset[int]]:
    """The type ids of which `parent` takes one more now."""
    found = set()
    for directory in type_directories(kernel, parent):
        path = f"{device_path(parent)}/mdev_supported_types/{directory}/available_instances"
        try:
            if int(kernel.read(path)) > 0:
                found.add(type_number(directory))
        except OSError as error:
            return Unknown(f"{path}: {error.strerror}")
        except ValueError:
            return Unknown(f"{path} holds no number")
    return frozenset(found)


def _optional(kernel: Kernel, path: str) -> str | None:
    try:
        return kernel.read(path)
    except FileNotFoundError:
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdecimal() else None


def _mib(text: str | None) -> int | None:
    match = _MIB.fullmatch(text.strip()) if text is not None else None
    return int(match[1]) if match else None

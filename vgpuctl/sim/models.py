"""GPU models of a simulated host: the catalogue's, and parents that are not NVIDIA's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from vgpuctl.errors import InvalidInput, NotFound
from vgpuctl.model.catalog import GpuModel, MixedPlacements
from vgpuctl.model.giprofile import MigProfile
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.types import VgpuType
from vgpuctl.sim.samples import SAMPLES

NVIDIA = 0x10DE
AMD = 0x1002
FIRST_UNKNOWN_ID = 90001
"""Types whose id the catalogue does not know are numbered from here on."""
VFS_ONLY_IN_NAME = {"t4": 16}
"""Models whose PF shows `sriov_totalvfs` but which never get VFs [hardware.md T19]."""


MXGPU = GpuModel(
    key="mxgpu",
    name="AMD FirePro S7150",
    board="",
    family="mxgpu",
    device=0x6929,
    subsystem=0x030C,
    fb_mib=8192,
    vfs=16,
    gpus_per_board=1,
    mixed_size=False,
    mig=False,
    types=(),
)
"""AMD MxGPU: plain VFs made by writing `sriov_numvfs`, without any vGPU type."""

_OTHERS = SAMPLES | {MXGPU.key: MXGPU}


class ModelSource(Protocol):
    """As much of the catalogue as the simulation reads."""

    def keyed(self, key: str) -> GpuModel:
        """The model of that key; raises NotFound, whose hint names near ones."""
        ...

    def mixed_placements(self, model: GpuModel, fb_mib: int) -> MixedPlacements | None:
        """Where vGPUs of that size may lie in mixed-size mode; None where no table is public."""
        ...

    def mig_profiles(self, model: GpuModel) -> tuple[MigProfile, ...]:
        """The GPU-instance profiles of a model, with their placements."""
        ...


class Models:
    """The models of one simulated host, with every type numbered."""

    def __init__(self, source: ModelSource, keys: Iterable[str]) -> None:
        self._source = source
        self._models: dict[str, GpuModel] = {}
        self._numbers: dict[str, int] = {}
        for key in keys:
            self.model(key)

    def model(self, key: str) -> GpuModel:
        """The model of that key, with its usable types only; raises InvalidInput."""
        found = self._models.get(key)
        if found is None:
            found = self._models[key] = self._numbered(model_keyed(self._source, key))
        return found

    def placements(self, model: GpuModel, fb_mib: int) -> MixedPlacements | None:
        """Where vGPUs of that size may lie in mixed-size mode; None where no table is public."""
        return None if model.key in _OTHERS else self._source.mixed_placements(model, fb_mib)

    def mig_profiles(self, model: GpuModel) -> tuple[MigProfile, ...]:
        """The GPU-instance profiles of a model."""
        return () if model.key in _OTHERS else self._source.mig_profiles(model)

    def _numbered(self, model: GpuModel) -> GpuModel:
        """A type without a frame-buffer size cannot be simulated; one without an id gets one."""
        types = (each for each in model.types if each.fb_mib is not None)
        return replace(model, types=tuple(replace(each, type_id=self._number(each)) for each in types))

    def _number(self, vgpu_type: VgpuType) -> int:
        if vgpu_type.type_id is not None:
            return vgpu_type.type_id
        return self._numbers.setdefault(vgpu_type.name, FIRST_UNKNOWN_ID + len(self._numbers))


def model_keyed(source: ModelSource, key: str) -> GpuModel:
    """The model of that key; raises InvalidInput when nobody knows it."""
    if key in _OTHERS:
        return _OTHERS[key]
    try:
        return source.keyed(key)
    except NotFound as error:
        raise InvalidInput(f"cannot simulate {key!r}: {error.message}", hint=error.hint) from error


def vendor_of(model: GpuModel) -> int:
    """The PCI vendor of a model."""
    return AMD if model is MXGPU or model.key == MXGPU.key else NVIDIA


def total_vfs(model: GpuModel) -> int:
    """What `sriov_totalvfs` says, 0 where there is no such file."""
    return VFS_ONLY_IN_NAME.get(model.key, model.vfs)


def default_framework(model: GpuModel) -> FrameworkKind:
    """How a model offers its vGPUs where the specification does not say."""
    if model.key == MXGPU.key:
        return FrameworkKind.PASSTHROUGH
    return FrameworkKind.VENDOR_VFIO if model.vfs else FrameworkKind.MDEV


def frameworks_of(model: GpuModel) -> tuple[FrameworkKind, ...]:
    """The frameworks under which that model can be simulated."""
    default = default_framework(model)
    if default is FrameworkKind.VENDOR_VFIO:
        return (FrameworkKind.VENDOR_VFIO, FrameworkKind.SRIOV_MDEV)
    return (default,)

"""On a machine with a real NVIDIA GPU: its MIG profiles and placements, read only, against the catalogue."""

from __future__ import annotations

import pytest

from vgpuctl.host.nvml.calls import ask, then
from vgpuctl.host.nvml.mig import gi_profiles
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import DeviceId
from vgpuctl.model.mig import Geometry


def device_id(info: object) -> DeviceId:
    """The PCI ids that NVML tells: device above vendor in one number."""
    device, subsystem = info.pciDeviceId, info.pciSubSystemId
    return DeviceId(device & 0xFFFF, device >> 16, subsystem & 0xFFFF, subsystem >> 16)


def test_the_driver_says_of_mig_what_the_catalogue_says():
    """Nothing is changed: MIG mode is neither turned on nor off."""
    pynvml = pytest.importorskip("pynvml")
    begun = ask(pynvml, "nvmlInit")
    if isinstance(begun, Unknown):
        pytest.skip(f"there is no NVIDIA GPU to ask: {begun.reason}")
    compared = []
    try:
        catalog = Catalog()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            device = then(ask(pynvml, "nvmlDeviceGetPciInfo", handle), device_id)
            model = None if isinstance(device, Unknown) else catalog.find(device)
            listed = catalog.mig_profiles(model) if model is not None else ()
            said = gi_profiles(pynvml, handle, is_on=False)
            if isinstance(said, Unknown) or not said or not listed:
                continue
            print(f"\n{model.name}:", *said, sep="\n    ")
            by_name = {each.name: each for each in said}
            for each in listed:
                assert by_name.get(each.name) == each
            assert Geometry.of(said).memory_slices == Geometry.of(listed).memory_slices
            compared.append(model.key)
    finally:
        ask(pynvml, "nvmlShutdown")
    if not compared:
        pytest.skip("no GPU here has MIG and stands in the catalogue, or its driver does not say")

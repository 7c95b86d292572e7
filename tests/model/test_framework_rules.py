"""The pure half of each framework, and the profiles that come with the package."""

from __future__ import annotations

import pytest

from tests.support.cards import card, gpu_of, t4, vf, vgpu_id
from vgpuctl.model import frameworks
from vgpuctl.model.domain import MdevSource, PciSource, alias_for
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import ParentName

ID = vgpu_id("desk")


@pytest.mark.parametrize("kind", FrameworkKind)
def test_each_framework_has_rules_under_its_own_name(kind):
    assert frameworks.rules_of(kind).KIND is kind


@pytest.mark.parametrize("kind", FrameworkKind)
def test_every_hostdev_carries_our_alias(kind):
    assert frameworks.hostdev(kind, ID, vf(0)).alias == alias_for(ID)


def test_an_mdev_is_named_by_uuid_on_any_parent():
    for kind in (FrameworkKind.MDEV, FrameworkKind.SRIOV_MDEV):
        assert frameworks.hostdev(kind, ID, ParentName("mtty")).source == MdevSource(ID)


def test_a_vendor_vf_is_never_managed():
    """hardware.md 0.7: unbound from nvidia, a VF is dead until an SR-IOV cycle."""
    hostdev = frameworks.hostdev(FrameworkKind.VENDOR_VFIO, ID, vf(3))
    assert (hostdev.source, hostdev.managed) == (PciSource(vf(3)), False)


def test_passthrough_is_managed():
    assert frameworks.hostdev(FrameworkKind.PASSTHROUGH, ID, vf(3)).managed


@pytest.mark.parametrize("kind", [FrameworkKind.VENDOR_VFIO, FrameworkKind.PASSTHROUGH])
def test_a_pci_hostdev_needs_a_pci_address(kind):
    with pytest.raises(TypeError):
        frameworks.hostdev(kind, ID, ParentName("mtty"))


def test_types_stand_on_the_pf_or_on_the_vfs():
    """hardware.md 0.3: the PF lists no types at all once VFs are on."""
    gpu = t4().gpu
    assert frameworks.rules_of(FrameworkKind.MDEV).parents(gpu) == (gpu.address,)
    gpu = gpu_of("l40s")
    for kind in (FrameworkKind.SRIOV_MDEV, FrameworkKind.VENDOR_VFIO, FrameworkKind.PASSTHROUGH):
        assert frameworks.rules_of(kind).parents(gpu) == tuple(each.address for each in gpu.vfs)
    assert frameworks.rules_of(FrameworkKind.VENDOR_VFIO).parents(card(vfs=()).gpu) == ()

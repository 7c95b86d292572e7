"""What is looked at on a machine with a real card, whatever the card; changes nothing.

On the other hosts the same cases show that they can be met.
"""

from __future__ import annotations

import json

import pytest

from vgpuctl.model import typename
from vgpuctl.model.fact import Unknown, known
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.typename import TypeName


@pytest.fixture
def there(host):
    return host("a2", vfs=True, any_model=True)


@pytest.mark.read_only
def test_a_gpu_is_described_without_a_gap(there):
    """Everything that vgpuctl decides by can be read."""
    gpu = there.gpu()
    facts = {"uuid": gpu.uuid, "framework": gpu.framework, "mig": gpu.mig, "creatable": gpu.creatable}
    assert {name: fact for name, fact in facts.items() if fact is None or isinstance(fact, Unknown)} == {}
    assert [vf for vf in gpu.vfs if not vf.ready] == []
    assert isinstance(there.host.observe().boot_id, str)


@pytest.mark.read_only
def test_every_type_has_a_name_that_we_understand(there):
    """hardware.md 2.3: NVIDIA's grammar of names; sizes and maxima are the hardware's."""
    gpu = there.gpu()
    assert gpu.types
    strange = [each.raw_name for each in gpu.types if not isinstance(typename.parse(each.raw_name), TypeName)]
    assert strange == []
    assert [each.name for each in gpu.types if not each.fb_mib or each.type_id is None] == []


@pytest.mark.read_only
def test_the_catalogue_says_what_the_hardware_says(there, catalog):
    """hardware.md 2: ids and sizes of the catalogue; a disagreement is a fault of the catalogue."""
    gpu = there.gpu()
    model = catalog.find(gpu.device)
    if model is None:
        pytest.skip(f"the catalogue has no {gpu.device}")
    ours = {each.name: each for each in model.types}
    assert sorted({each.name for each in gpu.types} - set(ours)) == []
    wrong = [
        (each.name, each.type_id, ours[each.name].type_id, each.fb_mib, ours[each.name].fb_mib)
        for each in gpu.types
        if (each.type_id, each.fb_mib) != (ours[each.name].type_id or each.type_id, ours[each.name].fb_mib)
    ]
    assert wrong == []


@pytest.mark.read_only
def test_a_vf_is_where_its_types_are(there):
    """hardware.md 1.3.2, 1.4.4: an SR-IOV GPU offers its vGPUs on VFs, a legacy one on the PF."""
    gpu = there.gpu()
    assert bool(gpu.vfs) is (gpu.framework is not FrameworkKind.MDEV)
    assert known(gpu.creatable) <= {each.type_id for each in gpu.types}


@pytest.mark.read_only
def test_a_capture_is_json_and_names_no_gpu(there):
    """What a bug report carries: no UUID of a card, and all that NVML says of it."""
    document = there.host.capture()
    text = json.dumps(document)
    assert document["nvml"]["gpus"][0]["virtualization_mode"] == 3
    assert known(there.gpu().uuid) not in text

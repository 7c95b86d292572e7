"""NvmlHost through JSON and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgpuctl.host.nvml import codec
from vgpuctl.model.fact import Unknown
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.types import TypeKind, VgpuType
from vgpuctl.ports.nvml import NvmlGpu, NvmlHost, NvmlVgpu

unknown = st.text(max_size=8).map(Unknown)
text = st.text(max_size=8)
number = st.integers(0, 1 << 40)
maybe = st.none() | number
address = st.builds(
    PciAddress,
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 255), st.integers(0, 31), st.integers(0, 7),
)  # fmt: skip
vgpu_type = st.builds(
    VgpuType,
    name=text, raw_name=text, type_id=maybe, kind=st.sampled_from(TypeKind), series=text, fb_mib=maybe,
    max_per_gpu=maybe, gi_profile=st.none() | text, heads=maybe, licence=st.none() | text, source=text,
)  # fmt: skip
vgpu = st.builds(
    NvmlVgpu,
    type_id=number | unknown, vf=address | unknown, mdev_uuid=text | unknown, vm_uuid=text | unknown,
    fb_used_mib=number | unknown,
)  # fmt: skip
gpu = st.builds(
    NvmlGpu,
    address=address, uuid=text | unknown, name=text | unknown, fb_mib=number | unknown,
    mig_current=st.booleans() | unknown, mig_pending=st.booleans() | unknown,
    virtualization_mode=number | unknown, host_vgpu_mode=number | unknown,
    mixed_size=st.booleans() | unknown,
    types=st.lists(vgpu_type, max_size=2).map(tuple) | unknown,
    active=st.lists(vgpu, max_size=2).map(tuple) | unknown,
)  # fmt: skip
host = st.builds(NvmlHost, driver_version=text | unknown, gpus=st.lists(gpu, max_size=2).map(tuple))


@settings(max_examples=60)
@given(answer=host | unknown)
def test_there_and_back(answer):
    decoded = codec.decode(json.loads(json.dumps(codec.encode(answer))))
    assert decoded == answer
    if isinstance(answer, NvmlHost):
        assert isinstance(decoded, NvmlHost)
        sources = [[t.source for t in g.types] for g in answer.gpus if not isinstance(g.types, Unknown)]
        assert [
            [t.source for t in g.types] for g in decoded.gpus if not isinstance(g.types, Unknown)
        ] == sources


@pytest.mark.parametrize(
    "value",
    [None, 1, "x", [], {}, {"gpus": []}, {"driver_version": "1", "gpus": [{}]}, {"driver_version": "1"}],
)
def test_what_is_no_answer(value):
    with pytest.raises(ValueError, match="not an answer of NVML"):
        codec.decode(value)

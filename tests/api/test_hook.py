"""What libvirt's hook sends, and what it hears."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from tests.api.conftest import Caller
from tests.api.stub import StubService
from tests.support.world import World
from vgpuctl import errors
from vgpuctl.model.domain import MdevSource, PciSource
from vgpuctl.model.edit import CreateVgpus
from vgpuctl.model.pci import PciAddress
from vgpuctl.model.start import DomainRelease, DomainStart, NamedVgpu

ID, OTHER = UUID(int=7), UUID(int=8)
BODY = {
    "operation": "prepare",
    "domain": "win 1",
    "uuid": str(OTHER),
    "token": "t",
    "vgpus": [
        {"vgpu": str(ID), "mdev": str(ID)},
        {"vgpu": str(OTHER), "vf": "0000:41:00.4"},
        {"vgpu": "no-id-of-ours", "mdev": str(ID)},
    ],
    "limit_s": 3.5,
}


def test_a_start_and_a_release(call: Caller, service: StubService) -> None:
    call.uid = 1000
    assert call("POST", "/v1/hook", BODY).json == {"allowed": True}
    assert call("POST", "/v1/hook", BODY | {"operation": "release", "saved": True}).json == {}
    named = (NamedVgpu(ID, MdevSource(ID)), NamedVgpu(OTHER, PciSource(PciAddress(0, 0x41, 0, 4))))
    start = DomainStart(domain="win 1", uuid=OTHER, token="t", vgpus=named)
    release = DomainRelease(domain="win 1", uuid=OTHER, token="t", vgpus=(ID, OTHER), saved=True)
    assert service.calls == [("start", start, 3.5), ("release", release)]


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "start"},
        {"uuid": "x"},
        {"limit_s": 0},
        {"vgpus": [{"vgpu": str(ID), "vf": "x"}]},
        {"more": 1},
    ],
)
def test_anything_else_is_refused(call: Caller, service: StubService, change: dict[str, object]) -> None:
    assert call("POST", "/v1/hook", BODY | change).json["code"] == "invalid-input"
    assert service.calls == []


def test_a_refusal_is_an_answer_and_no_answer_is_an_error(tmp_path: Path) -> None:
    """The hook tells them apart: where the daemon cannot say, the hook looks for itself."""
    world = World(tmp_path)
    try:
        world.succeed(CreateVgpus(type="T4-8Q", name="seat"))
        vgpu = UUID(world.service.vgpu("seat")["uuid"])
        ours = (NamedVgpu(vgpu, MdevSource(vgpu)),)
        start = DomainStart(domain="win1", uuid=ID, token="t", vgpus=ours)
        assert world.service.start_domain(start, 20.0) == {"allowed": True}
        second = DomainStart(domain="win2", uuid=OTHER, token="u", vgpus=ours)
        refused = world.service.start_domain(second, 20.0)
        assert (refused["allowed"], refused["code"]) == (False, "vgpu-busy")
        assert refused["why"] == "vGPU seat is not free: domain win1 has it; stop win1 first"
        world.service.release_domain(
            DomainRelease(domain="win1", uuid=ID, token="t", vgpus=(vgpu,), saved=False)
        )
        assert world.service.start_domain(second, 20.0) == {"allowed": True}
        world.service.stop()
        with pytest.raises(errors.Unavailable):
            world.service.start_domain(start, 20.0)
    finally:
        world.close()

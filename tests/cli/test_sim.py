"""`vgpuctl sim`: what is asked of the simulated host."""

from __future__ import annotations

import pytest

from tests.cli import canned
from tests.cli.conftest import Run
from tests.cli.fakedaemon import FakeDaemon
from vgpuctl.cli.sim import _FAULTS
from vgpuctl.sim.faults import KINDS

CONTROLS = {
    "reboot": ("reboot", {}),
    "reload-driver": ("reload-driver", {}),
    "hold win11-042": ("hold", {"vgpu": "0000:41:00.4"}),
    "hold mdev-1 --domain d": ("hold", {"vgpu": "aaaaaaaa-0000-4000-8000-000000000009", "domain": "d"}),
    "hold 0000:61:00.0": ("hold", {"vgpu": "0000:61:00.0"}),
    "release win11-042": ("release", {"vgpu": "0000:41:00.4"}),
    "fail create --errno EIO --count 2": ("fail", {"what": "create", "errno": "EIO", "count": 2}),
    "fail gpu --gpu 0 --hang": ("fail", {"what": "gpu", "gpu": "0000:41:00.0", "hang": True}),
    "heal": ("heal", {}),
    "remove-gpu 0": ("remove-gpu", {"gpu": "0000:41:00.0"}),
    "swap-gpu 0000:61:00.0": ("swap-gpu", {"gpu": "0000:61:00.0"}),
    "foreign 1 T4-4Q": ("foreign", {"gpu": "0000:61:00.0", "type": "T4-4Q"}),
    "slow 200": ("slow", {"ms": 200}),
}


@pytest.mark.parametrize("line", CONTROLS)
def test_control_that_is_sent(line: str, vgpuctl: Run, daemon: FakeDaemon) -> None:
    action, arguments = CONTROLS[line]
    daemon.answers["POST", f"/v1/sim/{action}"] = {"done": True}
    mdev = {**canned.VGPU, "name": "mdev-1", "mdev_uuid": "aaaaaaaa-0000-4000-8000-000000000009", "vf": None}
    daemon.answers["GET", "/v1/vgpus/mdev-1"] = mdev
    result = vgpuctl("sim", *line.split())
    assert (result.status, result.out) == (0, "done: yes\n")
    assert daemon.requests[-1].body == arguments


def test_what_can_fail_is_what_the_simulation_knows(vgpuctl: Run) -> None:
    """The CLI must not import the simulation, and so has the names a second time."""
    assert set(_FAULTS) == set(KINDS)
    assert all(kind in vgpuctl("sim", "fail", "--help").out for kind in KINDS)

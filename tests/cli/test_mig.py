"""`vgpuctl mig`, `import mig-parted` and `export --format mig-parted`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli import canned
from tests.cli.conftest import Run
from tests.cli.fakedaemon import FakeDaemon
from vgpuctl import surface

GPU = "0000:41:00.0"


def instance(number: int, profile: str, start: int, size: int, **more: Any) -> dict[str, Any]:
    facts = {"id": number, "profile": profile, "start": start, "size": size}
    return {**facts, "compute_instances": [], "vgpus": [], **more}


A100 = canned.make(
    surface.GPU,
    index=0,
    address=GPU,
    model="NVIDIA A100 80GB PCIe",
    state="ready",
    mig=True,
    mig_pending=True,
    mig_slices=8,
    gpu_instances=[
        instance(3, "2g.20gb", 0, 2, vgpus=["cad-1"]),
        instance(9, "1g.10gb+me", 2, 1),
        instance(2, "3g.40gb", 4, 4, compute_instances=["1c.3g.40gb"] * 3),
    ],
    device_id="10de:20b5/10de:1533",
)
PENDING = {**A100, "address": "0000:61:00.0", "index": 1, "mig": False, "gpu_instances": []}

PICTURE = """\
0000:41:00.0  NVIDIA A100 80GB PCIe  MIG on
 |     2g.20gb     |1g.10gb+|........|              3g.40gb              |
  0        1        2        3        4        5        6        7
  3  2g.20gb     slices 0-1  cad-1
  9  1g.10gb+me  slice 2     free
  2  3g.40gb     slices 4-7  compute instances 3 x 1c.3g.40gb
"""


def test_a_picture_in_eighty_columns(
    vgpuctl: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vgpuctl.cli.mig.has_unicode", lambda _stream: False)
    daemon.answers["GET", "/v1/gpus"] = [A100, PENDING, canned.L40S]
    daemon.answers["GET", "/v1/gpus/0"] = A100
    assert vgpuctl("mig", "show", "0").out == PICTURE
    both = vgpuctl("mig", "show").out
    assert both.startswith(PICTURE)
    assert "0000:61:00.0  NVIDIA A100 80GB PCIe  MIG off, on after the next reset" in both
    assert "L40S" not in both
    assert max(len(line) for line in both.splitlines()) <= 80


def test_a_gpu_without_mig_is_said(vgpuctl: Run, daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/v1/gpus/0"] = canned.L40S
    result = vgpuctl("mig", "show", "0")
    assert (result.status, result.out) == (4, "")
    assert "has no MIG" in result.err
    daemon.answers["GET", "/v1/gpus"] = [canned.L40S]
    assert "no GPU of this host has MIG" in vgpuctl("mig", "show").err


@pytest.mark.parametrize(
    ("layout", "mig"),
    [
        ("2g.20gb:2,1g.10gb:3", {"profiles": {"2g.20gb": 2, "1g.10gb": 3}}),
        ("1g.10gb:1, 1g.10gb:2", {"profiles": {"1g.10gb": 3}}),
        (
            "2g.20gb@0,1g.10gb+me@6",
            {"instances": [{"profile": "2g.20gb", "start": 0}, {"profile": "1g.10gb+me", "start": 6}]},
        ),
        ("A100D-2-20C:2,A100D-1-10C:3", {"vgpus": {"A100D-2-20C": 2, "A100D-1-10C": 3}}),
    ],
)
def test_layouts_on_the_command_line(
    layout: str, mig: dict[str, Any], vgpuctl: Run, daemon: FakeDaemon
) -> None:
    daemon.answers["POST", "/v1/plans"] = canned.MATCH
    assert vgpuctl("mig", "plan", "--gpu", GPU, "--layout", layout).status == 0
    assert daemon.requests[-1].body == {"action": "set-mig", "gpu": GPU, "mig": mig}


@pytest.mark.parametrize(
    "layout", ["", "2g.20gb", "2g.20gb:x", "2g.20gb@x", "2g.20gb@0,1g.10gb:2", "2g.20gb:1,A100D-2-20C:1"]
)
def test_what_is_no_layout_is_a_usage_error(layout: str, vgpuctl: Run, daemon: FakeDaemon) -> None:
    assert vgpuctl("mig", "plan", "--gpu", GPU, "--layout", layout).status == 2
    assert daemon.requests == []


@pytest.mark.parametrize(("verb", "enabled"), [("enable", True), ("disable", False)])
def test_the_mode(verb: str, enabled: bool, vgpuctl: Run, daemon: FakeDaemon) -> None:
    assert vgpuctl("mig", verb, GPU, "--dry-run").status == 0
    assert daemon.requests[-1].body == {"action": "set-mig", "gpu": GPU, "mig": {"enabled": enabled}}


def test_a_plan_shows_what_becomes_of_the_instances(vgpuctl: Run, daemon: FakeDaemon) -> None:
    layout = {
        "gpu": GPU,
        "slices": 8,
        "kept": [{"profile": "2g.20gb", "start": 0}],
        "destroyed": [{"profile": "1g.10gb", "start": 6}],
        "created": [{"profile": "3g.40gb", "start": 4}],
        "source": "catalogue",
    }
    daemon.answers["POST", "/v1/plans"] = {**canned.MATCH, "mig": [layout]}
    shown = vgpuctl("mig", "plan", "--gpu", GPU, "--layout", "2g.20gb:1,3g.40gb:1").out
    assert "- destroyed: 1g.10gb@6" in shown
    assert "+ created: 3g.40gb@4" in shown
    assert "kept: 2g.20gb@0" in shown
    assert "placements are the catalogue's" in shown


def test_import_of_mig_parted(vgpuctl: Run, daemon: FakeDaemon, tmp_path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("version: v1\n", encoding="utf-8")
    assert vgpuctl("import", "mig-parted", str(file), "--config", "custom", "--dry-run").status == 0
    assert daemon.requests[-1].body == {
        "action": "import-mig-parted",
        "source": "version: v1\n",
        "config": "custom",
    }


def test_export_as_mig_parted(vgpuctl: Run, daemon: FakeDaemon) -> None:
    off = {**PENDING, "address": "0000:a1:00.0"}
    daemon.answers["GET", "/v1/gpus"] = [A100, canned.L40S, PENDING, off]
    found = json.loads(vgpuctl("export", "--format", "mig-parted", "-o", "json").out)
    assert found == {
        "version": "v1",
        "mig-configs": {
            "current": [
                {
                    "devices": [0],
                    "mig-enabled": True,
                    "mig-devices": {"1c.3g.40gb": 3, "1g.10gb+me": 1, "2g.20gb": 1},
                },
                {"devices": [2, 3], "mig-enabled": False, "mig-devices": {}},
            ]
        },
    }
    daemon.answers["GET", "/v1/gpus"] = [{**A100, "gpu_instances": None}]
    result = vgpuctl("export", "--format", "mig-parted")
    assert (result.status, result.out) == (7, "")


def test_documents_and_shares_are_told_in_the_words_of_a_layout(
    vgpuctl: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no line is longer than the terminal is wide."""
    monkeypatch.setattr("vgpuctl.cli.planview.width_of", lambda _stream: 80)
    shared = {"profile": "3g.40gb", "start": 4, "compute_instances": {"1c.3g.40gb": 1, "3g.40gb": 1}}
    before = {"enabled": True, "profiles": {"1g.10gb": 3, "2g.20gb": 2}}
    after = {"enabled": True, "instances": [{"profile": "3g.40gb", "start": 0}, shared]}
    layout = {
        "gpu": GPU,
        "slices": 8,
        "destroyed": [{"profile": "1g.10gb+me", "start": each} for each in range(7)],
        "compute_instances": [shared],
    }
    problem = {
        "subject": f"Gpu/{GPU}",
        "code": "no-capacity",
        "detail": f"GPU {GPU} (NVIDIA A100 80GB PCIe) has no room for 2 x 7g.80gb; at most 1 x 7g.80gb fits",
        "hint": "in the way: " + ", ".join(f"2g.20gb@{each} (vGPU cad-{each})" for each in (0, 2, 4)),
    }
    daemon.answers["POST", "/v1/plans"] = {
        **canned.MATCH,
        "changes": [{"key": f"Gpu/{GPU}", "before": {"mig": before}, "after": {"mig": after}}],
        "mig": [layout],
        "problems": [problem],
    }
    shown = vgpuctl("mig", "plan", "--gpu", GPU, "--layout", "7g.80gb:2").out
    assert "mig: 1g.10gb:3, 2g.20gb:2 -> 3g.40gb@0, 3g.40gb@4/1c/3c" in shown
    assert "compute instances then: 3g.40gb@4/1c/3c" in shown
    assert shown.count(GPU) == 3, "the GPU is not named twice in one line"
    assert max(map(len, shown.splitlines())) <= 80

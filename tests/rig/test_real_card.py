"""The conformance suite as it runs on a machine with a card of its own, here with one that is simulated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PF = "0000:41:00.0"
VF = Path("/sys/bus/pci/devices/0000:41:00.4/nvidia/current_vgpu_type")


@pytest.fixture
def card(nvsim):
    nvsim.load("a2:vendor-vfio@41")
    return nvsim


SUITE = "tests/conformance"
MUTATING = f"{SUITE}/test_conformance_every_framework.py"
"""Where the cases are that are picked here; the rest is not collected for them."""


def conformance(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
    environment = {key: value for key, value in os.environ.items() if key not in ("VGPUCTL_RIG", "CI")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=280)


def sriov_manage(verb: str) -> None:
    subprocess.run(["/usr/lib/nvidia/sriov-manage", verb, PF], check=True, capture_output=True)


@pytest.mark.rig
def test_a_named_card_is_used_and_left_as_it_was_found(card):
    some = "real and (test_a_created or test_a_held or test_another_size)"
    done = conformance(MUTATING, "--gpu", PF, "-k", some)
    assert done.returncode == 0, done.stdout
    assert "\n3 passed" in done.stdout, done.stdout
    assert Path(f"/sys/bus/pci/devices/{PF}/sriov_numvfs").read_text() == "0\n"


@pytest.mark.thorough
@pytest.mark.rig
def test_looking_changes_nothing_and_a_card_in_use_is_refused(card):
    sriov_manage("-e")
    card.reset_writes()
    done = conformance(SUITE, "--real", "-k", "real")
    assert done.returncode == 0, done.stdout
    assert "\n5 passed" in done.stdout, done.stdout
    assert set(card.writes().values()) == {0}

    with Path("/dev/nvidia0").open():
        refused = conformance(MUTATING, "--gpu", PF, "-k", "real and test_a_created")
    assert refused.returncode == 4
    assert "/dev/nvidia0 open" in refused.stdout + refused.stderr

    first = VF.with_name("creatable_vgpu_types").read_text().splitlines()[1].split()[0]
    VF.write_text(first)
    refused = conformance(MUTATING, "--gpu", PF, "-k", "real and test_a_created")
    assert refused.returncode == 4
    assert "carries 1 vGPUs" in refused.stdout + refused.stderr
    assert VF.read_text().strip() == first

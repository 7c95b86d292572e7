"""scripts/setup on machines that are not to be changed: programs of our own stand in for apt and pgrep."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which every Debian package is missing."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    programs = {
        "dpkg-query": "exit 1",
        "sudo": 'shift; [ "$1" = true ] || exec "$@"',
        "apt-get": f'echo "$@" >> {tmp_path}/apt; exit 1',
        "pgrep": f"[ -e {tmp_path}/guests ]",
        "cat": f"case $1 in /sys/*) [ -e {tmp_path}/gpu ] || exit 1; esac; "
        'case $1 in */class) echo 0x030200;; */vendor) echo 0x10de;; *) exec /bin/cat "$@";; esac',
    }
    (tmp_path / "bin").mkdir()
    for name, script in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def run(checkout: Path, **environ: str) -> tuple[str, bool]:
    """What scripts/setup says, and whether it went to apt."""
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [checkout / "scripts/setup"],
        env={"PATH": path, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    return done.stderr, (checkout / "apt").exists()


@pytest.mark.parametrize(("sign", "why"), [("guests", "runs guests"), ("gpu", "has an NVIDIA GPU")])
def test_a_hypervisor_gets_no_packages_unasked(checkout, sign, why):
    """apt may upgrade libvirt and QEMU under running desktops."""
    (checkout / sign).touch()
    said, went_to_apt = run(checkout)
    assert why in said
    assert "libvirt-dev" in said
    assert not went_to_apt
    assert run(checkout, VGPUCTL_SETUP_INSTALLS="1")[1]


def test_another_machine_does(checkout):
    assert run(checkout)[1]

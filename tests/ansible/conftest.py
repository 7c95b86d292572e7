"""A controller, and a daemon on simulated cards behind it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.ansible.controller import ENVIRONMENT, SOURCE, Controller
from tests.support.daemon import running
from vgpuctl import __version__


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as users get it: built, and installed where nothing else is."""
    if not (ENVIRONMENT / ".made-from").exists():
        why = "the tests of the Ansible collection need .venv-ansible: scripts/setup --ansible"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    directory = tmp_path_factory.mktemp("collections")
    galaxy = [ENVIRONMENT / "bin/ansible-galaxy", "collection"]
    env = {**os.environ, "HOME": str(ENVIRONMENT / "home"), "ANSIBLE_COLLECTIONS_PATH": str(directory)}
    for command in (
        ["build", SOURCE, "--output-path", directory],
        ["install", "--offline", "--collections-path", directory, f"vgpuctl-vgpuctl-{__version__}.tar.gz"],
    ):
        done = subprocess.run(
            [*galaxy, *command], cwd=directory, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture
def controller(tmp_path: Path, collections: Path) -> Controller:
    (tmp_path / "controller").mkdir()
    return Controller(tmp_path / "controller", collections)


@pytest.fixture
def daemon(tmp_path: Path):
    with running(tmp_path, cards="t4,l40s:sriov-mdev,a100-80") as daemon:
        yield daemon

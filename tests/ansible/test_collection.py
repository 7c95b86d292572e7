"""The collection as it is built, under Ansible's own checks."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest
import yaml

from tests.ansible.controller import ENVIRONMENT, SOURCE, Controller
from tests.support.daemon import TOP
from vgpuctl import __version__

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def built(collections: Path) -> Path:
    return collections / "ansible_collections/vgpuctl/vgpuctl"


def version_of_python() -> str:
    (library,) = (ENVIRONMENT / "lib").iterdir()
    return library.name.removeprefix("python")


@pytest.mark.thorough
def test_sanity(controller: Controller, built: Path):
    done = controller.run(
        "ansible-test", "sanity", "--color", "no", "--python", version_of_python(), cwd=built
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("validate-modules", "pylint", "import", "yamllint"):
        assert f'Running sanity test "{name}"' in done.stdout


def test_lint(controller: Controller, built: Path):
    done = controller.run("ansible-lint", "--offline", "--nocolor", cwd=built)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'production'" in done.stderr, done.stderr


def test_what_is_built_has_the_units_and_the_hook_themselves(built: Path):
    """In the repository they are links into packaging/."""
    files, packaging = built / "roles/vgpuctl/files", TOP / "packaging"
    units = ("vgpuctl.service", "vgpuctl.socket", "vgpuctl-ready.target")
    kept = {f"systemd/{name}": packaging / "systemd" / name for name in units} | {
        "tmpfiles/vgpuctl.conf": packaging / "systemd/vgpuctl.tmpfiles",
        "sysusers/vgpuctl.conf": packaging / "systemd/vgpuctl.sysusers",
        "udev/60-vgpuctl.rules": packaging / "systemd/vgpuctl.udev",
        "hook/vgpuctl": packaging / "libvirt/libvirt-hook",
        "hook/program": packaging / "libvirt/qemu_hook.py",
    }
    for name, path in kept.items():
        assert not (files / name).is_symlink()
        assert (files / name).read_bytes() == path.read_bytes()
    assert os.access(files / "hook/vgpuctl", os.X_OK)


def test_it_has_the_version_of_the_program():
    assert yaml.safe_load((SOURCE / "galaxy.yml").read_text())["version"] == __version__


@pytest.mark.parametrize("module", ["apply", "attachment", "gpu", "info", "vgpu"])
def test_every_module_is_in_the_group_for_defaults(module: str):
    groups = yaml.safe_load((SOURCE / "meta/runtime.yml").read_text())["action_groups"]
    assert module in groups["daemon"]
    assert len(groups["daemon"]) == len(list((SOURCE / "plugins/modules").glob("*.py")))


def test_modules_use_the_standard_library_alone():
    """The managed host has an interpreter and no more."""
    roots = set()
    for path in [*(SOURCE / "plugins/modules").glob("*.py"), *(SOURCE / "plugins/module_utils").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots.add(str(node.module).partition(".")[0])
    assert roots - sys.stdlib_module_names == {"ansible", "ansible_collections"}

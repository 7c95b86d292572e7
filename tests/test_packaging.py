"""What is installed: the wheel with its data, the lock, and the reasons for what we depend on."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.rig import payload

ROOT = Path(__file__).parents[1]


LOCKS = ("requirements.lock", "ansible/requirements.lock")


def requirements(lock: str) -> list[Requirement]:
    """What the lock was made from."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"] + setup["options.extras_require"]["test"]
    if lock != "requirements.lock":
        lines = re.sub(r"#.*", "", (ROOT / lock).with_suffix(".in").read_text())
    return [Requirement(each) for each in lines.splitlines() if each.strip()]


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / lock).read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+) ", text, re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_holds_everything_that_is_asked_for(lock: str) -> None:
    pinned = pins(lock)
    for each in requirements(lock):
        name = canonicalize_name(each.name)
        assert name in pinned, f"{name} is not locked: run make lock"
        assert each.specifier.contains(pinned[name]), f"{name} is locked at another version: run make lock"


def test_what_builds_is_locked() -> None:
    assert "setuptools" in pins("requirements.lock"), "scripts/setup builds with it"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_the_lock_names_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    blocks = re.split(r"\n(?=[a-z0-9.-]+==)", text)[1:]
    assert len(blocks) == len(pins(lock))
    assert [each.split(" ")[0] for each in blocks if "--hash=sha256:" not in each] == []
    assert "://" not in text


def test_every_dependency_has_a_reason() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text().lower()
    assert [
        each.name for lock in LOCKS for each in requirements(lock) if f"| {each.name.lower()} |" not in text
    ] == []
    packages = (ROOT / "scripts" / "debian-packages").read_text()
    assert len(re.findall(r"^[a-z0-9.+-]+", packages, re.MULTILINE)) > 5


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools")
    return payload.wheel(tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
def test_the_wheel_carries_the_code_and_both_directories_of_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {str(each.relative_to(ROOT)) for each in (ROOT / "vgpuctl").rglob("*.py")}
    data = {
        str(Path("vgpuctl", package) / each.relative_to(ROOT / directory))
        for package, directory in (("templates", "templates"), ("mdev_profiles", "mdev-profiles"))
        for each in (ROOT / directory).rglob("*")
        if each.is_file() and "__pycache__" not in each.parts
    }
    assert code | data | {"vgpuctl/py.typed"} <= names, sorted((code | data) - names)
    assert any(each.endswith("LICENSE") for each in names)
    assert {each.split("/")[0] for each in names if ".dist-info/" not in each} == {"vgpuctl"}


@pytest.mark.slow
def test_an_installed_vgpuctl_finds_its_data(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    script = (
        "import vgpuctl.resources as r; print(r.profiles_directory()); print(r.templates_directory());"
        "assert list(r.profiles_directory().glob('*.yaml')) and list(r.templates_directory().glob('*.xml'))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(target / "vgpuctl" / each) for each in ("mdev_profiles", "templates")]

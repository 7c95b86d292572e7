"""Packages as `make deb` builds them, and roots to install them in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.marks import thorough
from tests.support.package import built
from tools import roots

EXTRAS = ("bash-completion", "fish", "man-db", "udev", "zsh")
"""What a root has beside the package's own dependencies: programs that use what it brings."""


def run(*command: str | Path, at: Path | None = None) -> str:
    """What a command prints; it has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=at)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Package:
    """A package of a release, built from this checkout."""

    release: str
    file: Path

    def field(self, name: str) -> str:
        """A field of its control file."""
        return run("dpkg-deb", "--field", self.file, name).strip()

    def depends(self) -> tuple[str, ...]:
        """The packages that it needs; of alternatives the first."""
        return tuple(re.match(r"[a-z0-9.+-]+", each.strip())[0] for each in self.field("Depends").split(","))

    def newer(self) -> Package:
        """The same with a higher version."""
        file = self.file.with_name("newer.deb")
        if not file.exists():
            tree = self.file.with_name("newer")
            run("dpkg-deb", "--raw-extract", self.file, tree)
            control = tree / "DEBIAN" / "control"
            control.write_text(re.sub(r"(?m)^Version: .*$", r"\g<0>.1", control.read_text()))
            run("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, file)
            shutil.rmtree(tree)
        return Package(self.release, file)


class Host:
    """A root of a release in which packages are installed; no systemd runs in it."""

    def __init__(self, root: roots.Root, shown: Path) -> None:
        self._root = root
        self._shown = shown

    def do(self, command: str, *, status: int = 0) -> str:
        """What a line of sh prints, on both streams."""
        done = self._root.run(command, self._shown)
        text = done.stdout + done.stderr
        assert done.returncode == status, f"{command} ended with {done.returncode}:\n{text}"
        return text

    def install(self, package: Package) -> str:
        return self.do(f"dpkg --install {roots.PLACE}/{package.file.name}")

    def found(self, where: str = "/", *names: str) -> list[str]:
        """The paths of our name, or of those, but for what dpkg notes."""
        tests = " -o ".join(f"-name '{each}'" for each in names or ("*vgpuctl*",))
        left_out = (
            f"-path {roots.PLACE} -o -path /proc -o -path /dev -o -path /var/lib/dpkg -o -path /var/log"
        )
        return self.do(f"find {where} \\( {left_out} \\) -prune -o \\( {tests} \\) -print").splitlines()


@pytest.fixture(scope="session", params=[thorough("bookworm"), "trixie"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    missing = [each for each in ("mmdebstrap", "unshare", "dpkg-deb") if shutil.which(each) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"packages are built as root, with {', '.join(missing) or 'nothing more'}")
    release = request.param
    return Package(release, Path(shutil.copy(built(release), tmp_path_factory.mktemp(release))))


@pytest.fixture(scope="session")
def bare(package: Package, tmp_path_factory: pytest.TempPathFactory) -> roots.Root:
    """A root with what the package needs, and without the package."""
    layer = tmp_path_factory.mktemp("bare")
    root = roots.made(package.release, "install", (*package.depends(), *EXTRAS), layer)
    Host(root, package.file.parent).do("true")
    return root


@pytest.fixture(scope="session")
def installed(package: Package, bare: roots.Root, tmp_path_factory: pytest.TempPathFactory) -> roots.Root:
    """The same with the package."""
    root = bare.over(tmp_path_factory.mktemp("installed"))
    Host(root, package.file.parent).install(package)
    return root


@pytest.fixture
def new_host(package: Package, bare: roots.Root, tmp_path: Path) -> Host:
    """A host without the package."""
    return Host(bare.over(tmp_path), package.file.parent)


@pytest.fixture
def host(package: Package, installed: roots.Root, tmp_path: Path) -> Host:
    """A host with the package, just installed."""
    return Host(installed.over(tmp_path), package.file.parent)

"""Python packages for a guest or a Debian package, and their Python, as requirements.lock pins them."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from tests.rig.cache import RigError

REPOSITORY: Final = Path(__file__).parents[2]
RUNTIME: Final = ("vgpuctl",)
IN_A_GUEST: Final = (*RUNTIME, "pytest", "pytest-timeout", "hypothesis", "jsonschema")
_FROM_DEBIAN: Final = frozenset({"libvirt-python"})
"""It comes as source and fits a release's own libvirt when it is Debian's."""
_PLATFORMS: Final = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def locked(wanted_by: tuple[str, ...] = IN_A_GUEST) -> tuple[str, ...]:
    """The lines of requirements.lock for what those packages need, with their hashes."""
    wanted, found = _closure(wanted_by), []
    take = False
    for line in (REPOSITORY / "requirements.lock").read_text().splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            take = _canonical(line.split("==")[0]) in wanted
        if take and not line.lstrip().startswith("#"):
            found.append(line)
    return tuple(found)


def install(python: str, path: Path, wanted_by: tuple[str, ...] = IN_A_GUEST) -> None:
    """Put them into `path` for that Python, from wheels alone."""
    lock = path.with_suffix(".lock")
    lock.write_text("\n".join(locked(wanted_by)) + "\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"),
            *("--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"),
            *(f"--platform={each}" for each in _PLATFORMS),
            f"--python-version={python}",
            *("--implementation=cp", f"--target={path}", "-r", str(lock)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RigError(f"the Python packages cannot be installed:\n{done.stderr[-3000:]}")
    lock.unlink()


def _closure(wanted_by: tuple[str, ...]) -> frozenset[str]:
    """The names of those packages and of all that they require, as installed here."""
    found: set[str] = set()
    left = [_canonical(each) for each in wanted_by]
    while left:
        name = left.pop()
        if name in found or name in _FROM_DEBIAN:
            continue
        found.add(name)
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another platform or Python
        left += [_canonical(_name(each)) for each in requires if "extra ==" not in each]
    return frozenset(found)


def _name(requirement: str) -> str:
    match = _NAME.match(requirement)
    assert match is not None
    return match[0]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()

"""The Debian package of this checkout, built once for all tests that install it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.rig.cache import key_of
from tests.rig.debian import archive
from tools import roots

TOP = Path(__file__).parents[2]


def built(release: str) -> Path:
    """The .deb for that release, as `make deb` builds it; kept by what it comes from."""
    key = key_of(release, archive(), *_made_from())
    directory = roots.cache().layer(f"{release}-package", key, lambda path: _build(release, path))
    return next(directory.glob("*.deb"))


def _made_from() -> list[Path]:
    names = "docs mdev-profiles packaging templates tools vgpuctl CHANGELOG.md LICENSE README.md"
    builders = sorted((TOP / "tests" / "rig").glob("*.py"))
    return [*(TOP / each for each in names.split()), TOP / "requirements.lock", TOP / "setup.cfg", *builders]


def _build(release: str, out: Path) -> None:
    command = [sys.executable, TOP / "tools" / "build_deb.py", "--out", out, release]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

#!/usr/bin/env python3
"""Build the Debian packages into a directory, each in a root of the release that it is for.

    tools/build_deb.py [--out dist] [RELEASE...]

Without a name, one for Debian 12 and one for Debian 13.  lintian of the same release has to find nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from tests.rig import dependencies  # noqa: E402
from tests.rig.cache import RigError  # noqa: E402
from tests.rig.guests import BOOKWORM, GUESTS, TRIXIE  # noqa: E402
from tests.rig.payload import wheel  # noqa: E402
from tools import roots  # noqa: E402
from vgpuctl import __version__  # noqa: E402

VERSIONS = {BOOKWORM: f"{__version__}+deb12", TRIXIE: f"{__version__}+deb13"}
"""The version of each release's package; an upgrade of Debian goes to the next one."""
BUILD_PACKAGES = ("debhelper", "lintian", "python3")
SOURCES = ("README.md", "CHANGELOG.md", "LICENSE", "docs", "tools/build_man.py")
CHANGES = """\
vgpuctl ({version}) {release}; urgency=medium

  * Version {upstream}; its changes are in /usr/share/doc/vgpuctl/CHANGELOG.md.

 -- {maintainer}  {date}
"""


def build(release: str, out: Path) -> Path:
    """Build the package of that release into `out`; RigError when that fails or lintian finds something."""
    with tempfile.TemporaryDirectory(prefix="vgpuctl-deb-") as work:
        root = roots.made(release, "build", BUILD_PACKAGES, Path(work) / "layer")
        shown = Path(work) / "shown"
        source = shown / "source"
        _gather(release, source)
        epoch = str(int(_date().timestamp()))
        _must(
            root, "cd source && dpkg-buildpackage --build=binary --no-check-builddeps -us -uc", shown, epoch
        )
        (package,) = shown.glob("*.deb")
        _must(root, f"lintian --fail-on=error,warning {package.name}", shown, epoch)
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(package, out))


def _gather(release: str, source: Path) -> None:
    """What the package is built from: Debian's directory, and `site` with the Python packages."""
    shutil.copytree(TOP / "packaging" / "debian", source / "debian")
    for unit in (TOP / "packaging" / "systemd").iterdir():
        shutil.copy(unit, source / "debian")
    for each in SOURCES:
        (source / each).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (TOP / each).is_dir() else shutil.copy)(TOP / each, source / each)
    for each in ("libvirt-hook", "qemu_hook.py"):
        shutil.copy(TOP / "packaging" / "libvirt" / each, source)
    dependencies.install(GUESTS[release].python, source / "site", dependencies.RUNTIME)
    with tempfile.TemporaryDirectory() as work, zipfile.ZipFile(wheel(Path(work))) as archive:
        archive.extractall(source / "site")
    control = (source / "debian" / "control").read_text(encoding="utf-8")
    (maintainer,) = (line for line in control.splitlines() if line.startswith("Maintainer: "))
    text = CHANGES.format(
        version=VERSIONS[release],
        release=release,
        upstream=__version__,
        maintainer=maintainer.removeprefix("Maintainer: "),
        date=format_datetime(_date()),
    )
    (source / "debian" / "changelog").write_text(text, encoding="utf-8")


def _date() -> datetime:
    """The date of the last commit, so that one commit gives one package; now where git knows none."""
    asked = subprocess.run(
        ["git", "-c", f"safe.directory={TOP}", "log", "-1", "--format=%ct"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    return datetime.fromtimestamp(int(asked.stdout), UTC) if asked.returncode == 0 else datetime.now(UTC)


def _must(root: roots.Root, command: str, shown: Path, epoch: str) -> None:
    done = root.run(f"cd {roots.PLACE} && {command}", shown, SOURCE_DATE_EPOCH=epoch)
    if done.returncode:
        raise RigError(f"{command} failed:\n{(done.stdout + done.stderr)[-9000:]}")


def main() -> int:
    """Build what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=TOP / "dist")
    parser.add_argument("release", nargs="*", metavar="RELEASE", help=" or ".join(VERSIONS))
    given = parser.parse_args()
    if unknown := set(given.release) - set(VERSIONS):
        parser.error(f"no package is made for {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        return _said("packages are built as root, in roots of the releases that they are for")
    if shutil.which("mmdebstrap") is None:
        return _said("mmdebstrap is missing: scripts/setup --rig installs it")
    try:
        for release in given.release or VERSIONS:
            sys.stdout.write(f"{build(release, given.out)}\n")
    except RigError as error:
        return _said(str(error))
    return 0


def _said(why: str) -> int:
    sys.stderr.write(f"deb: {why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

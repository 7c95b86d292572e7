"""What a guest gets for one run: the repository, vgpuctl as installed, kernel modules, NVML."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from tests.rig.commands import of_tree, run
from tests.rig.layers import GUEST_FILES, REPOSITORY, Layers

INSTALL: Final = "mkdir -p /srv && tar -xf /dev/vdb -C /srv && sh /srv/guest/install"
"""What a guest runs to take it in."""


def pack(layers: Layers, archive: Path) -> None:
    """Write the tar archive of a run; its tests are of the installed vgpuctl, not of one beside them."""
    with tempfile.TemporaryDirectory() as work, tarfile.open(archive, "w") as tar:
        for path in repository_files():
            if not path.startswith("vgpuctl/"):
                tar.add(REPOSITORY / path, f"tree/{path}")
        tar.add(layers.modules, "modules")
        tar.add(GUEST_FILES, "guest")
        tar.add(_site(layers, Path(work)), "site")


def _site(layers: Layers, work: Path) -> Path:
    """What pip would lay down: the wheel's files, and their bytecode.

    Made here, by the guest's Python: there it takes seconds, and the service, which may not write to
    its own files, would do it at each start.
    """
    site = work / "site"
    with zipfile.ZipFile(wheel(work)) as found:
        found.extractall(site)
    run(
        *of_tree(layers.root, f"usr/bin/python{layers.guest.python}"),
        *("-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
        *("-s", site, "-p", f"/{layers.guest.site}", site),
        PYTHONHOME=str(layers.root / "usr"),
    )
    return site


def repository_files() -> list[str]:
    """Every file of the repository that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(each for each in set(listed.stdout.split("\0")) if each and (REPOSITORY / each).is_file())


def wheel(work: Path) -> Path:
    """A wheel of vgpuctl, built in `work`."""
    # pip builds in the source tree; two runs at once must not meet there.
    source = work / "source"
    for path in repository_files():
        if path.startswith(("vgpuctl/", "templates/", "mdev-profiles/")) or "/" not in path:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / path, source / path)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"),
            *("--no-deps", "--no-build-isolation", "--wheel-dir", str(work), str(source)),
        ],
        check=True,
    )
    return next(work.glob("*.whl"))

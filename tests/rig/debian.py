"""What comes from the Debian archive that this machine uses: a guest's root, its kernel, a compiler."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.rig.cache import RigError
from tests.rig.commands import in_chroot, run, shell
from tests.rig.guests import Guest

_NOT_WANTED: Final = ("man", "doc", "locale", "info")


def archive() -> str:
    """The address of the Debian archive that this machine uses; raises RigError where it has none."""
    if chosen := os.environ.get("VGPUCTL_RIG_ARCHIVE"):
        return chosen
    answer = run("apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages")
    for line in answer.splitlines():
        origin, _, address = line.partition(" ")
        if origin == "Debian" and "security" not in address:
            return address
    raise RigError("this machine uses no Debian archive (run apt-get update, or set VGPUCTL_RIG_ARCHIVE)")


def root(guest: Guest, path: Path) -> None:
    """The guest's root file system, without a kernel."""
    _debootstrap(guest, path / "tree", "minbase", guest.packages)


def kernel(guest: Guest, path: Path) -> None:
    """`build`, in which kernel modules are made, `image`, the kernel itself, and the samples' sources."""
    tree, image = path / "build", path / "image"
    _debootstrap(guest, tree, "apt", guest.build)
    version = next(tree.glob("usr/src/linux-headers-*-amd64")).name.removeprefix("linux-headers-")
    (path / "version").write_text(version)
    short = ".".join(version.split(".")[:2])
    in_chroot(
        tree,
        "cd /tmp && apt-get -qq update && "
        f"apt-get -qq -o APT::Sandbox::User=root download linux-image-{version} linux-source-{short}",
    )
    (package,) = tree.glob("tmp/linux-image-*.deb")
    run("dpkg-deb", "-x", package, image)
    if not (image / "lib").exists():
        (image / "lib").symlink_to("usr/lib")
    run("depmod", "-b", image, version)
    (source,) = tree.glob("tmp/linux-source-*.deb")
    inside = f"./usr/src/linux-source-{short}.tar.xz"
    (path / "samples").mkdir()
    shell(
        f"dpkg-deb --fsys-tarfile {source} | tar -xO {inside} | xz -dc -T0 "
        f"| tar -x -C {path / 'samples'} --strip-components=3 linux-source-{short}/samples/vfio-mdev"
    )
    for each in (package, source):
        each.unlink()


def _debootstrap(guest: Guest, tree: Path, variant: str, packages: Iterable[str]) -> None:
    run(
        "mmdebstrap",
        "--quiet",
        f"--variant={variant}",
        "--mode=root",
        f"--include={','.join(packages)}",
        '--aptopt=Apt::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in _NOT_WANTED),
        guest.name,
        tree,
        archive(),
    )

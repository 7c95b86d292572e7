"""Roots of Debian releases, in which packages are built, looked at and installed.

They come from the archive that this machine itself uses, and are kept in `~/.cache/vgpuctl-deb`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.rig.cache import Cache, default_directory, key_of
from tests.rig.commands import run
from tests.rig.debian import archive

PLACE = "/shown"
"""Where a root has a directory of this machine."""
LIMIT_S = 600

_ENTER = """
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$LAYER/upper,workdir=$LAYER/work" "$LAYER/root"
mkdir -p "$LAYER/root$PLACE"
mount --bind "$SHOWN" "$LAYER/root$PLACE"
mount -t proc proc "$LAYER/root/proc"
mount --rbind /dev "$LAYER/root/dev"
if [ "$NETWORK" ]; then
    mount --rbind /sys "$LAYER/root/sys"
    cp --dereference --remove-destination /etc/resolv.conf "$LAYER/root/etc/resolv.conf"
fi
chroot "$LAYER/root" /bin/sh -c "cd / && $COMMAND"
"""


@dataclass(frozen=True, slots=True)
class Root:
    """A root file system: `below`, the uppermost first, never changes; what is written goes to `layer`."""

    below: tuple[Path, ...]
    layer: Path

    def over(self, layer: Path) -> Root:
        """A root that begins as this one is now; this one must not be written to any more."""
        return Root((self.layer / "upper", *self.below), layer)

    def run(
        self, command: str, shown: Path, *, network: bool = False, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of sh, as root, with the directory `shown` at PLACE.

        With `network` it has this machine's, and /sys.
        """
        for each in ("upper", "work", "root"):
            (self.layer / each).mkdir(parents=True, exist_ok=True)
        places = {"LAYER": self.layer, "SHOWN": shown, "LOWER": ":".join(map(str, self.below))}
        return subprocess.run(
            [
                "unshare",
                "--mount",
                "--pid",
                *([] if network else ["--net"]),
                "--fork",
                "--kill-child",
                "sh",
                "-euc",
                _ENTER,
            ],
            env=_environment(variables)
            | {key: str(path) for key, path in places.items()}
            | {"PLACE": PLACE, "COMMAND": command, "NETWORK": "yes" if network else ""},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )


def cache() -> Cache:
    """What is kept between builds."""
    return Cache(default_directory().with_name("vgpuctl-deb"))


def made(release: str, purpose: str, packages: tuple[str, ...], layer: Path) -> Root:
    """A root of that release with those packages, from the cache or made now; raises RigError."""

    def make(path: Path) -> None:
        run(
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"),
            *([f"--include={','.join(packages)}"] if packages else []),
            '--aptopt=Apt::Install-Recommends "false"',
            *(release, path / "tree", archive()),
        )

    key = key_of(release, *packages, archive())
    return Root((cache().layer(f"{release}-{purpose}", key, make) / "tree",), layer)


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "PATH": path,
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        "DEBIAN_FRONTEND": "noninteractive",
        **variables,
    }

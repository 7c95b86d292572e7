"""The layers of a guest, each made from the one before: packages, modules, image, saved machine.

Everything comes from the Debian archive that this machine itself uses.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.rig import debian, dependencies
from tests.rig.cache import Cache, key_of
from tests.rig.commands import in_chroot, run, shell
from tests.rig.guests import GUESTS, TRIXIE, Guest
from tests.rig.machine import Hardware, Machine

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
GUEST_FILES = HERE / "guest"
IMAGE_SIZE = "2G"
SAMPLES = ("mtty", "mbochs", "mdpy")
_BOOTED_WITHOUT = (
    "getty@tty1.service serial-getty@ttyS0.service apt-daily.timer apt-daily-upgrade.timer "
    "dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-timesyncd.service "
    "systemd-random-seed.service systemd-update-utmp.service systemd-journal-catalog-update.service "
    "systemd-update-done.service systemd-hwdb-update.service systemd-machine-id-commit.service "
    "systemd-firstboot.service ldconfig.service systemd-networkd-wait-online.service "
    "systemd-binfmt.service modprobe@drm.service modprobe@efi_pstore.service systemd-pstore.service "
    "keyboard-setup.service console-setup.service apparmor.service"
)


@dataclass(frozen=True, slots=True)
class Layers:
    """Where the layers of one guest lie.

    `root` is the tree of its packages; `kernel` has the tree in which modules are made; `modules` has
    ours and the kernel's samples, and libnvidia-ml.so.1.
    """

    guest: Guest
    root: Path
    kernel: Path
    hardware: Hardware
    golden: Path
    modules: Path


def build(guest: Guest, cache: Cache) -> Layers:
    """Every layer of a guest, from the cache or made now; raises RigError."""
    name = guest.name
    with ThreadPoolExecutor() as pool:
        root = pool.submit(_root, guest, cache)
        emulator = pool.submit(_root, GUESTS[TRIXIE], cache)
        kernel = pool.submit(
            cache.layer, f"{name}-kernel", _recipe(guest), lambda path: debian.kernel(guest, path)
        )
        site = pool.submit(
            cache.layer,
            f"{name}-site",
            key_of(guest.python, *dependencies.locked()),
            lambda path: dependencies.install(guest.python, path),
        )
        root_path, kernel_path, site_path = root.result(), kernel.result(), site.result()
        # Debian 12's QEMU takes a tenth longer for the same, and more than twice as long to start a program.
        emulator_path = emulator.result()
    modules = cache.layer(
        f"{name}-modules",
        key_of(
            Path(__file__),
            kernel_path.name,
            HERE / "nvsim",
            HERE / "nvml",
            REPOSITORY / "mdev-profiles" / "catalog",
        ),
        lambda path: build_modules(kernel_path, path),
    )
    image = cache.layer(
        f"{name}-image",
        key_of(
            Path(__file__),
            root_path.name,
            kernel_path.name,
            site_path.name,
            GUEST_FILES / "boot",
            GUEST_FILES / "init",
        ),
        lambda path: _image(guest, root_path, kernel_path, site_path, path),
    )
    hardware = Hardware(emulator_path / "tree", image)
    golden = cache.layer(
        f"{name}-golden",
        key_of(image.name, HERE / "machine.py", emulator_path.name, str(guest.mib)),
        lambda path: Machine.save(guest, hardware, path),
    )
    return Layers(guest, root_path / "tree", kernel_path, hardware, golden, modules)


def _recipe(guest: Guest) -> str:
    return key_of(Path(debian.__file__), repr(guest), debian.archive())


def _root(guest: Guest, cache: Cache) -> Path:
    return cache.layer(f"{guest.name}-root", _recipe(guest), lambda path: debian.root(guest, path))


def build_modules(kernel: Path, path: Path, sources: Path = HERE) -> None:
    """Our modules and the kernel's samples for the guest's kernel, and the simulated NVML library."""
    version = (kernel / "version").read_text()
    tree = kernel / "build"
    with tempfile.TemporaryDirectory(dir=tree / "tmp") as work:
        inside = Path("/tmp") / Path(work).name
        shutil.copytree(kernel / "samples", Path(work) / "samples")
        (Path(work) / "samples" / "Makefile").write_text(
            f"obj-m := {' '.join(f'{each}.o' for each in SAMPLES)}\n"
        )
        for name in ("nvsim", "nvml"):
            shutil.copytree(sources / name, Path(work) / name)
        tables = Path(work) / "nvsim" / "nvsim_tables.h"
        run(sys.executable, "-m", "tests.rig.nvsim.tables", tables, at=REPOSITORY)
        for name in ("samples", "nvsim"):
            in_chroot(tree, f"make -s -C /usr/src/linux-headers-{version} M={inside}/{name} modules")
            for module in (Path(work) / name).glob("*.ko"):
                run("strip", "-g", "-o", path / module.name, module)
        in_chroot(tree, f"make -s -C {inside}/nvml OUT={inside} TABLES={inside}/nvsim")
        shutil.copy(Path(work) / "libnvidia-ml.so.1", path)


def _image(guest: Guest, root: Path, kernel: Path, site: Path, path: Path) -> None:
    """`root.img`, `vmlinuz` and `initrd.img` of the guest."""
    version = (kernel / "version").read_text()
    with tempfile.TemporaryDirectory(dir=path) as work:
        tree = Path(work) / "tree"
        run("cp", "-a", "--reflink=auto", root / "tree", tree)
        target = tree / "usr" / "lib" / "modules" / version
        for module in _resolved(kernel, version, guest.modules):
            below = module.relative_to((kernel / "image" / "lib" / "modules" / version).resolve())
            (target / below).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module, target / below)
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            shutil.copy(kernel / "image" / "lib" / "modules" / version / name, target)
        run("depmod", "-b", tree, version)
        shutil.copytree(site, tree / guest.site, dirs_exist_ok=True)
        run("cp", "-a", f"{GUEST_FILES / 'boot'}/.", tree)
        units = tree / "etc" / "systemd" / "system"
        for unit in _BOOTED_WITHOUT.split():
            (units / unit).symlink_to("/dev/null")
        (units / "multi-user.target.wants").mkdir(exist_ok=True)
        (units / "multi-user.target.wants" / "rig-agent.service").symlink_to("../rig-agent.service")
        (tree / "etc/libvirt/qemu/networks/autostart/default.xml").unlink(missing_ok=True)
        _initrd(kernel, version, Path(work) / "initrd", path / "initrd.img")
        shutil.copy(next((kernel / "image" / "boot").glob("vmlinuz-*")), path / "vmlinuz")
        shutil.copy(path / "vmlinuz", tree / "boot" / "vmlinuz")
        run(
            "mke2fs",
            "-q",
            "-t",
            "ext4",
            "-O",
            "^has_journal",
            "-m",
            "0",
            "-d",
            tree,
            path / "root.img",
            IMAGE_SIZE,
        )


def _initrd(kernel: Path, version: str, work: Path, target: Path) -> None:
    """busybox, and the modules without which the root file system cannot be mounted."""
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        (work / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", work / "bin" / "busybox")
    for name in ("sh", "mount", "insmod", "switch_root", "sleep"):
        (work / "bin" / name).symlink_to("busybox")
    loaded = []
    for module in _resolved(kernel, version, ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")):
        shutil.copy(module, work / "modules")
        if module.suffix == ".xz":
            run("xz", "-d", work / "modules" / module.name)
        loaded.append(module.name.removesuffix(".xz"))
    (work / "modules" / "list").write_text("".join(f"{each}\n" for each in loaded))
    shutil.copy(GUEST_FILES / "init", work / "init")
    shell(f"cd {work} && find . | cpio -o -H newc --quiet > {target}")


def _resolved(kernel: Path, version: str, names: Iterable[str]) -> list[Path]:
    """The files of those modules and of all they need, in the order of loading; built-in ones have none."""
    found: dict[Path, None] = {}
    for name in names:
        asked = subprocess.run(
            ["modprobe", "-d", kernel / "image", "-S", version, "--show-depends", name],
            capture_output=True,
            text=True,
            check=False,
        )
        for line in asked.stdout.splitlines():
            verb, *rest = line.split()
            if verb == "insmod":
                found[Path(rest[0]).resolve()] = None
    return list(found)

"""What a host's kernel, NVML and libvirt say, as a JSON document that `--simulate` replays.

    {"format": "vgpuctl-capture/1",
     "host":    {"kernel": ..., "taken_at": ..., "sriov_manage": bool},
     "files":   {path: text | {"errno": "EACCES"}},
     "links":   {path: real path of what it points to},
     "dirs":    [path of a directory that was listed, or that a link leads to],
     "log":     [kernel log lines about vGPUs],
     "nvml":    a ports.nvml.NvmlHost,
     "domains": [a model.domain.Domain]}

The last two are as model.codec writes them, or `{"$kind": "Unknown", "reason": ...}`.

Paths are relative to the root.  As in sysfs a device's files stand under its real path
(`sys/devices/...`) and `sys/bus/pci/devices/<address>` is one of the `links`: a reader follows links in
the middle of a path too.  What is not in here was not there.
"""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from vgpuctl.host.redaction import Pseudonyms
from vgpuctl.model import codec
from vgpuctl.model.domain import Domain, Hostdev, vgpu_of_alias
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.ports.kernel import Kernel
from vgpuctl.ports.nvml import NvmlHost

T = TypeVar("T")

FORMAT = "vgpuctl-capture/1"

_PCI = "sys/bus/pci/devices"
_MDEV_PARENTS = "sys/class/mdev_bus"
_MDEVS = "sys/bus/mdev/devices"
_PROC_GPUS = "proc/driver/nvidia/gpus"
_HOSTNAME = "proc/sys/kernel/hostname"
_HOST_FILES = ("proc/sys/kernel/osrelease", "proc/sys/kernel/random/boot_id", "proc/driver/nvidia/version")
_DEVICE_FILES = (
    "vendor", "device", "subsystem_vendor", "subsystem_device", "class", "revision", "numa_node",
    "sriov_totalvfs", "sriov_numvfs", "sriov_offset", "sriov_stride", "sriov_drivers_autoprobe",
)  # fmt: skip
_DEVICE_LINKS = ("driver", "iommu_group", "physfn")
_MDEV_LINKS = ("driver", "iommu_group", "mdev_type")
_DISPLAY_CLASS = "0x03"
_LOG_LINE = re.compile(r"NVRM|nvidia|vgpu|vfio|mdev", re.IGNORECASE)
_LOG_LINES_MAX = 500


def capture(
    kernel: Kernel,
    nvml: Fact[NvmlHost],
    domains: Fact[tuple[Domain, ...]],
    *,
    taken_at: datetime,
    key: bytes | None = None,
) -> dict[str, Any]:
    """The document; redacted with pseudonyms under `key`, a fresh one where none is given."""
    pseudonyms = Pseudonyms(key or secrets.token_bytes(32))
    tree = _Tree(kernel)
    _record_host(tree)
    _record_gpus(kernel, tree)
    _record_mdevs(tree)
    if _HOSTNAME in tree.files:
        tree.files[_HOSTNAME] = pseudonyms.name("host", str(tree.files[_HOSTNAME]))
    document = {
        "format": FORMAT,
        "host": {
            "kernel": tree.files.get("proc/sys/kernel/osrelease"),
            "taken_at": taken_at.isoformat(),
            "sriov_manage": _has_sriov_manage(kernel),
        },
        "files": tree.files,
        "links": tree.links,
        "dirs": sorted(tree.dirs | set(tree.links.values())),
        "log": _log(kernel),
        "nvml": _nvml(nvml),
        "domains": _domains(domains, pseudonyms),
    }
    redacted: dict[str, Any] = pseudonyms.document(document)
    return redacted


class _Tree:
    """What was read so far; what cannot be read is part of it, what is not there is not."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.files: dict[str, Any] = {}
        self.links: dict[str, str] = {}
        self.dirs: set[str] = set()

    def file(self, path: str) -> str:
        """The text of a file, '' where it cannot be read."""
        text = self._try(path, self._kernel.read)
        if text is not None:
            self.files[path] = text
        return text or ""

    def directory(self, path: str) -> tuple[str, ...]:
        """The names in a directory, none where it cannot be listed."""
        names = self._try(path, self._kernel.list)
        if names is None:
            return ()
        self.dirs.add(path)
        return names

    def link(self, path: str) -> str:
        """Where a link leads, the path itself where it is none."""
        target = self._try(path, self._kernel.resolve)
        if target is None or target == path:
            return path
        self.links[path] = target
        return target

    def _try(self, path: str, call: Callable[[str], T]) -> T | None:
        try:
            return call(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                self.files[path] = {"errno": errno.errorcode.get(error.errno or 0, "EIO")}
            return None


def _record_host(tree: _Tree) -> None:
    for path in (*_HOST_FILES, _HOSTNAME):
        tree.file(path)
    for address in tree.directory(_PROC_GPUS):
        tree.file(f"{_PROC_GPUS}/{address}/information")


def _record_gpus(kernel: Kernel, tree: _Tree) -> None:
    for address in tree.directory(_PCI):
        # A look first: a host has hundreds of functions that are no GPUs.
        if _is_display(kernel, f"{_PCI}/{address}"):
            _record_device(tree, tree.link(f"{_PCI}/{address}"))
    for parent in tree.directory(_MDEV_PARENTS):
        _record_types(tree, tree.link(f"{_MDEV_PARENTS}/{parent}"))


def _is_display(kernel: Kernel, device: str) -> bool:
    try:
        return kernel.read(f"{device}/class").startswith(_DISPLAY_CLASS)
    except OSError:
        return False


def _record_device(tree: _Tree, device: str) -> None:
    if device in tree.dirs:
        return
    names = tree.directory(device)
    for name in names:
        if name in _DEVICE_FILES:
            tree.file(f"{device}/{name}")
        elif name in _DEVICE_LINKS:
            tree.link(f"{device}/{name}")
        elif name.startswith("virtfn"):
            vf = tree.link(f"{device}/{name}").rpartition("/")[2]
            _record_device(tree, tree.link(f"{_PCI}/{vf}"))
    _record_files(tree, f"{device}/nvidia")
    for name in tree.directory(f"{device}/vfio-dev"):
        tree.directory(f"{device}/vfio-dev/{name}")


def _record_types(tree: _Tree, parent: str) -> None:
    types = f"{parent}/mdev_supported_types"
    for name in tree.directory(types):
        _record_files(tree, f"{types}/{name}")


def _record_mdevs(tree: _Tree) -> None:
    for uuid in tree.directory(_MDEVS):
        mdev = tree.link(f"{_MDEVS}/{uuid}")
        tree.directory(mdev)
        for name in _MDEV_LINKS:
            tree.link(f"{mdev}/{name}")
        tree.file(f"{mdev}/remove")
        _record_files(tree, f"{mdev}/nvidia")


def _record_files(tree: _Tree, directory: str) -> None:
    """Every file of a directory; a write-only one shows in its errno that it is there."""
    for name in tree.directory(directory):
        if name != "devices":
            tree.file(f"{directory}/{name}")


def _has_sriov_manage(kernel: Kernel) -> bool:
    try:
        return kernel.exists("usr/lib/nvidia/sriov-manage")
    except OSError:
        return False


def _log(kernel: Kernel) -> list[str]:
    try:
        lines = kernel.log()
    except OSError:
        return []
    return [line.text for line in lines if _LOG_LINE.search(line.text)][-_LOG_LINES_MAX:]


def _nvml(nvml: Fact[NvmlHost]) -> Any:
    return _unknown(nvml) if isinstance(nvml, Unknown) else codec.encode(nvml, NvmlHost)


def _unknown(fact: Unknown) -> Any:
    return codec.encode(fact, NvmlHost | Unknown)  # beside another class it carries its name


def _domains(domains: Fact[tuple[Domain, ...]], pseudonyms: Pseudonyms) -> Any:
    if isinstance(domains, Unknown):
        return _unknown(domains)
    unnamed = (
        replace(
            domain,
            name=pseudonyms.name("domain", domain.name),
            live=_without_aliases(domain.live),
            config=_without_aliases(domain.config),
        )
        for domain in domains
    )
    return [codec.encode(domain, Domain) for domain in unnamed]


def _without_aliases(hostdevs: tuple[Hostdev, ...] | None) -> tuple[Hostdev, ...] | None:
    """Another's alias may be anything, a person's name too; ours is a UUID."""
    if hostdevs is None:
        return None
    return tuple(each if vgpu_of_alias(each.alias) else replace(each, alias=None) for each in hostdevs)

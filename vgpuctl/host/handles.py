"""Who holds VFIO devices and GPUs open, from /proc/PID/fd."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.gpu import Holder

_NODE = re.compile(
    r"/vfio/(?:noiommu-)?\d+"  # an IOMMU group; /dev/vfio/vfio is only the container
    r"|/vfio/devices/vfio\d+"
    r"|/nvidia\d+"  # nvidiactl, nvidia-uvm and nvidia-modeset do not keep a GPU in use by themselves
)
_DELETED = " (deleted)"
_GUEST_NAME = re.compile(r"(?:^|,)guest=((?:[^,]|,,)*)")


class ProcHandles:
    """The open handles of all processes; see ports.handles.VfioHandles.

    `dev` is where the device nodes stand; answers name them below /dev whatever it is.  Needs
    CAP_SYS_PTRACE, and the PID namespace of the host.  A VFIO device is found by its group or cdev
    node, which QEMU keeps open as long as it has the device.
    """

    def __init__(self, root: Path = Path("/"), dev: Path | None = None) -> None:
        self._proc = os.fspath(root / "proc")
        self._dev = os.fspath(dev if dev is not None else root / "dev")

    def holders(self) -> Fact[Mapping[str, tuple[Holder, ...]]]:
        """Every process that has a node open, by node, in the order of the pids.

        Unknown as a whole when one process cannot be read: it may be the holder.
        """
        try:
            pids = sorted(int(name) for name in os.listdir(self._proc) if name.isdigit())  # noqa: PTH208
        except OSError as error:
            return Unknown(f"{self._proc} cannot be read: {error.strerror}")
        if 1 not in pids:
            # With hidepid= the processes of others are not even listed.
            return Unknown(f"{self._proc} does not show every process (pid 1 is missing)")
        found: dict[str, tuple[Holder, ...]] = {}
        for pid in pids:
            try:
                nodes = set(self._open_nodes(pid))
                holder = self._holder(pid) if nodes else None
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
            except OSError as error:
                return Unknown(f"the open files of process {pid} cannot be read: {error.strerror}")
            if holder is not None:
                for node in sorted(nodes):
                    found[node] = (*found.get(node, ()), holder)
        return found

    def _open_nodes(self, pid: int) -> Iterator[str]:
        """The nodes that a process has open.

        A killed QEMU whose first thread has ended shows no descriptor, and keeps them all for as long as
        another thread of it hangs in the driver.
        """
        descriptors = os.listdir(f"{self._proc}/{pid}/fd")  # noqa: PTH208
        if descriptors:
            yield from self._nodes_among(f"{self._proc}/{pid}/fd", descriptors)
            return
        for thread in os.listdir(f"{self._proc}/{pid}/task"):  # noqa: PTH208
            if thread == str(pid):
                continue
            directory = f"{self._proc}/{pid}/task/{thread}/fd"
            try:
                yield from self._nodes_among(directory, os.listdir(directory))  # noqa: PTH208
            except (FileNotFoundError, ProcessLookupError):
                continue  # this one ended meanwhile; its siblings may not have

    def _nodes_among(self, directory: str, descriptors: list[str]) -> Iterator[str]:
        for descriptor in descriptors:
            try:
                target = os.readlink(f"{directory}/{descriptor}")  # noqa: PTH115
            except FileNotFoundError:
                continue  # closed meanwhile
            if target.startswith(self._dev):
                # A node that is gone while it is held (an mdev being removed) is held all the same.
                node = target.removeprefix(self._dev).removesuffix(_DELETED)
                if _NODE.fullmatch(node) and not _is_path_only(f"{directory}info/{descriptor}"):
                    yield f"/dev{node}"

    def _holder(self, pid: int) -> Holder:
        command = _read(f"{self._proc}/{pid}/comm").removesuffix("\n")
        arguments = _read(f"{self._proc}/{pid}/cmdline").split("\0")
        return Holder(pid=pid, command=command, domain=domain_of(arguments))


def domain_of(arguments: list[str]) -> str | None:
    """The libvirt domain that a QEMU command line names (`-name guest=NAME,...`; ",," is a comma)."""
    for option, value in itertools.pairwise(arguments):
        if option == "-name" and (match := _GUEST_NAME.search(value)):
            return match[1].replace(",,", ",")
    return None


def _is_path_only(info: str) -> bool:
    """Whether a descriptor names a node and has not opened the device: udev's, while it sets the mode."""
    try:
        lines = _read(info).splitlines()
    except FileNotFoundError:
        return False
    flags = (line.removeprefix("flags:") for line in lines if line.startswith("flags:"))
    return any(int(each, 8) & os.O_PATH for each in flags)


def _read(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read().decode(errors="replace")

"""Which GPUs a host has: display functions that are no VFs, and mdev parents beside them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import Final

from vgpuctl.host.frameworks.parents import MDEV_BUS, NVIDIA, PCI, device_path
from vgpuctl.host.watch import Hanging, Watch, deadline_in
from vgpuctl.model.pci import GpuAddress, ParentName, PciAddress, parse_address
from vgpuctl.ports.kernel import Kernel

_DISPLAY: Final = 0x03

Bus = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """The GPUs of a host, sorted by address; `silent` are those that do not answer what they are."""

    gpus: tuple[GpuAddress, ...]
    silent: tuple[GpuAddress, ...]


class Discovery:
    """Finds GPUs: one read per PCI function, none for the VFs on their PF's bus.

    Buses are asked one by one, past one that hangs, for it must not hide the others.  A bus that does not
    answer leaves the GPUs that were seen on it before, else its first function, as `silent`.
    """

    def __init__(self, watch: Watch, timeout_s: float) -> None:
        self._watch = watch
        self._timeout_s = timeout_s
        self._known: dict[Bus, tuple[PciAddress, ...]] = {}

    def look(self, kernel: Kernel) -> Found:
        """All GPUs.  Raises OSError when the kernel does not even list its PCI functions."""
        gpus: list[GpuAddress] = []
        silent: list[PciAddress] = []
        buses = _buses(kernel)
        deadline = deadline_in(self._timeout_s)
        asks = {
            f"bus/{domain:04x}:{bus:02x}": partial(
                _gpus_on, kernel, functions, self._known.get((domain, bus), ())
            )
            for (domain, bus), functions in buses.items()
        }
        calls = self._watch.each(asks, deadline)
        for bus, call in zip(buses, calls.values(), strict=True):
            try:
                if isinstance(call, Hanging):
                    raise call
                self._known[bus] = call.result(deadline)
                gpus += self._known[bus]
            except Hanging:
                silent += self._known.get(bus, buses[bus][:1])
        gpus += _other_parents(kernel)
        return Found(tuple(sorted(gpus, key=_position)), tuple(sorted(silent)))


def _position(address: GpuAddress) -> tuple[bool, str]:
    return isinstance(address, ParentName), str(address)


def _buses(kernel: Kernel) -> dict[Bus, tuple[PciAddress, ...]]:
    buses: dict[Bus, tuple[PciAddress, ...]] = {}
    for name in _listed(kernel, PCI):
        try:
            address = PciAddress.parse(name)
        except ValueError:
            continue  # a domain of more than 16 bits (VMD): no GPU that libvirt could be given
        bus = (address.domain, address.bus)
        buses[bus] = (*buses.get(bus, ()), address)
    return {bus: tuple(sorted(functions)) for bus, functions in sorted(buses.items())}


def _gpus_on(
    kernel: Kernel, functions: tuple[PciAddress, ...], known: tuple[PciAddress, ...]
) -> tuple[PciAddress, ...]:
    """The GPUs among the functions of one bus.

    One that cannot be read now is a GPU when it was one before; on a bus without known GPUs the first
    such function stands for what may be there.
    """
    gpus: list[PciAddress] = []
    vfs: set[str] = set()
    for address in functions:
        if str(address) in vfs:
            continue
        path = device_path(address)
        try:
            if int(kernel.read(f"{path}/class"), 16) >> 16 != _DISPLAY or kernel.exists(f"{path}/physfn"):
                continue
            names = kernel.list(path)
            if not _offers_vgpus(kernel, path, names):
                continue
            for name in names:
                if name.startswith("virtfn"):
                    with contextlib.suppress(FileNotFoundError):  # a VF went; its PF is there
                        vfs.add(kernel.link(f"{path}/{name}"))
        except (FileNotFoundError, ValueError):
            continue  # it went away meanwhile
        except OSError:
            if address not in known and (known or gpus):
                continue
        gpus.append(address)
    return tuple(gpus)


def _offers_vgpus(kernel: Kernel, path: str, names: tuple[str, ...]) -> bool:
    """Any NVIDIA GPU; another vendor's only where it has VFs or mdev types (not a BMC's VGA)."""
    if int(kernel.read(f"{path}/vendor"), 16) == NVIDIA:
        return True
    return "sriov_totalvfs" in names or "mdev_supported_types" in names


def _other_parents(kernel: Kernel) -> list[ParentName]:
    """The mdev parents that are no PCI functions, such as the kernel's samples."""
    found = []
    for name in _listed(kernel, MDEV_BUS):
        try:
            address = parse_address(name)
        except ValueError:
            continue  # a CCW or AP device of s390
        if isinstance(address, ParentName):
            found.append(address)
    return found


def _listed(kernel: Kernel, path: str) -> tuple[str, ...]:
    try:
        return kernel.list(path)
    except FileNotFoundError:
        return ()

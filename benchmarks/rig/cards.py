"""The simulated cards of a measurement, their driver, and the places of vGPUs on them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.rig.simulated import Nvsim

MDEVS: Final = Path("/sys/bus/mdev/devices")
PCI: Final = Path("/sys/bus/pci/devices")
_SRIOV_MANAGE: Final = "/usr/lib/nvidia/sriov-manage"
_POLL_S: Final = 0.01
_READY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Cards:
    """Cards of one model and framework, with `each` vGPUs of one type on each of them."""

    model: str
    framework: str
    buses: tuple[str, ...]
    each: int
    vgpu_type: str

    @property
    def gpus(self) -> tuple[str, ...]:
        """Their addresses."""
        return tuple(f"0000:{bus}:00.0" for bus in self.buses)

    @property
    def has_vfs(self) -> bool:
        """Whether vGPUs stand on VFs."""
        return self.framework != "mdev"

    def plug(self) -> None:
        """Put the cards in, load their driver, and turn on their VFs."""
        Nvsim().unload()
        Nvsim().load(",".join(f"{self.model}:{self.framework}@{bus}" for bus in self.buses))
        self._turn_on_vfs()
        settle()

    def load(self) -> None:
        """Load the driver, and turn on the VFs as NVIDIA's own unit does; does not wait for udev."""
        run("modprobe", "nvsim")
        self._turn_on_vfs()

    def unload(self) -> None:
        """Unload the driver, and what stood on it."""
        Nvsim().unload_driver_once_free()
        settle()

    def _turn_on_vfs(self) -> None:
        if self.has_vfs:
            for gpu in self.gpus:
                run(_SRIOV_MANAGE, "-e", gpu)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a vGPU stands, and the write that puts it there."""

    gpu: str
    file: str
    text: str

    @property
    def kind(self) -> str:
        """The name of its mdev type's directory."""
        return Path(self.file).parent.name

    @property
    def is_mdev(self) -> bool:
        """Whether it has a name of its own."""
        return self.file.endswith("/create")

    @property
    def is_made(self) -> bool:
        """Whether it is there."""
        if self.is_mdev:
            return (MDEVS / self.text).exists()
        try:
            return Path(self.file).read_text().strip() == self.text
        except OSError:
            return False

    def make(self) -> None:
        """Write it."""
        write(self.file, self.text)

    def remove(self) -> None:
        """Write it away."""
        if self.is_mdev:
            write(str(MDEVS / self.text / "remove"), "1")
        else:
            write(self.file, "0")


def write(file: str, text: str) -> None:
    """One write(2), and no more than it needs."""
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def places(cards: Cards) -> list[Place]:
    """The places of the vGPUs that are there, GPU by GPU."""
    return [place for gpu in cards.gpus for place in (_on_vfs(gpu) if cards.has_vfs else _on_parent(gpu))]


def free_vf(gpu: str) -> Path:
    """The file that gives the first free VF a type."""
    return next(file for file in _types_of_vfs(gpu) if file.read_text().strip() == "0")


def _on_parent(gpu: str) -> list[Place]:
    found = []
    for mdev in sorted(MDEVS.iterdir()):
        real = mdev.resolve()
        if real.parent.name == gpu:
            kind = (real / "mdev_type").resolve().name
            create = f"/sys/class/mdev_bus/{gpu}/mdev_supported_types/{kind}/create"
            found.append(Place(gpu, create, mdev.name))
    return found


def _on_vfs(gpu: str) -> list[Place]:
    texts = ((file, file.read_text().strip()) for file in _types_of_vfs(gpu))
    return [Place(gpu, str(file), text) for file, text in texts if text != "0"]


def _types_of_vfs(gpu: str) -> list[Path]:
    count = len(list((PCI / gpu).glob("virtfn*")))
    vfs = [(PCI / gpu / f"virtfn{number}").resolve().name for number in range(count)]
    return [PCI / vf / "nvidia" / "current_vgpu_type" for vf in vfs]


def wait_until_ready(wanted: Iterable[Place]) -> None:
    """Wait until the files are there that will be written."""
    deadline = time.monotonic() + _READY_S
    for file in {each.file for each in wanted}:
        while not Path(file).exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"there is no {file}")
            time.sleep(_POLL_S)


def wait_until_made(wanted: Iterable[Place], timeout_s: float) -> bool:
    """Wait until all are there; looks a hundred times a second, and only at one that is not."""
    deadline = time.monotonic() + timeout_s
    for each in wanted:
        while not each.is_made:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
    return True


def settle() -> None:
    """Wait until udev has dealt with what happened."""
    run("udevadm", "settle", "--timeout=120")


def run(*command: str) -> str:
    """The output of a command that has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout

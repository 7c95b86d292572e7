"""The simulated cards of a measurement, their driver, and the places of vGPUs on them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MDEVS: Final = Path("/sys/bus/mdev/devices")
PCI: Final = Path("/sys/bus/pci/devices")
_POLL_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class Cards:
    """Cards of one framework, each with `each` vGPUs of one type.

    `spec` is for nvsim_cards (`t4:mdev@21,...`); with none the parent is the kernel's sample mtty.
    """

    spec: str
    gpus: tuple[str, ...]
    each: int
    vgpu_type: str
    has_vfs: bool = False

    @property
    def count(self) -> int:
        """All vGPUs."""
        return len(self.gpus) * self.each

    @property
    def _driver(self) -> str:
        return "nvsim" if self.spec else "mtty"

    def plug(self) -> None:
        """Put the cards in, and load their driver."""
        if self.spec:
            run("modprobe", "nvsim_cards", f"gpus={self.spec}")
        self.load()
        settle()

    def load(self) -> None:
        """Load the driver; does not wait for udev."""
        run("modprobe", self._driver)

    def unload(self) -> None:
        """Unload the driver, and what stood on it."""
        run("rmmod", self._driver)
        settle()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a vGPU stands, and the write that puts it there."""

    gpu: str
    file: str
    text: str

    @property
    def is_made(self) -> bool:
        """Whether it is there."""
        if self.file.endswith("/create"):
            return (MDEVS / self.text).exists()
        try:
            return Path(self.file).read_text().strip() == self.text
        except OSError:
            return False

    def make(self) -> None:
        """Write it."""
        descriptor = os.open(self.file, os.O_WRONLY)
        try:
            os.write(descriptor, self.text.encode())
        finally:
            os.close(descriptor)


def places(cards: Cards) -> list[Place]:
    """The places of the vGPUs that are there, GPU by GPU."""
    found = []
    for gpu in cards.gpus:
        if cards.has_vfs:
            found += _on_vfs(gpu)
        else:
            found += _on_parent(gpu)
    return found


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
    found = []
    for number in range(len(list((PCI / gpu).glob("virtfn*")))):
        vf = (PCI / gpu / f"virtfn{number}").resolve().name
        file = PCI / vf / "nvidia" / "current_vgpu_type"
        text = file.read_text().strip()
        if text != "0":
            found.append(Place(gpu, str(file), text))
    return found


def wait_until_made(wanted: Iterable[Place], timeout_s: float) -> bool:
    """Wait until all are there; looks a hundred times a second."""
    deadline = time.monotonic() + timeout_s
    left = list(wanted)
    while left := [each for each in left if not each.is_made]:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def settle() -> None:
    """Wait until udev has dealt with what happened."""
    run("udevadm", "settle", "--timeout=60")


def run(*command: str) -> str:
    """The output of a command that has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout

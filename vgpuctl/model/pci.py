"""Where a GPU or VF is: a PCI address, or the name of an mdev parent that is no PCI device."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache, total_ordering
from typing import Union

_PCI = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, order=True)
class PciAddress:
    """A PCI function.  Prints as sysfs does (`0000:41:00.4`); nvidia-smi's 8-digit domain parses."""

    domain: int
    bus: int
    device: int
    function: int
    _text: str = field(init=False, repr=False, compare=False)
    """As sysfs writes it: asked for far more often than an address is made."""

    def __post_init__(self) -> None:
        """Write it once."""
        text = f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.{self.function}"
        object.__setattr__(self, "_text", text)

    @classmethod
    def parse(cls, text: str) -> PciAddress:
        """The address that `text` names; raises ValueError when it names none."""
        return _parsed(text)

    def __hash__(self) -> int:
        # The generated one hashes a tuple; plans look addresses up by the hundred thousand.
        return self.domain << 16 | self.bus << 8 | self.device << 3 | self.function

    def __str__(self) -> str:
        return self._text


@lru_cache(maxsize=4096)
def _parsed(text: str) -> PciAddress:
    match = _PCI.fullmatch(text.strip())
    if match is None:
        msg = f"not a PCI address: {text!r} (an address looks like 0000:41:00.0)"
        raise ValueError(msg)
    domain, bus, device, function = match.groups()
    if int(device, 16) > 0x1F:
        msg = f"not a PCI address: {text!r} (the device number is at most 1f)"
        raise ValueError(msg)
    return PciAddress(int(domain or "0", 16), int(bus, 16), int(device, 16), int(function))


@total_ordering
@dataclass(frozen=True, slots=True)
class ParentName:
    """An mdev parent that is no PCI device, such as the kernel's sample `mtty`."""

    name: str

    def __str__(self) -> str:
        return self.name

    def __lt__(self, other: object) -> bool:
        return str(self) < str(other)


GpuAddress = Union[PciAddress, ParentName]
"""Where a GPU is."""


def parse_address(text: str) -> GpuAddress:
    """A PCI address, else the name of an mdev parent; ValueError when it can be neither."""
    if _PCI.fullmatch(text.strip()):
        return PciAddress.parse(text)
    if _NAME.fullmatch(text):
        return ParentName(text)
    msg = f"neither a PCI address nor the name of an mdev parent: {text!r}"
    raise ValueError(msg)

"""NVIDIA's names of vGPU types: `L40S-8Q`, `A100D-1-10C`, `GRID T4-2B4` and their kin.

    time-sliced    BOARD-SIZE SERIES           L40S-8Q, RTX6000-Ada-48Q, M60-0Q, T4-2B4
    MIG-backed     BOARD-SLICES-SIZE SERIES    A100D-1-10C, A100D-1-10CME, DC-1-24Q

The driver puts a product name before it (`GRID`, `NVIDIA`, `NVIDIA RTX Pro 6000 Blackwell`).
The grammar is NVIDIA's own [vgpu-device-manager, vgpu_type.go], with the legacy `2B4` and `1B4`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Union

# A board token may begin with digits (6000D) and hold dashes, but after a dash only letters
# (RTX6000-Ada): that is what tells a board's dash from the one before the slices of DC-1-24Q.
_NAME = re.compile(
    r"(?P<board>[A-Z0-9]+(?:-[A-Za-z]+)*)"
    r"(?:-(?P<slices>[1-9]))?"
    r"-(?P<size>0|[1-9][0-9]*)(?P<series>[ABCQ])"
    r"(?P<suffix>4|ME|NOME|MEALL|GFX)?"
)
_DRIVER_PREFIXES = ("nvidia ", "grid ")


@dataclass(frozen=True, slots=True)
class TypeName:
    """A name of NVIDIA's grammar, in its parts; `str()` gives the short name back.

    `slices` is the number of GPU slices of a MIG-backed type, else None; `size_gib` is the number as
    it is printed.  `suffix` is '4' (the legacy `2B4`, which never follows slices), one of the MIG
    suffixes ME, NOME, MEALL and GFX, or ''.
    """

    board: str
    slices: int | None
    size_gib: int
    series: str
    suffix: str = ""

    @property
    def is_mig_backed(self) -> bool:
        """Whether a vGPU of this type lives in a GPU instance."""
        return self.slices is not None

    @property
    def nominal_fb_mib(self) -> int:
        """The frame buffer that the name promises, in MiB.  Size 0 means 512 MiB (M60-0Q).

        The driver's own number may be a little off: H100L-94C has 96246 MiB.
        """
        return self.size_gib * 1024 or 512

    def __str__(self) -> str:
        slices = "" if self.slices is None else f"-{self.slices}"
        return f"{self.board}{slices}-{self.size_gib}{self.series}{self.suffix}"


@dataclass(frozen=True, slots=True)
class OtherName:
    """A name outside of NVIDIA's grammar: another vendor's type, or one newer than this program."""

    text: str

    def __str__(self) -> str:
        return self.text


AnyTypeName = Union[TypeName, OtherName]


@lru_cache(maxsize=4096)
def parse(name: str) -> AnyTypeName:
    """The parts of a type name, short or with the driver's prefix; never raises."""
    short = short_name(name)
    match = _NAME.fullmatch(short)
    if match is None:
        return OtherName(short)
    slices, suffix = match["slices"], match["suffix"] or ""
    if suffix and (suffix == "4") != (slices is None):
        return OtherName(short)
    return TypeName(
        board=match["board"],
        slices=int(slices) if slices else None,
        size_gib=int(match["size"]),
        series=match["series"],
        suffix=suffix,
    )


def short_name(raw: str) -> str:
    """The short form of a name as the driver prints it: the last word, where the name is NVIDIA's.

    Other names stay whole: the last word of `Single port serial` and `Dual port serial` is the same.
    """
    text = raw.strip()
    last = text.rsplit(maxsplit=1)[-1] if text else ""
    if text.casefold().startswith(_DRIVER_PREFIXES) or _NAME.fullmatch(last):
        return last
    return text


def lookup(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` means, whatever its case and with or without the driver's prefix."""
    wanted = (
        {name.strip().casefold(), name.strip().rsplit(maxsplit=1)[-1].casefold()} if name.strip() else set()
    )
    return next((each for each in candidates if each.casefold() in wanted), None)


def nearest(name: str, candidates: Iterable[str], n: int = 3) -> tuple[str, ...]:
    """Up to `n` candidates that look like `name`, best first: for a hint."""
    by_folded = {each.casefold(): each for each in candidates}
    return tuple(
        by_folded[each]
        for each in get_close_matches(short_name(name).casefold(), sorted(by_folded), n=n, cutoff=0.6)
    )

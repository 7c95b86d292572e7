"""Which GPU instances fit on a card together: intervals on its axis of memory slices (hardware.md 3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from vgpuctl.model.giprofile import GiPlace, MigProfile

_ALL_MEDIA = "+me.all"
_MEDIA = "+me"
_NO_MEDIA = "-me"


@dataclass(frozen=True, slots=True)
class Geometry:
    """The profiles of one model with their placements."""

    profiles: tuple[MigProfile, ...]
    _named: dict[str, MigProfile] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_named", {each.name.casefold(): each for each in self.profiles})

    @classmethod
    def of(cls, profiles: Iterable[MigProfile]) -> Geometry:
        """The geometry of these profiles; those whose placements nobody names are left out."""
        usable = (each for each in profiles if each.starts and each.size is not None)
        return cls(tuple(sorted(usable, key=lambda each: (-(each.size or 0), -each.slices, each.name))))

    @property
    def memory_slices(self) -> int:
        """The length of the axis."""
        return max((max(each.starts) + (each.size or 0) for each in self.profiles), default=0)

    @property
    def compute_slices(self) -> int:
        """What the instances share out between them: 7 of 8 on a large GPU."""
        return max((each.slices for each in self.profiles), default=0)

    def profile(self, name: str) -> MigProfile | None:
        """The profile of that name, in any case."""
        return self._named.get(name.casefold())

    def size(self, name: str) -> int:
        """How many memory slices an instance of that profile takes."""
        profile = self.profile(name)
        return (profile.size or 0) if profile is not None else 0

    def mask(self, place: GiPlace) -> int:
        """The memory slices of an instance, as bits."""
        return ((1 << self.size(place.profile)) - 1) << place.start

    def taken(self, places: Iterable[GiPlace]) -> int:
        """The memory slices of several instances, as bits."""
        mask = 0
        for each in places:
            mask |= self.mask(each)
        return mask

    def admits(self, counts: Mapping[str, int]) -> bool:
        """Whether so many of each profile may be together, wherever they lie.

        Each profile has its limit, the compute slices do not exceed the GPU's, one instance has the
        media extension, and one that has all media engines leaves only profiles without any.
        """
        slices = 0
        extended = 0
        for name, count in counts.items():
            profile = self.profile(name)
            if profile is None or count > profile.max:
                return False
            slices += profile.slices * count
            extended += count if _MEDIA in name else 0
        if slices > self.compute_slices or extended > 1:
            return False
        all_media = [name for name, count in counts.items() if count and name.endswith(_ALL_MEDIA)]
        return not all_media or all(
            name in all_media or name.endswith(_NO_MEDIA) for name, count in counts.items() if count
        )

    def room(self, taken: int) -> int:
        """A measure of what could still be cut: the placements that are free, weighed by their size."""
        return _room(self, taken)


@cache
def _room(geometry: Geometry, taken: int) -> int:
    return sum(
        (profile.size or 0) ** 2
        for profile in geometry.profiles
        for start in profile.starts
        if not geometry.mask(GiPlace(start, profile.name)) & taken
    )

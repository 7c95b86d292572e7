"""What a GPU-instance profile is, and an instance's place on the axis of memory slices (hardware.md 3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class MigProfile:
    """A GPU-instance profile of a model.

    `gi_profile_id` is what `nvidia-smi mig -lgip` prints, `max` how many fit on an otherwise empty GPU.
    `starts` and `size` are the possible placements on the memory-slice axis; empty and None where no
    source prints them.  `remaining` is the driver's word on how many more fit now, None where it was
    not asked.
    """

    name: str
    gi_profile_id: int
    slices: int
    max: int
    starts: tuple[int, ...]
    size: int | None
    remaining: int | None = field(default=None, compare=False)


def compute_name(profile: str, slices: int, of: int) -> str:
    """The compute-instance profile with `slices` of the `of` compute slices of a GPU instance.

    `1c.3g.40gb` is a part of `3g.40gb`, and the whole has its name [MIG user guide].
    """
    return profile if slices == of else f"{slices}c.{profile}"


def compute_slices(name: str, profile: str, of: int) -> int | None:
    """How many compute slices that compute-instance profile takes; None where it is none of `profile`'s."""
    if name == profile:
        return of
    number, is_part, rest = name.partition("c.")
    if not is_part or rest != profile or not number.isdecimal() or not 0 < int(number) < of:
        return None
    return int(number)


@dataclass(frozen=True, slots=True, order=True)
class GiPlace:
    """A GPU instance that is or could be: its first memory slice, and its profile."""

    start: int
    profile: str

    def __str__(self) -> str:
        return f"{self.profile}@{self.start}"

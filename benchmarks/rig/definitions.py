"""Definitions of mdevctl's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks.rig.cards import Place

_DIRECTORY: Final = Path("/etc/mdevctl.d")


def define(places: Iterable[Place], *, auto: bool) -> None:
    """Define mdevs; with `auto`, udev has mdevctl start them when their parent appears."""
    for place in places:
        directory = _DIRECTORY / place.gpu
        directory.mkdir(parents=True, exist_ok=True)
        start = "auto" if auto else "manual"
        (directory / place.text).write_text(
            json.dumps({"mdev_type": place.kind, "start": start, "attrs": []})
        )


def undefine(places: Iterable[Place]) -> None:
    """Forget every definition of those parents."""
    for gpu in {each.gpu for each in places}:
        shutil.rmtree(_DIRECTORY / gpu, ignore_errors=True)

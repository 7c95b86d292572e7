"""A card's memory slices as a bar of boxes, and what stands on each GPU instance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vgpuctl.cli.cells import NULL, plain
from vgpuctl.cli.style import Paint
from vgpuctl.cli.table import Column, render

_CELLS = 72
"""For all slices: with the borders the bar stays within 80 columns."""


@dataclass(frozen=True, slots=True)
class _Marks:
    edge: str
    free: str


_UNICODE = _Marks("\N{BOX DRAWINGS LIGHT VERTICAL}", "\N{MIDDLE DOT}")
_ASCII = _Marks("|", ".")


def card(gpu: dict[str, Any], paint: Paint, *, unicode: bool) -> Iterator[str]:
    """A heading, the bar, the numbers of the slices, and a line for each instance."""
    yield paint.bold(f"{plain(gpu.get('address'))}  {plain(gpu.get('model'))}  {_mode(gpu)}")
    slices, instances = gpu.get("mig_slices"), gpu.get("gpu_instances")
    if not slices:
        return
    if instances is None:
        why = plain((gpu.get("unknown") or {}).get("gpu_instances"))
        yield f"  which instances are cut is not known: {why}"
        return
    if not gpu.get("mig"):
        return
    width = _CELLS // slices
    yield from bar(slices, instances, _UNICODE if unicode else _ASCII)
    yield "  " + "".join(f"{number:<{width}}" for number in range(slices)).rstrip()
    if instances:
        rows = [_legend(each) for each in instances]
        columns = [Column("", [row[index] for row in rows]) for index in range(len(rows[0]))]
        yield from ("  " + line for line in render(columns, headers=False))


def bar(slices: int, instances: list[dict[str, Any]], marks: _Marks = _ASCII) -> Iterator[str]:
    """The line of boxes."""
    width = _CELLS // slices
    cells = [marks.free * (width - 1) for _ in range(slices)]
    text = ""
    number = 0
    starts = {each["start"]: each for each in instances}
    while number < slices:
        each = starts.get(number)
        size = each["size"] if each is not None else 1
        room = width * size - 1
        inside = cells[number] if each is None else plain(each.get("profile"))[:room].center(room)
        text += marks.edge + inside
        number += size
    yield f" {text}{marks.edge}"


def _mode(gpu: dict[str, Any]) -> str:
    mode = {True: "MIG on", False: "MIG off", None: "MIG mode not known"}[gpu.get("mig")]
    pending = gpu.get("mig_pending")
    if pending is None or pending == gpu.get("mig"):
        return mode
    return f"{mode}, {'on' if pending else 'off'} after the next reset"


def _legend(instance: dict[str, Any]) -> tuple[str, ...]:
    number, start, size = instance.get("id"), instance["start"], instance["size"]
    where = f"slice {start}" if size == 1 else f"slices {start}-{start + size - 1}"
    holds = ", ".join(plain(each) for each in instance.get("vgpus") or [])
    counts = Counter(plain(each) for each in instance.get("compute_instances") or [])
    shares = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counts.items())
    if shares:
        holds += f"{'; ' if holds else ''}compute instances {shares}"
    return (NULL if number is None else str(number), plain(instance.get("profile")), where, holds or "free")

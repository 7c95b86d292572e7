"""A card's frame buffer as a bar: what takes how much of it, and what is free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vgpuctl.cli.cells import NULL, plain
from vgpuctl.cli.style import Paint
from vgpuctl.cli.table import Column, render

MINI_CELLS = 8
_CELLS = 48


@dataclass(frozen=True, slots=True)
class Blocks:
    """The characters of a bar: neighbours differ, what is only reserved differs, free differs."""

    taken: tuple[str, str]
    reserved: str
    free: str


UNICODE = Blocks(("\N{FULL BLOCK}", "\N{DARK SHADE}"), "\N{MEDIUM SHADE}", "\N{LIGHT SHADE}")
ASCII = Blocks(("#", "="), "+", ".")


@dataclass(frozen=True, slots=True)
class _Share:
    mark: str
    fb_mib: int
    legend: tuple[str, ...]


def card(gpu: dict[str, Any], blocks: Blocks, paint: Paint, *, width: int | None = None) -> Iterator[str]:
    """The bar, in so many columns, and under it the legend.  Nothing where the size is not known."""
    total = _total(gpu)
    if not total:
        return
    shares = _shares(gpu, blocks)
    used = sum(each.fb_mib for each in shares)
    told = f"  {gib(used)} of {gib(total)} GiB"
    cells, gap = _room(len(shares) + 1, None if width is None else width - len("[]") - len(told))
    bars = [
        each.mark * width
        for each, width in zip(shares, _widths([each.fb_mib for each in shares], total, cells), strict=True)
    ]
    free_cells = cells - sum(len(each) for each in bars)
    bar = gap.join([*bars, *([blocks.free * free_cells] if free_cells > 0 else [])])
    yield f"[{bar}]{told}"
    free = (blocks.free, "free", "", f"{gib(max(0, total - used))} GiB", "", "", "")
    rows = [each.legend for each in shares] + [free]
    columns = [Column("", [row[index] for row in rows]) for index in range(len(free))]
    columns[3].right = True
    columns[4].paint = paint.word
    yield from ("  " + line for line in render(columns, headers=False))


def _room(parts: int, width: int | None) -> tuple[int, str]:
    """Cells for a bar of so many parts, and what stands between two: nothing where room is short."""
    if width is None:
        return _CELLS, "|"
    cells = min(_CELLS, width - parts + 1)
    return (cells, "|") if cells >= parts else (min(_CELLS, max(width, parts)), "")


def _total(gpu: dict[str, Any]) -> int | None:
    """What profiles share out: a driver reports somewhat less than the sizes that it promises."""
    total: int | None = gpu.get("fb_shared_mib") or gpu.get("fb_mib")
    return total


def mini_bar(gpu: dict[str, Any], blocks: Blocks) -> str:
    """A few characters and the numbers, for a cell of a table."""
    total, used = _total(gpu), gpu.get("fb_used_mib")
    if not total or used is None:
        return NULL
    filled = min(MINI_CELLS, -(-used * MINI_CELLS // total))
    return f"{blocks.taken[0] * filled}{blocks.free * (MINI_CELLS - filled)} {gib(used)}/{gib(total)} GiB"


def gib(mib: int) -> str:
    """Mebibytes as gibibytes, without a fraction where there is none."""
    return f"{mib / 1024:.1f}".removesuffix(".0")


def _shares(gpu: dict[str, Any], blocks: Blocks) -> list[_Share]:
    shares = []
    for number, each in enumerate(gpu.get("allocated") or []):
        state = plain(each.get("state"))
        mark = blocks.reserved if state == "reserved" else blocks.taken[number % 2]
        fb_mib = each.get("fb_mib")
        shares.append(
            _Share(
                mark,
                fb_mib or 0,
                (
                    mark,
                    plain(each.get("name")) or NULL,
                    plain(each.get("type")) or NULL,
                    f"{gib(fb_mib)} GiB" if fb_mib else "?",
                    state or NULL,
                    plain(each.get("vf")),
                    plain(each.get("domain")),
                ),
            )
        )
    return shares


def _widths(sizes: list[int], total: int, cells: int) -> list[int]:
    """Cells for each size: in proportion, at least one for whatever is there, never more than there are."""
    edges = [round(sum(sizes[: index + 1]) * cells / total) for index in range(len(sizes))]
    widths = [after - before for before, after in zip([0, *edges], edges, strict=False)]
    widths = [max(1, width) if size else width for width, size in zip(widths, sizes, strict=True)]
    while sum(widths) > cells and max(widths, default=0) > 1:
        widths[widths.index(max(widths))] -= 1
    return widths

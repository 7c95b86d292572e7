"""Results as tables: the median of the rounds, and the median of the ratios to raw, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any


def tables(results: dict[str, Any]) -> str:
    """Markdown."""
    return "\n".join(line for name, found in results.items() for line in _table(name, found))


def _table(name: str, found: dict[str, Any]) -> Iterator[str]:
    facts = ", ".join(f"{value} {key}" for key, value in found.items() if isinstance(value, int))
    yield f"\n{name}: {facts}" if facts else f"\n{name}"
    if "writes" in found:
        counted = ", ".join(f"{count} {what}" for what, count in found["writes"].items() if count)
        yield f"driver writes of a restore by vgpuctl: {counted}"
    for columns in _columns(found):
        yield from _rows(columns)


def _columns(found: dict[str, Any]) -> Iterator[dict[str, list[float | None]]]:
    """Lists of rounds, by way; one for each thing that was measured."""
    if "ms" in found:
        yield {f"{way} (ms)": times for way, times in found["ms"].items()}
        return
    rounds = found["seconds"]
    first = next(iter(rounds.values()))[0]
    if not isinstance(first, dict):
        yield {f"{way} (s)": times for way, times in rounds.items()}
        return
    for part in first:
        yield {f"{way}: {part} (s)": [each[part] for each in times] for way, times in rounds.items()}


def _rows(columns: dict[str, list[float | None]]) -> Iterator[str]:
    raw = next(times for way, times in columns.items() if way.startswith("raw"))
    yield "\n| | median | rounds | to raw |\n| --- | --- | --- | --- |"
    for way, times in columns.items():
        shown = ", ".join("never" if each is None else f"{each:g}" for each in times)
        yield f"| {way} | {_median(times)} | {shown} | {_ratio(times, raw)} |"


def _median(times: list[float | None]) -> str:
    known = [each for each in times if each is not None]
    return f"{statistics.median(known):g}" if len(known) == len(times) else "never"


def _ratio(times: list[float | None], raw: list[float | None]) -> str:
    ratios = [mine / theirs for mine, theirs in zip(times, raw, strict=True) if mine and theirs]
    return f"{statistics.median(ratios):.2f}" if ratios else "-"

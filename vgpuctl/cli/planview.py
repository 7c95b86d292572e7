"""A plan for people: what changes, step by step, whom it touches, and what cannot be done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vgpuctl.cli.cells import plain
from vgpuctl.cli.output import Item, table
from vgpuctl.cli.style import Paint
from vgpuctl.surface import STEP

_NAMED = 4
"""So many names say who is meant; the documents above list all."""

_STEP_FIELDS = tuple(
    each for name in ("number", "summary", "reason", "touches") for each in STEP.fields if each.name == name
)


def lines(plan: Item, paint: Paint) -> Iterator[str]:
    """The plan; its last line is the verdict."""
    if plan.get("changes"):
        yield paint.bold("Documents:")
        for change in plan["changes"]:
            yield from (f"  {line}" for line in _change(change, paint))
        yield ""
    if plan.get("steps"):
        yield paint.bold("Steps:")
        yield from table(_STEP_FIELDS, plan["steps"], paint, indent=2)
        if plan.get("incomplete"):
            yield "  ... more steps follow once these are done and the host has been read again"
        yield ""
    for layout in plan.get("mig") or []:
        yield paint.bold(f"GPU instances of {plain(layout.get('gpu'))}:")
        yield from (f"  {line}" for line in _layout(layout, paint))
        yield ""
    if plan.get("problems"):
        yield paint.bold("Cannot be done:")
        for problem, others in _alike(plan["problems"]):
            yield paint.red(f"  {plain(problem.get('subject'))}: {plain(problem.get('detail'))}")
            if problem.get("hint"):
                yield f"    hint: {plain(problem['hint'])}"
            if others:
                yield f"    the same with {_some(others)}"
        yield ""
    if plan.get("notes"):
        yield paint.bold("Worth knowing:")
        yield from (f"  {plain(each)}" for each in plan["notes"])
        yield ""
    yield verdict(plan, paint)


def verdict(plan: Item, paint: Paint) -> str:
    """One line that sums the plan up."""
    word = plain(plan.get("verdict"))
    steps = len(plan.get("steps") or [])
    problems = len(plan.get("problems") or [])
    if word == "match":
        changed = len(plan.get("changes") or [])
        rest = "nothing to do on the host" if changed else "nothing to do"
    else:
        touches = ", ".join(plain(each) for each in plan.get("touches") or []) or "no running guest"
        parts = [f"{_count(steps, 'step')}, touches {touches}"] if steps else []
        if problems:
            parts.append(f"{_count(problems, 'wish', 'wishes')} cannot be fulfilled")
        rest = "; ".join(parts) or "places that are no longer wanted become free"
    return f"{paint.word(word)}: {rest}"


def _layout(layout: Item, paint: Paint) -> Iterator[str]:
    """Instances kept, destroyed and created, each with its first memory slice."""
    for mark, key, colour in (
        (" ", "kept", paint.dim),
        ("-", "destroyed", paint.red),
        ("+", "created", paint.green),
    ):
        places = layout.get(key) or []
        if places:
            told = ", ".join(f"{plain(each['profile'])} at {each['start']}" for each in places)
            yield colour(f"{mark} {key}: {told}")
    if layout.get("source") == "catalogue":
        yield "placements are the catalogue's: the driver was not asked, or did not say"


def _alike(problems: list[Item]) -> list[tuple[Item, list[str]]]:
    """Problems that say the same of several subjects once, with the other subjects."""
    found: dict[tuple[str, str], tuple[Item, list[str]]] = {}
    for problem in problems:
        subject = plain(problem.get("subject"))
        told = (plain(problem.get("detail")), plain(problem.get("hint")))
        key = (told[0].replace(subject, "\0"), told[1].replace(subject, "\0")) if subject else told
        if key in found:
            found[key][1].append(subject)
        else:
            found[key] = (problem, [])
    return list(found.values())


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def _change(change: dict[str, Any], paint: Paint) -> Iterator[str]:
    before, after, key = change.get("before"), change.get("after"), plain(change.get("key"))
    if before is None:
        yield paint.green(f"+ {key}")
        yield from (paint.green(f"    {name}: {plain(value)}") for name, value in _told(after))
    elif after is None:
        yield paint.red(f"- {key}")
    else:
        yield paint.yellow(f"~ {key}")
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield paint.yellow(f"    {name}: {_or_none(before.get(name))} -> {_or_none(after.get(name))}")


def _told(document: dict[str, Any] | None) -> Iterator[tuple[str, Any]]:
    for name, value in (document or {}).items():
        if name not in ("apiVersion", "kind", "name") and value not in (None, "", [], {}):
            yield name, value


def _or_none(value: Any) -> str:
    return plain(value) or "(none)"

"""A plan for people: what changes, step by step, whom it touches, and what cannot be done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO

from vgpuctl.cli.cells import plain
from vgpuctl.cli.folding import fold
from vgpuctl.cli.output import Item, table
from vgpuctl.cli.style import Paint, width_of
from vgpuctl.surface import STEP

_NAMED = 4
"""So many names say who is meant; the documents above list all."""

_STEP_FIELDS = tuple(
    each for name in ("number", "summary", "reason", "touches") for each in STEP.fields if each.name == name
)


def lines(plan: Item, paint: Paint, stream: TextIO) -> Iterator[str]:
    """The plan, as wide as `stream` is where that is a terminal; the verdict comes last."""
    width = width_of(stream)
    inner = None if width is None else width - len("  ")
    if plan.get("changes"):
        yield paint.bold("Documents:")
        for change in plan["changes"]:
            yield from (f"  {line}" for line in _change(change, paint, inner))
        yield ""
    if plan.get("steps"):
        yield paint.bold("Steps:")
        yield from table(_STEP_FIELDS, plan["steps"], paint, indent=2, stream=stream)
        if plan.get("incomplete"):
            yield "  ... then the host is read again, and what is left is planned"
        yield ""
    for layout in plan.get("mig") or []:
        yield paint.bold(f"GPU instances of {plain(layout.get('gpu'))}:")
        yield from (f"  {line}" for line in _layout(layout, paint, inner))
        yield ""
    if plan.get("problems"):
        yield paint.bold("Cannot be done:")
        for problem, others in _alike(plan["problems"]):
            told = fold(_what_is_wrong(problem), width, first="  ", rest="    ")
            yield from (paint.red(line) for line in told)
            if problem.get("hint"):
                yield from fold(f"hint: {plain(problem['hint'])}", width, first="    ", rest="      ")
            if others:
                yield from fold(f"the same with {_some(others)}", width, first="    ", rest="      ")
        yield ""
    if plan.get("notes"):
        yield paint.bold("Worth knowing:")
        for note in plan["notes"]:
            yield from fold(plain(note), width, first="  ", rest="    ")
        yield ""
    word = plain(plan.get("verdict"))
    first, *rest = fold(f"{word}: {_sum(plan)}", width, rest="  ")
    yield paint.word(word) + first.removeprefix(word)
    yield from rest


def _sum(plan: Item) -> str:
    """What there is to do, whom it touches, and how much of it cannot be done."""
    steps = len(plan.get("steps") or [])
    problems = len(plan.get("problems") or [])
    if plan.get("verdict") == "match":
        return "nothing to do on the host" if plan.get("changes") else "nothing to do"
    touches = ", ".join(plain(each) for each in plan.get("touches") or []) or "no running guest"
    parts = [f"{_count(steps, 'step')}, touches {touches}"] if steps else []
    if problems:
        parts.append(f"{_count(problems, 'wish', 'wishes')} cannot be fulfilled")
    return "; ".join(parts) or "places that are no longer wanted become free"


def _layout(layout: Item, paint: Paint, width: int | None) -> Iterator[str]:
    """Instances kept, destroyed and created, each with its first memory slice."""
    for mark, key, colour in (
        (" ", "kept", paint.dim),
        ("-", "destroyed", paint.red),
        ("+", "created", paint.green),
    ):
        places = layout.get(key) or []
        if places:
            told = ", ".join(place_text(each) for each in places)
            yield from (colour(line) for line in fold(f"{mark} {key}: {told}", width, rest="    "))
    shares = [each for each in layout.get("compute_instances") or [] if each["compute_instances"]]
    if shares:
        told = ", ".join(place_text(each) for each in shares)
        yield from fold(f"compute instances then: {told}", width, first="  ", rest="    ")
    if layout.get("source") == "catalogue":
        yield "placements are the catalogue's: the driver was not asked, or did not say"


def place_text(place: Item) -> str:
    """`3g.40gb@4/1c/2c`, as `mig apply --layout` takes it."""
    profile = plain(place.get("profile"))
    counts = place.get("compute_instances") or {}
    shares = "".join(f"/{_slices(name, profile)}c" * count for name, count in sorted(counts.items()))
    return f"{profile}@{place.get('start')}{shares}"


def _slices(compute: str, profile: str) -> str:
    return (profile if compute == profile else compute).partition("g." if compute == profile else "c.")[0]


def _mig_text(mig: Item) -> str:
    """What a document says of MIG, in the words of `--layout`."""
    if not mig.get("enabled", True):
        return "off"
    if mig.get("instances") is not None:
        told = ", ".join(place_text(each) for each in mig["instances"])
    else:
        counts = mig.get("profiles") if mig.get("profiles") is not None else mig.get("vgpus")
        if counts is None:
            return "on"
        told = ", ".join(f"{plain(name)}:{count}" for name, count in counts.items())
    return told or "no GPU instances"


def _what_is_wrong(problem: Item) -> str:
    """Subject and detail; a GPU that the detail names is not named before it, too."""
    subject, detail = plain(problem.get("subject")), plain(problem.get("detail"))
    return (
        detail
        if subject.partition("/")[2] and subject.partition("/")[2] in detail
        else f"{subject}: {detail}"
    )


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


def _change(change: dict[str, Any], paint: Paint, width: int | None) -> Iterator[str]:
    before, after, key = change.get("before"), change.get("after"), plain(change.get("key"))
    if before is None:
        yield paint.green(f"+ {key}")
        for name, value in _told(after):
            told = f"{name}: {_value(name, value)}"
            yield from (paint.green(line) for line in fold(told, width, first="    ", rest="      "))
    elif after is None:
        yield paint.red(f"- {key}")
    else:
        yield paint.yellow(f"~ {key}")
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                told = f"{name}: {_value(name, before.get(name))} -> {_value(name, after.get(name))}"
                yield from (paint.yellow(line) for line in fold(told, width, first="    ", rest="      "))


def _told(document: dict[str, Any] | None) -> Iterator[tuple[str, Any]]:
    for name, value in (document or {}).items():
        if name not in ("apiVersion", "kind", "name") and value not in (None, "", [], {}):
            yield name, value


def _value(name: str, value: Any) -> str:
    if name == "mig" and isinstance(value, dict):
        return _mig_text(value)
    if isinstance(value, list):
        return ", ".join(plain(each) for each in value) or "(none)"
    return plain(value) or "(none)"

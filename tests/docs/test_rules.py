"""Every fact of docs/hardware.md, and how many tests show it on the simulated host and in the rig.

Run with `-s` to see the table.  A test names the facts that it shows at the beginning of its docstring:
`hardware.md 1.3.3, T18: ...`.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HARDWARE = ROOT / "docs" / "hardware.md"

NUMBER = r"(?:T\d+|\d+(?:\.\d+)*)"
REFERENCE = re.compile(rf"hardware\.md ({NUMBER}(?:(?:, | to | and ){NUMBER})*)")
FACT = re.compile(rf"^- \*\*({NUMBER})\*\* (.*(?:\n  .*)*)", re.MULTILINE)
HEADING = re.compile(r"^##+ (\d+(?:\.\d+)?)\.? ", re.MULTILINE)
INFERRED = re.compile(r"\[[^\]]*\binf\b[^\]]*\]")
SIM, RIG = "sim", "rig"

NOT_SHOWN = {
    "0.8": "nothing kills a QEMU, neither vgpuctl nor a test; no simulated GPU initialises a guest's driver",
    "0.10": "migration is not there yet",
    "1.1.6": "how mdevctl prints what 1.1.4 and 1.1.5 are about",
    "1.3.6": "about mdevctl; what comes back after a boot is 0.9",
    "1.4.1": "which release has which framework; it is probed (1.4.2) and never derived from a release",
    "1.4.16": "how Nova attaches",
    "2.12": "whether one VM may have these vGPUs together is the driver's answer at its start",
    "2.13": "about the guest's firmware",
    "3.2.4": "which driver has MIG on which card; NVML is asked, and no version compared",
    "3.3.6": "activity of vGPUs is not read yet",
    "4.2": "module parameters are neither read nor written",
    "4.3": "schedulers are neither read nor changed yet, and then by NVML",
    "T5": "vgpuctl writes neither ramfb nor display",
    "T6": "module parameters are neither read nor written",
}


@dataclass(frozen=True)
class Shown:
    """A test, and where it runs: `sim` stands for everything that needs no kernel of its own."""

    name: str
    places: tuple[str, ...]
    numbers: frozenset[str]
    only: str | None = None
    """Why it runs in one place only, where it could be thought to run in both."""


def facts() -> dict[str, str]:
    """Every numbered fact with its whole text."""
    return dict(FACT.findall(HARDWARE.read_text()))


def to_be_shown() -> dict[str, str]:
    """The facts of sections 0 to 4, and the traps."""
    return {number: text for number, text in facts().items() if re.match(r"[01234]\.|T", number)}


def numbers_in(text: str) -> set[str]:
    return {number for found in REFERENCE.findall(text) for number in re.findall(NUMBER, found)}


def every_test() -> Iterator[Shown]:
    """Every test that names a fact, or says why it is for one place only."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        module = [
            mark
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
            for mark in (node.value.elts if isinstance(node.value, ast.List) else [node.value])
        ]
        is_conformance = path.parent.name == "conformance"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = [*node.decorator_list, *module]
                only = next((each for each in marks if _mark(each) == "only"), None)
                numbers = frozenset(numbers_in(ast.get_docstring(node) or ""))
                if is_conformance:
                    places = (SIM, RIG) if only is None else (ast.literal_eval(only.args[0]),)
                else:
                    is_rig = any(_mark(each) == "rig" for each in marks)
                    places = (RIG,) if is_rig or "machine" in _arguments(node) else (SIM,)
                name = f"{path.relative_to(ROOT / 'tests')}::{node.name}"
                reason = ast.literal_eval(only.keywords[0].value) if is_conformance and only else None
                yield Shown(name, places, numbers, reason)


def _mark(node: ast.expr) -> str:
    """The name of a mark: `only` for `@pytest.mark.only(...)`."""
    text = ast.unparse(node.func if isinstance(node, ast.Call) else node)
    return text.removeprefix("pytest.mark.") if text.startswith("pytest.mark.") else ""


def _arguments(node: ast.FunctionDef) -> list[str]:
    return [each.arg for each in node.args.args]


def shown_by() -> dict[str, list[Shown]]:
    """For each fact the tests whose docstring names it."""
    found: dict[str, list[Shown]] = defaultdict(list)
    for test in every_test():
        for number in test.numbers:
            found[number].append(test)
    return found


def places_that_refer() -> list[tuple[Path, int, str]]:
    """Every reference in code, tests, tools and documents: file, line number, fact or section."""
    found = []
    for directory in ("vgpuctl", "tests", "tools", "docs", "benchmarks", "scripts"):
        for path in sorted((ROOT / directory).rglob("*")):
            if path.suffix not in (".py", ".md", ".yaml") or path == Path(__file__):
                continue
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                found += [(path.relative_to(ROOT), number, each) for each in sorted(numbers_in(line))]
    return found


def print_table(shown: dict[str, list[Shown]]) -> None:
    """A line a fact: how many tests show it in each place, the first of them, or why there is none."""
    print(f"{'fact':8}{SIM:>4}{RIG:>4}  shown by")
    for number, text in to_be_shown().items():
        mine = shown.get(number, [])
        counts = [sum(place in each.places for each in mine) for place in (SIM, RIG)]
        what = mine[0].name if mine else f"none: {NOT_SHOWN.get(number)}"
        more = f" and {len(mine) - 1} more" if len(mine) > 1 else ""
        sure = " (inferred)" if INFERRED.search(text) else ""
        print(f"{number:8}{counts[0] or '-':>4}{counts[1] or '-':>4}  {what}{more}{sure}")


def print_counts(shown: dict[str, list[Shown]]) -> None:
    """What rests on an inference, and what runs in one place only."""
    inferred = {number for number, text in to_be_shown().items() if INFERRED.search(text)}
    cases = {each for number in to_be_shown() for each in shown.get(number, [])}
    resting = {each for number in inferred for each in shown.get(number, [])}
    print(f"{len(to_be_shown())} facts, {len(NOT_SHOWN)} of them shown by no test, {len(inferred)} inferred")
    print(f"{len(cases)} cases, {len(resting)} of them rest on an inference")
    limited = Counter((each.places[0], each.only) for each in every_test() if each.only)
    for (place, reason), count in sorted(limited.items()):
        print(f"{count} conformance cases on {place} only: {reason}")


def test_the_table() -> None:
    """Each fact is shown by a test, or there is a reason why not: never both, never neither."""
    shown = shown_by()
    print_table(shown)
    print_counts(shown)
    both = [number for number in NOT_SHOWN if number in shown]
    neither = [number for number in to_be_shown() if number not in shown and number not in NOT_SHOWN]
    assert (both, neither) == ([], [])


def test_a_reason_is_for_a_fact_that_is_there() -> None:
    assert [number for number in NOT_SHOWN if number not in to_be_shown()] == []


def test_facts_are_numbered_without_a_gap() -> None:
    """A number that was given stays with its fact, so that none is used twice and none is missing."""
    listed = [number for number, _ in FACT.findall(HARDWARE.read_text())]
    assert len(set(listed)) == len(listed)
    last: dict[str, int] = {}
    for number in listed:
        section, end = ("T", number[1:]) if number.startswith("T") else number.rsplit(".", 1)
        assert int(end) == last.get(section, 0) + 1, number
        last[section] = int(end)
    sections = {"0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "2", "3.1", "3.2", "3.3", "3.4", "4", "T"}
    assert set(last) >= sections


def test_sections_0_to_4_have_no_fact_without_a_number() -> None:
    text = HARDWARE.read_text()
    numbered = text[text.index("## 0.") : text.index("## 5.")]
    bullets = [line for line in numbered.splitlines() if line.startswith("- ")]
    assert [line for line in bullets if not line.startswith("- **")] == []


def test_every_reference_leads_somewhere() -> None:
    text = HARDWARE.read_text()
    there = set(facts()) | set(HEADING.findall(text))
    found = places_that_refer()
    assert len(found) > 100
    assert [f"{path}:{line}: {number}" for path, line, number in found if number not in there] == []


def test_no_reference_has_another_form() -> None:
    """`hardware.md` is what tests and code say; names of earlier notes would lead nowhere."""
    old = re.compile(r"(?:nvidia|traps)\.md")
    files = [*(ROOT / "vgpuctl").rglob("*.py")]
    files += [each for each in (ROOT / "tests").rglob("*.py") if each != Path(__file__)]
    assert [str(each.relative_to(ROOT)) for each in files if old.search(each.read_text())] == []

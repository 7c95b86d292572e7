"""Every fact of docs/hardware.md, and where a test shows it on the simulated host.

Run with `-s` to see the table.  A test names the facts that it shows at the beginning of its docstring:
`hardware.md 1.3.3, T18: ...`.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
HARDWARE = ROOT / "docs" / "hardware.md"

NUMBER = r"(?:T\d+|\d+(?:\.\d+)*)"
REFERENCE = re.compile(rf"hardware\.md ({NUMBER}(?:(?:, | to | and ){NUMBER})*)")
FACT = re.compile(rf"^- \*\*({NUMBER})\*\* (.*)", re.MULTILINE)
HEADING = re.compile(r"^##+ (\d+(?:\.\d+)?)\.? ", re.MULTILINE)

NOT_MODELLED = {
    "0.8": "a guest cannot start on a simulated device; vgpuctl never kills a QEMU",
    "0.10": "migration is not there yet",
    "1.1.6": "how mdevctl prints what 1.1.4 and 1.1.5 are about",
    "1.2.4": "inside the resource manager; nothing moves a vGPU between places",
    "1.3.6": "about mdevctl; what comes back after a boot is 0.9",
    "1.4.1": "which release has which framework; it is probed (1.4.2) and never derived from a release",
    "1.4.15": "QEMU without libvirt",
    "1.4.16": "how Nova attaches",
    "1.6.6": "GPU instances are observed and not changed",
    "2.12": "whether one VM may have these vGPUs together is the driver's answer at its start",
    "2.13": "about the guest's firmware",
    "T1": "its parts are T2, 1.6.7 and 1.6.8; schedulers and GPU instances are observed and not changed",
    "T4": "there is no hook yet",
    "T5": "vgpuctl writes neither ramfb nor display",
    "T6": "module parameters are neither read nor written",
    "T15": "there is no hook yet",
}


def facts() -> dict[str, str]:
    """Every numbered fact with the line that it begins with."""
    return dict(FACT.findall(HARDWARE.read_text()))


def to_be_shown() -> dict[str, str]:
    """The facts of sections 0, 1 and 2, and the traps."""
    return {number: text for number, text in facts().items() if re.match(r"[012]\.|T", number)}


def numbers_in(text: str) -> set[str]:
    return {number for found in REFERENCE.findall(text) for number in re.findall(NUMBER, found)}


def shown_by() -> dict[str, list[str]]:
    """For each fact the tests whose docstring names it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for number in numbers_in(ast.get_docstring(node) or ""):
                    found[number].append(f"{path.relative_to(ROOT / 'tests')}::{node.name}")
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


def test_the_table() -> None:
    """Each fact is shown by a test, or there is a reason why not: never both, never neither."""
    shown = shown_by()
    both = [number for number in NOT_MODELLED if number in shown]
    neither = [number for number in to_be_shown() if number not in shown and number not in NOT_MODELLED]
    print(f"{'fact':8}shown by")
    for number in to_be_shown():
        first, *more = shown.get(number) or [f"- {NOT_MODELLED.get(number)}"]
        print(f"{number:8}{first}{f' and {len(more)} more' if more else ''}")
    assert (both, neither) == ([], [])


def test_a_reason_is_for_a_fact_that_is_there() -> None:
    assert [number for number in NOT_MODELLED if number not in to_be_shown()] == []


def test_facts_are_numbered_without_a_gap() -> None:
    """A number that was given stays with its fact, so that none is used twice and none is missing."""
    listed = [number for number, _ in FACT.findall(HARDWARE.read_text())]
    assert len(set(listed)) == len(listed)
    last: dict[str, int] = {}
    for number in listed:
        section, end = ("T", number[1:]) if number.startswith("T") else number.rsplit(".", 1)
        assert int(end) == last.get(section, 0) + 1, number
        last[section] = int(end)
    assert set(last) >= {"0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "2", "T"}


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

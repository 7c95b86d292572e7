"""Which step met which trouble, and when: counted over many histories, and shown as tables of 80 columns."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

from vgpuctl.model.step import (
    AttachHostdev,
    CreateComputeInstance,
    CreateGpuInstance,
    CreateVgpu,
    DestroyComputeInstance,
    DestroyGpuInstance,
    DetachHostdev,
    DisableAutostart,
    RemoveVgpu,
    SetMigMode,
    SetParams,
    SetVfs,
)

STEPS = {
    SetVfs.__name__: "vfs",
    SetMigMode.__name__: "mode",
    CreateGpuInstance.__name__: "gi+",
    DestroyGpuInstance.__name__: "gi-",
    CreateComputeInstance.__name__: "ci+",
    DestroyComputeInstance.__name__: "ci-",
    CreateVgpu.__name__: "vg+",
    RemoveVgpu.__name__: "vg-",
    SetParams.__name__: "par",
    AttachHostdev.__name__: "dev+",
    DetachHostdev.__name__: "dev-",
    DisableAutostart.__name__: "auto",
}
"""The columns: every kind of step."""

WIDTH = 80
_LABEL = 17
_COLUMN = 5


class Moment(StrEnum):
    """When something happens to a step."""

    BEFORE = "it is in the log, and has not touched the host yet"
    INSIDE = "it has looked at the host, and not changed it yet"
    AFTER = "it has changed the host, and not read it back yet"
    ENDED = "it is done, and not in the log yet"


def columns(heads: Iterable[str], label: str = "") -> str:
    """The heads of a table."""
    return f"{label:<{_LABEL}}" + "".join(f"{each:>{_COLUMN}}" for each in heads)


def row(label: str, cells: Iterable[str]) -> str:
    """A line of a table."""
    return f"{label:<{_LABEL}}" + "".join(f"{each:>{_COLUMN}}" for each in cells)


def listed(label: str, names: Sequence[str]) -> list[str]:
    """Names after a label, in lines that fit."""
    return textwrap.wrap(
        f"{label}: {', '.join(names)}", WIDTH, initial_indent="  ", subsequent_indent="      "
    )


class Coverage:
    """How often each cell was reached: a step, a trouble, a moment."""

    def __init__(self) -> None:
        self.cells: Counter[tuple[str, str, Moment]] = Counter()

    def count(self, step: str, trouble: str, moment: Moment) -> None:
        """That trouble came to such a step at that moment."""
        self.cells[step, trouble, moment] += 1

    def table(self, troubles: Sequence[str], why_not: Callable[[str, str, Moment], str | None]) -> list[str]:
        """The matrix, moment by moment: a count, `.` for what cannot be, `-` for what was not reached."""
        lines = []
        empty: dict[str, list[str]] = {}
        reasons: dict[str, int] = {}
        for moment in Moment:
            lines += ["", f"Troubles that come to a step when {moment}:", columns(STEPS.values())]
            for trouble in troubles:
                cells = []
                for step, head in STEPS.items():
                    count = self.cells[step, trouble, moment]
                    reason = why_not(step, trouble, moment)
                    if not count and reason is not None:
                        reasons[reason] = reasons.get(reason, 0) + 1
                    elif not count:
                        empty.setdefault(f"{trouble}, {moment.name.lower()}", []).append(head)
                    cells.append(str(count) if count else "." if reason is not None else "-")
                lines.append(row(trouble, cells))
        total = len(Moment) * len(troubles) * len(STEPS)
        cannot, missed = sum(reasons.values()), sum(map(len, empty.values()))
        lines += ["", f"{total} cells: {total - cannot - missed} reached, {cannot} cannot be (.):"]
        lines += [f"  {count:4}  {reason}" for reason, count in sorted(reasons.items())]
        lines.append(f"{missed} empty (-){':' if empty else ''}")
        return [*lines, *(line for label, names in empty.items() for line in listed(label, names))]

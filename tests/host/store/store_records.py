"""Strategies for every record, and what a log of them adds up to: the oracle of the store's tests."""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from hypothesis import strategies as st

from vgpuctl.model.pci import ParentName, PciAddress
from vgpuctl.model.record import (
    AllocationDropped,
    AllocationPut,
    DriftFound,
    DriftGone,
    LogEntry,
    OperationEnded,
    OperationRollingBack,
    OperationStarted,
    PauseSet,
    Record,
    StepEnded,
    StepStarted,
    WishDropped,
    WishPut,
)
from vgpuctl.ports.store import Saved

NOW = datetime(2026, 3, 1, 12, 0, 0, 250, tzinfo=UTC)

IDS = [UUID(int=number) for number in range(1, 5)]

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)

_LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    Any: _JSON,
    NoneType: st.none(),
    bool: st.booleans(),
    int: st.integers(0, 2**62),
    str: st.sampled_from(["a", "b", "L40S-8Q", "fenêtre", "nul\0", ""]) | st.text(max_size=6),
    UUID: st.sampled_from(IDS),
    datetime: st.datetimes(timezones=st.just(UTC)),
    PciAddress: st.builds(
        PciAddress, st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7)
    ),
    ParentName: st.builds(ParentName, st.text(string.ascii_letters, min_size=1, max_size=5)),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of that type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _LEAVES:
        return _LEAVES[hint]
    if origin in (Union, UnionType):
        return st.one_of([values(each) for each in arguments])
    if origin is tuple and arguments[1:] != (...,):
        return st.tuples(*[values(each) for each in arguments])
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is frozenset:
        return st.frozensets(values(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=2)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    assert is_dataclass(hint), hint
    hints = get_type_hints(hint)
    return st.builds(hint, **{each.name: values(hints[each.name]) for each in fields(hint)})


RECORDS: st.SearchStrategy[Record] = values(Record)


def operation_of(record: Record) -> UUID | None:
    """The operation that a record belongs to."""
    match record:
        case OperationStarted() | OperationRollingBack() | OperationEnded():
            return record.id
        case StepStarted() | StepEnded():
            return record.operation
        case _:
            return None


def fold(entries: Iterable[LogEntry]) -> Saved:
    """The state that a whole log adds up to."""
    log = list(entries)
    saved = Saved()
    ended = {entry.record.id for entry in log if isinstance(entry.record, OperationEnded)}
    for entry in log:
        saved.revision = entry.revision
        match entry.record:
            case WishPut(wish):
                saved.wishes[wish.key] = wish
            case WishDropped(key):
                saved.wishes.pop(key, None)
            case AllocationPut(allocation):
                saved.allocations[allocation.id] = allocation
            case AllocationDropped(id=id_):
                saved.allocations.pop(id_, None)
            case DriftFound(finding):
                saved.findings[finding.key] = finding
            case DriftGone(code=code, subject=subject):
                saved.findings.pop((code, subject), None)
            case PauseSet(paused):
                saved.paused = paused
    saved.unended = tuple(
        entry for entry in log if (id_ := operation_of(entry.record)) is not None and id_ not in ended
    )
    return saved

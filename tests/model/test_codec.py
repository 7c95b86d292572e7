"""The codec: what is written reads back the same, and what cannot be read says where."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any, Union
from uuid import UUID

import pytest

from vgpuctl.model import codec
from vgpuctl.model.document import Affect, DocumentKey, DocumentKind
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.pci import GpuAddress, ParentName, PciAddress
from vgpuctl.model.record import DAEMON, OperationStarted, Record
from vgpuctl.model.step import Step
from vgpuctl.ports.nvml import NvmlHost

KEY = DocumentKey(DocumentKind.GPU, "g")
ADDRESS = PciAddress(0, 0x41, 0, 4)


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Sample:
    number: int
    name: str = "none"


@pytest.mark.parametrize(
    ("hint", "value", "data"),
    [
        (PciAddress, ADDRESS, "0000:41:00.4"),
        (GpuAddress, ADDRESS, "0000:41:00.4"),
        (GpuAddress, ParentName("mtty"), "mtty"),
        (Union[PciAddress, ParentName, None], None, None),
        (UUID, UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (frozenset[Affect], frozenset({Affect.LIVE, Affect.CONFIG}), ["config", "live"]),
        (frozenset[int], frozenset({64, 1, 2}), [1, 2, 64]),
        (frozenset[Sample], frozenset({Sample(1)}), [{"number": 1, "name": "none"}]),
        (dict[DocumentKind, int], {DocumentKind.GPU: 1}, {"Gpu": 1}),
        (tuple[DocumentKey, Sample | None], (KEY, None), [{"kind": "Gpu", "name": "g"}, None]),
        (Fact[int], Unknown("EIO"), {"$kind": "Unknown", "reason": "EIO"}),
        (Fact[int | None], None, None),
        (Fact[tuple[int, ...]], (1, 2), [1, 2]),
        (float, 1, 1),
    ],
)  # fmt: skip
def test_a_value_has_one_json_and_comes_back(hint: Any, value: object, data: object) -> None:
    assert codec.encode(value, hint) == data
    assert codec.decode(json.loads(json.dumps(data)), hint) == value


def test_times_are_utc_and_have_a_zone() -> None:
    value = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    data = codec.encode(value, datetime)
    assert data == "2026-02-28T23:30:00.000000Z"
    assert codec.decode(data, datetime) == value
    with pytest.raises(ValueError, match="time zone"):
        codec.encode(datetime(2026, 3, 1), datetime)  # noqa: DTZ001
    with pytest.raises(codec.DecodeError, match="time zone"):
        codec.decode("2026-03-01T00:00:00", datetime)


def test_a_parent_name_of_an_unforeseen_form_is_not_lost() -> None:
    name = ParentName("0.0.0313")
    assert codec.decode(codec.encode(name, GpuAddress), GpuAddress) == name


@pytest.mark.parametrize(
    ("hint", "data", "message"),
    [
        (int, True, r"\$: not number"),
        (int, 1.5, r"\$: not int"),
        (str, 1, r"\$: not text"),
        (Colour, "blue", r"'blue' is not a valid Colour"),
        (PciAddress, "mtty", r"not a PCI address"),
        (tuple[Sample, ...], [{"number": 1}, {}], r"\$\[1\]\.number: missing"),
        (tuple[int, str], [1], r"1 items, not 2"),
        (dict[str, int], {"a": "b"}, r"\$\.a: not number"),
        (Sample, [], r"\$: not object"),
        (Fact[int], {"$kind": "Later"}, r"\$kind: 'Later' is not known"),
        (Fact[int], "text", r"is none of number"),
        (Step, {"number": 1, "effect": {"$kind": "SetMigMode"}, "reason": ""}, r"\$\.effect"),
    ],
)
def test_json_of_another_type_is_refused_with_its_path(hint: Any, data: object, message: str) -> None:
    with pytest.raises(codec.DecodeError, match=message):
        codec.decode(data, hint)


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(codec.DecodeError, match="not JSON"):
        codec.loads("{", Sample)


def test_a_missing_field_takes_its_default_and_an_unknown_one_is_ignored() -> None:
    assert codec.decode({"number": 1, "later": [1]}, Sample) == Sample(1)


@pytest.mark.parametrize(
    ("hint", "value"),
    [(int, "1"), (int, True), (UUID, "x"), (Sample, 3), (Fact[int], "text"), (tuple[int, int], (1, 2, 3))],
)
def test_a_value_of_another_type_is_not_written(hint: Any, value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        codec.encode(value, hint)


@pytest.mark.parametrize("hint", [Union[str, UUID], dict[int, str], complex])
def test_a_type_without_a_json_of_its_own_is_the_programmers_fault(hint: Any) -> None:
    with pytest.raises(TypeError):
        codec.encode("a", hint)


def test_anything_can_be_recorded_where_the_type_is_any() -> None:
    value = {
        "address": ADDRESS,
        "when": datetime(2026, 1, 1, tzinfo=UTC),
        1: (Sample(1), Colour.RED),
        "set": {2, 1},
        "nan": float("nan"),
        "other": ValueError("text"),
        "class": Sample,
    }
    data = codec.encode(value, Any)
    assert json.loads(json.dumps(data, allow_nan=False)) == {
        "address": "0000:41:00.4",
        "when": "2026-01-01T00:00:00.000000Z",
        "1": [{"number": 1, "name": "none"}, "red"],
        "set": [1, 2],
        "nan": "nan",
        "other": "text",
        "class": str(Sample),
    }


def test_the_tag_does_not_hide_a_field_named_kind() -> None:
    record = OperationStarted(
        id=UUID(int=1), kind="create", subject="a", requester=DAEMON, scope=("gpu/x",), undo=()
    )
    data = codec.encode(record, Record)
    assert (data["$kind"], data["kind"]) == ("OperationStarted", "create")


def test_records_of_every_port_have_a_codec() -> None:
    """The simulated host speaks NvmlHost over a socket, with its unread facts."""
    host = NvmlHost(driver_version=Unknown("NVML is not loaded"), gpus=())
    assert codec.decode(codec.encode(host, NvmlHost), NvmlHost) == host

"""Values to JSON and back, driven by their type hints: one codec for every record of the house.

The JSON is stable as long as the dataclasses are:

- a dataclass is an object of its fields; a missing field takes its default, an unknown one is ignored;
- in a union of several dataclasses each carries its class name as `$kind`;
- enums are their values, UUIDs and addresses text, datetimes RFC 3339 in UTC, sets sorted arrays;
- what is typed `Any` is JSON already; what is not becomes its text, so that recording never fails.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from vgpuctl.model.pci import GpuAddress, ParentName, PciAddress

TAG = "$kind"
"""The key that tells the dataclasses of a union apart; `kind` is a field of several of them."""


class DecodeError(ValueError):
    """JSON that is not of the type; the message begins with the path."""


class _Shape(StrEnum):
    """What a value is in JSON; the members of a union are told apart by it."""

    NULL = "null"
    BOOLEAN = "boolean"
    NUMBER = "number"
    TEXT = "text"
    ARRAY = "array"
    OBJECT = "object"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class _Codec:
    """How one type hint is written and read; `accepts` picks the member of a union to write."""

    shape: _Shape
    encode: Callable[[Any], Any]
    decode: Callable[[Any, str], Any]
    accepts: Callable[[Any], bool]


def encode(value: object, hint: Any) -> Any:
    """The JSON of `value` as a `hint`; TypeError or ValueError when it is not one."""
    return _codec(hint).encode(value)


def decode(data: Any, hint: Any) -> Any:
    """The `hint` that `data` is the JSON of; raises DecodeError."""
    return _codec(hint).decode(data, "$")


def dumps(value: object, hint: Any) -> str:
    """`encode` as compact ASCII text, the same for equal values."""
    return json.dumps(encode(value, hint), separators=(",", ":"), sort_keys=True, allow_nan=False)


def loads(text: str, hint: Any) -> Any:
    """`decode` of text; raises DecodeError, also where it is no JSON."""
    try:
        data = json.loads(text)
    except ValueError as error:
        msg = f"$: not JSON: {error}"
        raise DecodeError(msg) from error
    return decode(data, hint)


def _shape_of(data: Any) -> _Shape:
    match data:
        case None:
            return _Shape.NULL
        case bool():
            return _Shape.BOOLEAN
        case int() | float():
            return _Shape.NUMBER
        case str():
            return _Shape.TEXT
        case list():
            return _Shape.ARRAY
        case _:
            return _Shape.OBJECT


def _require(data: Any, shape: _Shape, path: str) -> Any:
    if _shape_of(data) is not shape:
        msg = f"{path}: not {shape}: {data!r:.80}"
        raise DecodeError(msg)
    return data


@cache
def _codec(hint: Any) -> _Codec:
    if hint is Any:
        return _Codec(_Shape.ANY, _plain, lambda data, _path: data, lambda _value: True)
    if hint == GpuAddress:
        return _text(_gpu_address, PciAddress, ParentName)
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _union(arguments)
    if origin is tuple and arguments[1:] != (...,):
        return _product(arguments)
    if origin in (tuple, list, frozenset):
        return _sequence(origin, arguments[0])
    if origin in (dict, Mapping):
        return _mapping(*arguments)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _Codec(
            _Shape.OBJECT,
            lambda value: _encode_fields(hint, value),
            lambda data, path: _decode_fields(hint, data, path),
            lambda value: type(value) is hint,
        )
    msg = f"no JSON is defined for {hint!r}"
    raise TypeError(msg)


def _text(parse: Callable[[str], Any], *types: type, render: Callable[[Any], str] = str) -> _Codec:
    """A codec of something that is text in JSON; `parse` raises ValueError."""

    def encode_text(value: Any) -> str:
        if not isinstance(value, types):
            msg = f"not {' or '.join(each.__name__ for each in types)}: {value!r:.80}"
            raise TypeError(msg)
        return render(value)

    def decode_text(data: Any, path: str) -> Any:
        try:
            return parse(_require(data, _Shape.TEXT, path))
        except DecodeError:
            raise
        except ValueError as error:
            msg = f"{path}: {error}"
            raise DecodeError(msg) from error

    return _Codec(_Shape.TEXT, encode_text, decode_text, lambda value: isinstance(value, types))


def _scalar(shape: _Shape, *types: type) -> _Codec:
    def encode_scalar(value: Any) -> Any:
        if type(value) not in types:
            msg = f"not {shape}: {value!r:.80}"
            raise TypeError(msg)
        return value

    def decode_scalar(data: Any, path: str) -> Any:
        if type(_require(data, shape, path)) not in types:
            msg = f"{path}: not {types[0].__name__}: {data!r:.80}"
            raise DecodeError(msg)
        return data

    return _Codec(shape, encode_scalar, decode_scalar, lambda value: type(value) in types)


def _gpu_address(text: str) -> PciAddress | ParentName:
    """Total, unlike parse_address: a parent name of an unforeseen form must not lose the log."""
    try:
        return PciAddress.parse(text)
    except ValueError:
        return ParentName(text)


def _render_time(value: datetime) -> str:
    if value.tzinfo is None:
        msg = f"a time without a time zone: {value.isoformat()}"
        raise ValueError(msg)
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _parse_time(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        msg = f"a time without a time zone: {text!r}"
        raise ValueError(msg)
    return value.astimezone(UTC)


_SCALARS: dict[Any, _Codec] = {
    NoneType: _scalar(_Shape.NULL, NoneType),
    None: _scalar(_Shape.NULL, NoneType),
    bool: _scalar(_Shape.BOOLEAN, bool),
    int: _scalar(_Shape.NUMBER, int),
    float: _scalar(_Shape.NUMBER, float, int),
    str: _text(str, str),
    UUID: _text(UUID, UUID),
    datetime: _text(_parse_time, datetime, render=_render_time),
    PciAddress: _text(PciAddress.parse, PciAddress),
    ParentName: _text(ParentName, ParentName),
}


def _enum(kind: type[Enum]) -> _Codec:
    def decode_enum(data: Any, path: str) -> Enum:
        try:
            return kind(data)
        except ValueError as error:
            msg = f"{path}: {error}"
            raise DecodeError(msg) from error

    shape = _shape_of(next(iter(kind)).value)
    return _Codec(shape, lambda value: kind(value).value, decode_enum, lambda value: isinstance(value, kind))


def _sequence(origin: Any, item_hint: Any) -> _Codec:
    item = _codec(item_hint)

    def encode_items(value: Any) -> list[Any]:
        encoded = [item.encode(each) for each in value]
        return sorted(encoded, key=_order) if origin is frozenset else encoded

    def decode_items(data: Any, path: str) -> Any:
        _require(data, _Shape.ARRAY, path)
        return origin(item.decode(each, f"{path}[{index}]") for index, each in enumerate(data))

    return _Codec(_Shape.ARRAY, encode_items, decode_items, lambda value: isinstance(value, origin))


def _order(data: Any) -> tuple[str, Any]:
    return (type(data).__name__, data if isinstance(data, int | str) else json.dumps(data, sort_keys=True))


def _product(hints: tuple[Any, ...]) -> _Codec:
    items = [_codec(each) for each in hints]

    def encode_items(value: Any) -> list[Any]:
        return [item.encode(each) for item, each in zip(items, value, strict=True)]

    def decode_items(data: Any, path: str) -> Any:
        if len(_require(data, _Shape.ARRAY, path)) != len(items):
            msg = f"{path}: {len(data)} items, not {len(items)}"
            raise DecodeError(msg)
        return tuple(item.decode(data[index], f"{path}[{index}]") for index, item in enumerate(items))

    return _Codec(_Shape.ARRAY, encode_items, decode_items, lambda value: isinstance(value, tuple))


def _mapping(key_hint: Any, value_hint: Any) -> _Codec:
    key, item = _codec(key_hint), _codec(value_hint)
    if key.shape is not _Shape.TEXT:
        msg = f"the keys of a JSON object are text, not {key_hint!r}"
        raise TypeError(msg)

    def decode_items(data: Any, path: str) -> Any:
        _require(data, _Shape.OBJECT, path)
        return {key.decode(name, path): item.decode(each, f"{path}.{name}") for name, each in data.items()}

    return _Codec(
        _Shape.OBJECT,
        lambda value: {key.encode(name): item.encode(each) for name, each in value.items()},
        decode_items,
        lambda value: isinstance(value, Mapping),
    )


def _union(members: tuple[Any, ...]) -> _Codec:
    """Dataclasses are told apart by their tag, everything else by its shape."""
    if set(get_args(GpuAddress)) <= set(members):
        members = (*(each for each in members if each not in get_args(GpuAddress)), GpuAddress)
    classes = {each.__name__: each for each in members if isinstance(each, type) and _is_record(each)}
    is_tagged = len(classes) > 1 or set(members) - set(classes.values()) - {NoneType} != set()
    others = [_codec(each) for each in members if not is_tagged or each not in classes.values()]
    by_shape = {each.shape: each for each in others}
    if len(by_shape) != len(others):
        msg = f"JSON cannot tell the members of {members!r} apart"
        raise TypeError(msg)

    def encode_member(value: Any) -> Any:
        if is_tagged and type(value) in classes.values():
            return {TAG: type(value).__name__} | _encode_fields(type(value), value)
        for each in others:
            if each.accepts(value):
                return each.encode(value)
        msg = f"none of {members!r}: {value!r:.80}"
        raise TypeError(msg)

    def decode_member(data: Any, path: str) -> Any:
        if is_tagged and isinstance(data, dict) and TAG in data:
            if data[TAG] not in classes:
                msg = f"{path}.{TAG}: {data[TAG]!r:.80} is not known here"
                raise DecodeError(msg)
            return _decode_fields(classes[data[TAG]], data, path)
        member = by_shape.get(_shape_of(data))
        if member is None:
            msg = f"{path}: {data!r:.80} is none of {', '.join(by_shape)}"
            raise DecodeError(msg)
        return member.decode(data, path)

    return _Codec(_Shape.ANY, encode_member, decode_member, lambda _value: True)


def _is_record(kind: type) -> bool:
    return is_dataclass(kind) and kind not in _SCALARS


@cache
def _fields(kind: Any) -> dict[str, tuple[_Codec, bool]]:
    """The codec of each field, and whether it must be there."""
    hints = get_type_hints(kind)
    return {
        each.name: (_codec(hints[each.name]), each.default is MISSING and each.default_factory is MISSING)
        for each in fields(kind)
    }


def _encode_fields(kind: Any, value: Any) -> dict[str, Any]:
    if not isinstance(value, kind):
        msg = f"not {kind.__name__}: {value!r:.80}"
        raise TypeError(msg)
    return {name: codec.encode(getattr(value, name)) for name, (codec, _required) in _fields(kind).items()}


def _decode_fields(kind: Any, data: Any, path: str) -> Any:
    _require(data, _Shape.OBJECT, path)
    found: dict[str, Any] = {}
    for name, (codec, required) in _fields(kind).items():
        if name in data:
            found[name] = codec.decode(data[name], f"{path}.{name}")
        elif required:
            msg = f"{path}.{name}: missing"
            raise DecodeError(msg)
    return kind(**found)


def _plain(value: Any) -> Any:
    """JSON of something whose type nobody declared, as near as it gets."""
    match value:
        case None | bool() | int() | str():
            return value.value if isinstance(value, Enum) else value
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping():
            return {str(name): _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case set() | frozenset():
            return sorted((_plain(each) for each in value), key=_order)
        case UUID() | datetime() | PciAddress() | ParentName():
            return _SCALARS[type(value)].encode(value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
        case _:
            return str(value)

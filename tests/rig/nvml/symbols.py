"""Exported names of a shared library, and a copy of it that lacks some of them, as an older driver's does.

Usage: python tests/rig/nvml/symbols.py LIBRARY COPY NAME...
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNSYM = 11
_UNDEFINED = 0


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    at: int
    """Where its name is in the file."""
    is_defined: bool


def exported(library: bytes) -> tuple[str, ...]:
    """The names that dlsym finds in this ELF file (64 bits, little-endian)."""
    return tuple(sorted(each.name for each in _symbols(library) if each.is_defined))


def without(library: bytes, names: Iterable[str]) -> bytes:
    """The same library, in which dlsym does not find `names`; raises KeyError for one that it never had.

    The entry is renamed in place; its hash stays, so that a look-up of the old name reaches it and sees
    that it is another, and one of the new name never gets there.
    """
    changed = bytearray(library)
    places = {each.name: each.at for each in _symbols(library) if each.is_defined}
    for name in names:
        changed[places[name]] = ord("-")
    return bytes(changed)


def _symbols(library: bytes) -> Iterable[_Symbol]:
    header = _HEADER.unpack_from(library)
    if header[0][:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    start, size, count = header[6], header[11], header[12]
    sections = [_SECTION.unpack_from(library, start + size * index) for index in range(count)]
    (table,) = (each for each in sections if each[1] == _DYNSYM)
    strings = sections[table[6]][4]
    for at in range(table[4], table[4] + table[5], _SYMBOL.size):
        name, _info, _other, section, _value, _size = _SYMBOL.unpack_from(library, at)
        begin = strings + name
        text = library[begin : library.index(b"\0", begin)].decode()
        if text:
            yield _Symbol(text, begin, section != _UNDEFINED)


def main(library: Path, copy: Path, names: list[str]) -> None:
    """Write the copy."""
    copy.write_bytes(without(library.read_bytes(), names))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

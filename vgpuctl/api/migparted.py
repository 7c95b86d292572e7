"""mig-parted's YAML: `mig-configs` by name, each a list of rules for the GPUs that it means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from vgpuctl.api.faults import Fault, Path, did_you_mean, dotted, refuse
from vgpuctl.api.text import Read, decode, is_json, read_json, read_yaml
from vgpuctl.errors import InvalidInput
from vgpuctl.model.document import MigWish
from vgpuctl.model.edit import ImportMigParted, MigPartedRule

_SOURCE = "mig-parted"
_FILTER = re.compile(r"0x[0-9A-Fa-f]{8}")
_PROFILE = re.compile(r"([1-9][0-9]*c\.)?[1-9][0-9]*g\.[0-9]+gb(?:[+-][a-z.]+)?")
_KEYS = frozenset({"device-filter", "devices", "mig-enabled", "mig-devices"})


def parse_mig_parted(text: str, config: str | None) -> ImportMigParted:
    """The named configuration, or the only one; InvalidInput with every fault in it.

    `mig-devices` may name parts of a GPU instance (`1c.3g.20gb`), which are compute instances.  The whole
    of one is left to the guest's driver.
    """
    read = _read(text)
    configs = read.value.get("mig-configs") if isinstance(read.value, dict) else None
    if not isinstance(configs, dict) or not configs:
        raise refuse(_SOURCE, [Fault("mig-configs", "must be a mapping of configurations by name")])
    if config is None and len(configs) == 1:
        config = next(iter(configs))
    if config is None or config not in configs:
        right = f"has {', '.join(configs)}"
        wanted = "several configurations: name one" if config is None else f"no configuration {config!r}"
        near = did_you_mean(config, configs) if config is not None else ""
        raise InvalidInput(f"{_SOURCE}: {wanted}; it {right}", hint=near or None)
    faults: list[tuple[Path, str]] = []
    path: Path = ("mig-configs", config)
    entries = configs[config]
    if not isinstance(entries, list) or not entries:
        faults.append((path, "must be a list of entries"))
        entries = []
    rules = [
        rule
        for number, entry in enumerate(entries)
        if (rule := _rule(entry, (*path, number), faults)) is not None
    ]
    faults += [each for each in read.faults if not isinstance(each[0], tuple) or each[0][:2] == path]
    if faults:
        raise refuse(
            _SOURCE, [Fault(dotted(where), what, line=read.line_of(where)) for where, what in faults]
        )
    return ImportMigParted(config=config, rules=tuple(rules))


def _read(text: str) -> Read:
    text = decode(text, _SOURCE)
    if is_json(text):
        return Read(value=read_json(text, _SOURCE))
    reads = read_yaml(text, _SOURCE)
    if len(reads) != 1:
        raise refuse(_SOURCE, [Fault("", f"holds {len(reads)} YAML documents; one is wanted")])
    return reads[0]


def _rule(entry: Any, path: Path, faults: list[tuple[Path, str]]) -> MigPartedRule | None:
    if not isinstance(entry, dict):
        faults.append((path, "must be a mapping"))
        return None
    found = len(faults)
    faults += [((*path, key), "is not known here") for key in entry if key not in _KEYS]
    enabled = entry.get("mig-enabled")
    if not isinstance(enabled, bool):
        faults.append(((*path, "mig-enabled"), "must be true or false"))
    filters = tuple(_filters(entry.get("device-filter"), (*path, "device-filter"), faults))
    indices = _indices(entry.get("devices"), (*path, "devices"), faults)
    profiles = tuple(_profiles(entry.get("mig-devices"), (*path, "mig-devices"), faults))
    if enabled is False and profiles:
        faults.append(((*path, "mig-devices"), "has no place where mig-enabled is false"))
    if len(faults) > found:
        return None
    whole = tuple(sorted((name, count) for name, count in profiles if "c." not in name))
    compute = tuple(sorted((name, count) for name, count in profiles if "c." in name and count))
    wish = MigWish(enabled=bool(enabled), profiles=whole if enabled else None)
    return MigPartedRule(filters=filters, indices=indices, mig=wish, compute=compute)


def _filters(value: Any, path: Path, faults: list[tuple[Path, str]]) -> Iterator[int]:
    for each in value or [] if isinstance(value, list | None) else [value]:
        if isinstance(each, str) and _FILTER.fullmatch(each):
            yield int(each, 16)
        else:
            faults.append((path, f"{each!r} is no PCI id such as 0x233010DE"))


def _indices(value: Any, path: Path, faults: list[tuple[Path, str]]) -> tuple[int, ...] | None:
    if value == "all":
        return None
    if isinstance(value, list) and all(type(each) is int and each >= 0 for each in value):
        return tuple(value)
    faults.append((path, "must be all, or a list of indices"))
    return ()


def _profiles(value: Any, path: Path, faults: list[tuple[Path, str]]) -> Iterator[tuple[str, int]]:
    if value is None or value == {}:
        return
    if not isinstance(value, dict):
        faults.append((path, "must be a mapping of profiles to counts"))
        return
    for name, count in value.items():
        match = _PROFILE.fullmatch(name)
        if match is None:
            faults.append(((*path, name), "is no profile such as 1g.10gb or 1c.3g.40gb"))
        elif type(count) is not int or count < 0:
            faults.append(((*path, name), "must be a number"))
        else:
            yield name, count

"""A captured host: a tree that can be read exactly as it was captured."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from vgpuctl.errors import InvalidInput
from vgpuctl.model.codec import TAG, DecodeError, decode
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.ports.nvml import NvmlHost
from vgpuctl.sim.node import Dir, File, Link, Node, failure, folder

FORMAT = "vgpuctl-capture/1"


@dataclass(frozen=True, slots=True)
class Replay:
    """A capture as a tree and as NVML's answer."""

    root: Dir
    nvml: Fact[NvmlHost]


def replay(capture: dict[str, Any]) -> Replay:
    """The replay of a capture; InvalidInput when it is none."""
    return _cached(_Same(capture))


class _Same:
    """A capture, compared by identity: it is a frozen part of the state."""

    __slots__ = ("capture",)

    def __init__(self, capture: dict[str, Any]) -> None:
        self.capture = capture

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.capture is self.capture

    def __hash__(self) -> int:
        return id(self.capture)


@lru_cache(maxsize=4)
def _cached(same: _Same) -> Replay:
    capture = same.capture
    if capture.get("format") != FORMAT:
        raise InvalidInput(f"not a capture: its format is {capture.get('format')!r}, not {FORMAT!r}")
    tree: dict[str, Any] = {}
    for path in capture.get("dirs", ()):
        _place(tree, path, {})
    for path, content in capture.get("files", {}).items():
        _place(tree, path, _file(path, content))
    for path, target in capture.get("links", {}).items():
        _place(tree, path, Link(_from_root(path, target)))
    if capture.get("host", {}).get("sriov_manage"):
        _place(tree, "usr/lib/nvidia/sriov-manage", File(_text("")))
    return Replay(_folder(tree), _nvml(capture.get("nvml")))


def _place(tree: dict[str, Any], path: str, what: Any) -> None:
    *parents, name = path.strip("/").split("/")
    for each in parents:
        below = tree.setdefault(each, {})
        if not isinstance(below, dict):
            raise InvalidInput(f"not a capture: {path} lies below something that is no directory")
        tree = below
    tree.setdefault(name, what)


def _folder(tree: dict[str, Any]) -> Dir:
    entries: dict[str, Node] = {
        name: _folder(below) if isinstance(below, dict) else below for name, below in tree.items()
    }
    return folder(entries)


def _file(path: str, content: Any) -> File:
    if isinstance(content, str):
        return File(_text(content))
    name = content.get("errno", "EIO") if isinstance(content, dict) else "EIO"
    return File(_error(path, getattr(errno, str(name), errno.EIO)))


def _text(content: str) -> Callable[[], str]:
    return lambda: content.removesuffix("\n")


def _error(path: str, number: int) -> Callable[[], str]:
    def show() -> str:
        raise failure(number, path)

    return show


def _from_root(path: str, target: str) -> str:
    """A link's target as a path from the root; it may be relative to the link, as in sysfs."""
    if target.startswith("/"):
        return target[1:]
    is_relative = target.startswith("../") or "/" not in target
    return f"{path.strip('/').rpartition('/')[0]}/{target}" if is_relative else target


def _nvml(data: Any) -> Fact[NvmlHost]:
    if data is None:
        return Unknown("the capture has nothing from NVML")
    try:
        found: Fact[NvmlHost] = decode(data, Unknown if TAG in data else NvmlHost)
    except (DecodeError, TypeError) as error:
        return Unknown(f"the capture's NVML cannot be read: {error}")
    return found

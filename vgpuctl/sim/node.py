"""A file tree that is made while it is walked: files, links, directories, and the walk itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Union

from vgpuctl.model.pci import GpuAddress

LINKS_MAX = 40
"""Links that one path may lead through before it is a loop [path_resolution(7)]."""


@dataclass(frozen=True, slots=True)
class Store:
    """What a write to a file does: the attribute, the GPU and parent it belongs to, and whatever else.

    The tree only names it; the machine does it.
    """

    attribute: str
    gpu: GpuAddress
    parent: GpuAddress
    detail: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """A file; without `show` it is write-only, without `store` read-only.  `show` may raise OSError."""

    show: Callable[[], str] | None
    store: Store | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link; `target` is a path from the root."""

    target: str


class Dir:
    """A directory, filled when it is first looked into; `gpu` names the GPU whose things lie below."""

    __slots__ = ("_entries", "_fill", "gpu")

    def __init__(self, fill: Callable[[], Mapping[str, Node]], gpu: GpuAddress | None = None) -> None:
        self._fill = fill
        self._entries: Mapping[str, Node] | None = None
        self.gpu = gpu

    @property
    def entries(self) -> Mapping[str, Node]:
        """What is in it."""
        if self._entries is None:
            self._entries = self._fill()
        return self._entries


Node = Union[File, Link, Dir]


@dataclass(frozen=True, slots=True)
class Found:
    """Where a path led to: the real path, what is there, and the GPU that it belongs to."""

    path: str
    node: Node
    gpu: GpuAddress | None


def fixed(text: str) -> File:
    """A read-only file of that text."""
    return File(lambda: text)


def folder(entries: Mapping[str, Node]) -> Dir:
    """A directory of just that."""
    return Dir(lambda: entries)


def walk(root: Dir, path: str, *, follow: bool = True) -> Found:
    """Follow `path` from the root, through links; raises OSError (ENOENT, ENOTDIR, ELOOP).

    Without `follow`, a link at the very end is what is found.
    """
    names: list[str] = []
    nodes: list[Node] = [root]
    todo = path.split("/")[::-1]
    links = 0
    while todo:
        name = todo.pop()
        if name in ("", "."):
            continue
        here = nodes[-1]
        if not isinstance(here, Dir):
            raise failure(errno.ENOTDIR, path)
        if name == "..":
            if names:
                names.pop()
                nodes.pop()
            continue
        entry = here.entries.get(name)
        if entry is None:
            raise failure(errno.ENOENT, path)
        if isinstance(entry, Link) and (follow or todo):
            links += 1
            if links > LINKS_MAX:
                raise failure(errno.ELOOP, path)
            names, nodes = [], [root]
            todo.extend(entry.target.split("/")[::-1])
            continue
        names.append(name)
        nodes.append(entry)
    gpu = next((each.gpu for each in reversed(nodes) if isinstance(each, Dir) and each.gpu is not None), None)
    return Found("/".join(names), nodes[-1], gpu)


def below(root: Dir, at: Found, name: str, *, follow: bool = True) -> Found:
    """Where `name` in `at` leads to: one step of a walk, for whoever has those before it."""
    path = f"{at.path}/{name}"
    if not isinstance(at.node, Dir):
        raise failure(errno.ENOTDIR, path)
    entry = at.node.entries.get(name)
    if entry is None:
        raise failure(errno.ENOENT, path)
    if isinstance(entry, Link) and follow:
        return walk(root, entry.target)
    gpu = entry.gpu if isinstance(entry, Dir) else None
    return Found(path, entry, at.gpu if gpu is None else gpu)


def failure(number: int, path: str) -> OSError:
    """The OSError of that errno about `path`."""
    return OSError(number, os.strerror(number), path)

"""One cold look at the host in a process of its own: `cold.py observe|record|raw [FILE]`."""

from __future__ import annotations

import builtins
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_ASKED: Final = ("open", "listdir", "readlink", "stat", "lstat")


def main(verb: str, file: str) -> None:
    """Print the milliseconds that it took as JSON; `record` leaves in `file` what was read, in its order."""
    if verb == "raw":
        calls = [(name, path) for name, path in json.loads(Path(file).read_text())]
        began = time.perf_counter()
        _repeat(calls)
        found: dict[str, Any] = {"ms": (time.perf_counter() - began) * 1000, "calls": len(calls)}
    else:
        found = _observe(file if verb == "record" else None)
    print(json.dumps(found))


def _observe(record_in: str | None) -> dict[str, Any]:
    from vgpuctl.host.clock import SystemClock
    from vgpuctl.host.handles import ProcHandles
    from vgpuctl.host.kernel import LocalKernel
    from vgpuctl.host.local import LocalHost
    from vgpuctl.host.nvml.adapter import NullNvml
    from vgpuctl.model.catalog import Catalog

    host = LocalHost(
        kernel=LocalKernel(),
        nvml=NullNvml(),
        handles=ProcHandles(),
        hypervisor=None,
        catalog=Catalog(),
        clock=SystemClock(),
    )
    calls: list[tuple[str, str]] = []
    if record_in is not None:
        _record(calls)
    began = time.perf_counter()
    snapshot = host.observe()
    found = {
        "ms": (time.perf_counter() - began) * 1000,
        "gpus": len(snapshot.gpus),
        "vfs": sum(len(each.vfs) for each in snapshot.gpus),
        "vgpus": len(snapshot.vgpus()),
    }
    if record_in is not None:
        kept = [(name, path) for name, path in calls if path.startswith(("/sys/", "/proc/"))]
        Path(record_in).write_text(json.dumps(kept))
    return found


def _record(calls: list[tuple[str, str]]) -> None:
    def noting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(path: Any, *arguments: Any, **more: Any) -> Any:
            if isinstance(path, str):
                calls.append((name, path))
            return call(path, *arguments, **more)

        return noted

    for name in _ASKED:
        setattr(os, name, noting(name, getattr(os, name)))
    builtins.open = noting("open", builtins.open)


def _repeat(calls: list[tuple[str, str]]) -> None:
    """The same, by system calls alone.  A process that has ended since is no error."""
    for name, path in calls:
        try:
            if name == "open":
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.read(descriptor, 1 << 16)
                finally:
                    os.close(descriptor)
            else:
                getattr(os, name)(path)
        except OSError:
            pass


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

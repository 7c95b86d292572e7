"""One apply that creates 256 vGPUs: commits, fsyncs and our own time for each."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import hosts
from benchmarks.fresh import TOP
from vgpuctl.host.clock import SystemClock
from vgpuctl.host.store.sqlite import SqliteStore
from vgpuctl.model.document import VgpuDocument
from vgpuctl.model.edit import ApplyDocuments
from vgpuctl.model.record import Requester
from vgpuctl.service.service import Service
from vgpuctl.sim.host import SimHost

COUNT = 256


class Timed:
    """Sums up the time spent in one method of an object, on every thread."""

    def __init__(self, wrapped: Any, method: str) -> None:
        self._wrapped = wrapped
        self._method = method
        self.seconds = 0.0
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._wrapped, name)
        if name != self._method:
            return call

        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*arguments)
            finally:
                self.seconds += time.perf_counter() - began
                self.calls += 1

        return timed


def measure(directory: Path) -> dict[str, Any]:
    """Create them in this process."""
    sim = SimHost.in_memory(hosts.EIGHT.format(framework="sriov-mdev"))
    host = Timed(hosts.make(sim), "run")
    store = Timed(SqliteStore(directory / "state.db"), "commit")
    service = Service(host, store, SystemClock(), hosts.CATALOG, file_profiles={})  # type: ignore[arg-type]
    service.start()
    who = Requester(uid=0, pid=os.getpid(), name="root")
    # The VFs first: turning them on is the driver's time.
    warm = tuple(VgpuDocument(name=f"w{n}", type="L40S-1B", gpu=str(n)) for n in range(8))
    service.wait(service.submit(ApplyDocuments(documents=warm), who)["id"], 60)
    store.calls, store.seconds, host.seconds, host.calls = 0, 0.0, 0.0, 0
    documents = tuple(VgpuDocument(name=f"v{n}", type="L40S-1B") for n in range(COUNT - 8))
    began = time.perf_counter()
    operation = service.submit(ApplyDocuments(documents=documents), who)
    admitted = time.perf_counter() - began
    ended = service.wait(operation["id"], 300)
    wall = time.perf_counter() - began
    service.stop()
    assert ended["state"] == "succeeded", ended["problem"]
    made = len(documents)
    return {
        "created": made,
        "state": ended["state"],
        "wall_s": round(wall, 2),
        "admission_s": round(admitted, 2),
        "commits_per_vgpu": round(store.calls / made, 2),
        "commit_ms_per_vgpu": round(store.seconds / made * 1000, 2),
        "host_ms_per_vgpu": round(host.seconds / host.calls * 1000, 2),
        "wall_ms_per_vgpu": round(wall / made * 1000, 2),
    }


def run() -> dict[str, Any]:
    """The measurement, and once more under strace to count fsyncs."""
    with tempfile.TemporaryDirectory() as directory:
        found = measure(Path(directory))
    if shutil.which("strace") is None:
        return {**found, "fsyncs_per_vgpu": None, "note": "strace is not installed: fsyncs not counted"}
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "trace"
        code = f"from pathlib import Path; from benchmarks.apply import measure; measure(Path({directory!r}))"
        subprocess.run(
            [
                "strace",
                "-f",
                "-c",
                "-e",
                "trace=fsync,fdatasync",
                "-o",
                str(trace),
                sys.executable,
                "-c",
                code,
            ],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(TOP)},
            cwd=TOP,
        )
        rows = re.findall(
            r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+f\w*sync$", trace.read_text(), re.MULTILINE
        )
        fsyncs = sum(int(row) for row in rows)
    return {**found, "fsyncs_per_vgpu": round(fsyncs / found["created"], 2), "aim_fsyncs": 3}

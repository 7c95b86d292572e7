"""Resident memory of the decision loop and its store over 10,000 lifecycles."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import hosts
from vgpuctl.host.clock import SystemClock
from vgpuctl.host.store.sqlite import SqliteStore
from vgpuctl.model.document import VgpuDocument
from vgpuctl.model.edit import ApplyDocuments
from vgpuctl.model.record import Requester
from vgpuctl.service.service import Service
from vgpuctl.sim.host import SimHost

LIFECYCLES = 10_000
BATCH = 16
"""vGPUs of one T4: one apply creates them, the next one puts a single other one in their place."""


def resident_kib() -> int:
    """Memory of this process that is in RAM."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def run() -> dict[str, Any]:
    """Memory after every tenth of the lifecycles; the first half fills what is kept (ended operations)."""
    sim = SimHost.in_memory("t4")
    who = Requester(uid=0, pid=os.getpid(), name="root")
    with tempfile.TemporaryDirectory() as directory:
        store = SqliteStore(Path(directory) / "state.db")
        service = Service(hosts.make(sim), store, SystemClock(), hosts.CATALOG, file_profiles={})
        service.start()
        full = tuple(VgpuDocument(name=f"v{n}", type="T4-1B") for n in range(BATCH))
        last = (VgpuDocument(name="last", type="T4-1B"),)
        seen: list[int] = []
        rounds = LIFECYCLES // BATCH
        for number in range(rounds):
            for documents in (full, last):
                edit = ApplyDocuments(documents=documents, prune=True)
                ended = service.wait(service.submit(edit, who)["id"], 60)
                assert ended["state"] == "succeeded", ended["problem"]
            if (number + 1) % (rounds // 10) == 0:
                seen.append(resident_kib())
        service.stop()
    return {
        "lifecycles": rounds * BATCH,
        "resident_kib": seen,
        "growth_kib_second_half": seen[-1] - seen[len(seen) // 2],
        "aim_kib": 0,
    }

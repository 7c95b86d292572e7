"""Planning MIG: sixteen cards, each level of wish, from a layout that has to change."""

from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.hosts import CATALOG, make
from vgpuctl.model.document import GpuDocument, MigWish, Wish, Wishes, key_of
from vgpuctl.model.giprofile import GiPlace
from vgpuctl.model.planner import plan
from vgpuctl.model.situation import Situation
from vgpuctl.sim.host import SimHost

CARDS = "16xa100-80:vendor-vfio"
LEVELS = {
    "instances": MigWish(instances=(GiPlace(0, "3g.40gb"), GiPlace(4, "2g.20gb"), GiPlace(6, "1g.10gb"))),
    "profiles": MigWish(profiles=(("1g.10gb", 1), ("2g.20gb", 1), ("3g.40gb", 1))),
    "vgpus": MigWish(vgpus=(("A100D-1-10C", 1), ("A100D-2-20C", 1), ("A100D-3-40C", 1))),
}


def run() -> dict[str, Any]:
    """Seconds for one plan of everything; the first also fills what the solver remembers."""
    sim = SimHost.in_memory(CARDS)
    host = make(sim)
    for gpu in host.observe().gpus:
        sim.control("mig", {"gpu": str(gpu.address)})
        sim.kernel.sriov_manage(str(gpu.address), enable=True, timeout_s=1)
        for profile in ("1g.10gb", "1g.10gb", "2g.20gb", "1g.10gb"):
            sim.control("mig-cut", {"gpu": str(gpu.address), "profile": profile})
    snapshot = host.observe()
    found: dict[str, Any] = {}
    for level, mig in LEVELS.items():
        documents = [GpuDocument(name=str(each.address), mig=mig) for each in snapshot.gpus]
        now = snapshot.taken_at
        wishes = Wishes(
            {
                key_of(each): Wish(document=each, generation=1, created_at=now, changed_at=now)
                for each in documents
            }
        )
        situation = Situation(
            snapshot=snapshot,
            wishes=wishes,
            allocations={},
            catalog=CATALOG,
            now=now,
            new_id=lambda name: (_ for _ in ()).throw(KeyError(name)),
        )
        times = []
        for _ in range(5):
            began = time.perf_counter()
            steps = len(plan(situation).steps)
            times.append(time.perf_counter() - began)
        found[level] = {
            "steps": steps,
            "first_s": round(times[0], 3),
            "median_s": round(statistics.median(times), 3),
            "aim_s": 1,
        }
    return found

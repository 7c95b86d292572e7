"""Planted bugs of the simulated driver: patches in tests/mutants/rig, each found by the tests it names.

found by: tests tests/conformance/test_conformance_types.py     one of them fails in the guest
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.rig.guests import TRIXIE
from tests.rig.layers import HERE, REPOSITORY, build_modules
from tests.rig.machine import Machine
from tests.rig.run import layers_of, one_machine
from tests.simulation.mutants import Mutant, apply, mutants

PATCHES: Final = REPOSITORY / "tests" / "mutants" / "rig"
_FAILED: Final = re.compile(r"^FAILED (\S+)", re.MULTILINE)
_TESTS_S: Final = 900.0
_CHANGE_S: Final = 60.0


def run(wanted: str = "") -> int:
    """Plant each bug in a driver for one guest, and look for it; the exit status."""
    found = mutants(wanted, PATCHES)
    missed = 0
    for mutant in found:
        # Each has a machine of its own: a broken driver may leave anything behind.
        with tempfile.TemporaryDirectory() as work:
            is_found, how = _looked_for(mutant, Path(work))
        missed += not is_found
        print(f"{mutant.name:<36} {how}"[:120], flush=True)
    print(f"\n{len(found) - missed} of {len(found)} found")
    return 1 if missed or not found else 0


@contextlib.contextmanager
def _heard(machine: Machine) -> Iterator[None]:
    """Somebody takes the guest's reports, which it would wait to get rid of."""

    def take() -> None:
        with contextlib.suppress(OSError):
            while machine.reports.recv(1 << 16):
                pass

    threading.Thread(target=take, daemon=True).start()
    yield


def _looked_for(mutant: Mutant, work: Path) -> tuple[bool, str]:
    sources, made = work / "tests" / "rig", work / "made"
    for name in ("nvsim", "nvml"):
        shutil.copytree(HERE / name, sources / name)
    planted = apply(mutant, work)
    if planted.returncode:
        return False, f"does not apply: {planted.stderr.strip()}"
    made.mkdir()
    build_modules(layers_of(TRIXIE).kernel, made, sources)
    with one_machine(TRIXIE, work / "machine") as machine, _heard(machine):
        for module in made.glob("nvsim*.ko"):
            machine.must(f"cat > /lib/modules/$(uname -r)/extra/{module.name}", stdin=module.read_bytes())
        machine.must("depmod -a", timeout_s=_CHANGE_S)
        status, output = machine.sh(
            f"cd /srv/tree && VGPUCTL_RIG={TRIXIE} CI=true python3 -m pytest -p no:cacheprovider "
            f"-m rig -x -q {mutant.found_by[1]}",
            timeout_s=_TESTS_S,
        )
    failed = _FAILED.search(output)
    if status == 1 and failed:
        return True, failed[1].rpartition("/")[2]
    if status == 0:
        return False, "NOT FOUND"
    return False, f"the run broke: {output.strip().splitlines()[-1]}"

"""One suite, several kinds of host: vgpuctl's own simulation, and a real kernel with simulated cards.

Every case is collected once for each kind, as `[sim]` and `[rig]`; what is for the rig has its mark and runs
there.  A case that makes sense on one of them only says so, with a reason that is printed and counted:

    @pytest.mark.only("sim", reason="...")

A further kind is a line in KINDS, with the mark (if any) that says when it runs, and a class like those two
(`bench.Hosts`), whose `make` skips what its machine has not.  For a machine with a real card:

- `read_only` marks the cases that change nothing, neither in the driver nor in who holds what: they
  may run at any time.  Each of them takes whatever it asserts from the GPU that is there.
- every other case may create and remove vGPUs, turn VFs on and off and hold devices: it needs an empty
  card that somebody has named, and no open handle.
- the fixtures `ready` and `host` are the only sources of hosts, and `Bench.control` the only way in which
  a case disturbs one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.conformance.bench import Bench, Hosts
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.gpu import GpuState
from vgpuctl.sim.spec import Spec, parse
from vgpuctl.sim.state import AS_USUAL, Disputed

CATALOG = Catalog()
READY = ("t4", "a2:sriov-mdev", "a2")
"""A card of each framework; an A2 has few VFs and few types, and so is soon there in the rig."""


def _simulated() -> Hosts:
    from tests.conformance.simulated_hosts import SimulatedHosts

    return SimulatedHosts(CATALOG)


def _in_the_rig() -> Hosts:
    from tests.conformance.rig_hosts import RigHosts

    return RigHosts(CATALOG)


KINDS: dict[str, tuple[Callable[[], Hosts], tuple[pytest.MarkDecorator, ...]]] = {
    "sim": (_simulated, ()),
    "rig": (_in_the_rig, (pytest.mark.rig,)),
}

LIMITED = pytest.StashKey[Counter[tuple[str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only(kind, reason): a conformance case for one kind of host")
    config.addinivalue_line("markers", "read_only: a conformance case that changes nothing on its host")
    config.stash[LIMITED] = Counter()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A case on each kind of host, for each of its cards."""
    if "hosts" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("only")
        kinds = [kind for kind in KINDS if only is None or kind in only.args]
        assert only is None or (only.kwargs["reason"] and kinds), metafunc.definition.nodeid
        metafunc.parametrize(
            "hosts",
            [pytest.param(kind, marks=KINDS[kind][1]) for kind in kinds],
            indirect=True,
            scope="session",
        )
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "card" in metafunc.fixturenames and "card" not in named:
        metafunc.parametrize("card", READY, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Count what is for one kind of host only."""
    for item in items:
        only = item.get_closest_marker("only")
        if only is not None and "hosts" in getattr(item, "fixturenames", ()):
            config.stash[LIMITED][only.args[0], only.kwargs["reason"]] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why cases are for one kind of host only."""
    limited = terminalreporter.config.stash.get(LIMITED, Counter())
    for kind in KINDS:
        mine = {reason: count for (where, reason), count in sorted(limited.items()) if where == kind}
        if mine:
            terminalreporter.line(f"conformance: {sum(mine.values())} cases on {kind} only")
        for reason, count in mine.items():
            terminalreporter.line(f"  {count:3} {reason}")


@pytest.fixture(scope="session")
def hosts(request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """The maker of one kind of host."""
    found = KINDS[request.param][0]()
    yield found
    found.close()


@pytest.fixture
def host(hosts: Hosts) -> Iterator[Callable[..., Bench]]:
    """`host("t4,l40s")` is a host with those cards, `vfs`, `mig` and `mixed_size` the state of each of them.

    What else a host may be like: see Spec and Disputed.
    """

    def make(
        cards: str,
        *,
        vfs: bool = False,
        mig: bool = False,
        mixed_size: bool = False,
        ready_delay_s: float = 0.0,
        vfs_timeout_s: float = 60.0,
        sriov_manage: bool = True,
        disputed: Disputed = AS_USUAL,
    ) -> Bench:
        spec = Spec(
            cards=tuple(
                replace(each, vfs=vfs, mig=mig, mixed_size=mixed_size) for each in parse(cards).cards
            ),
            ready_delay_s=ready_delay_s,
            sriov_manage=sriov_manage,
            disputed=disputed,
        )
        return hosts.make(spec, vfs_timeout_s=vfs_timeout_s)

    yield make
    hosts.tidy()


@pytest.fixture
def ready(host: Callable[..., Bench], card: str) -> Bench:
    """A host with one GPU of each framework in turn, ready for vGPUs."""
    bench = host(card, vfs=True)
    assert bench.gpu().state is GpuState.READY
    return bench

"""One suite, several kinds of host: vgpuctl's own simulation, and a real kernel with simulated cards.

Every case is collected once for each kind, as `[sim]` and `[rig]`; what is for the rig has its mark and runs
there.  A case that makes sense on one of them only says so, with a reason that is printed and counted:

    @pytest.mark.only("sim", reason="...")

A kind is a line in KINDS, with the mark (if any) that says when it runs, and a class (`bench.Hosts`) whose
`make` skips what its machine has not.  A machine with a real card is a kind only where it is asked for, with
`--real` or `--gpu ADDRESS`:

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
from dataclasses import dataclass, replace

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


def _real() -> Hosts:
    from tests.conformance.real_hosts import RealHosts

    return RealHosts(CATALOG, _asked.gpu)


KINDS: dict[str, tuple[Callable[[], Hosts], tuple[pytest.MarkDecorator, ...]]] = {
    "sim": (_simulated, ()),
    "rig": (_in_the_rig, (pytest.mark.rig,)),
    "real": (_real, ()),
}

LIMITED = pytest.StashKey[Counter[tuple[str, str]]]()


@dataclass
class Asked:
    """What of a real machine may be used: nothing, to look at it, or one card of it."""

    real: bool = False
    gpu: str | None = None

    def allows(self, kind: str, *, read_only: bool) -> bool:
        """Whether a case runs on that kind of host."""
        return kind != "real" or self.gpu is not None or (self.real and read_only)


_asked = Asked()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--real", action="store_true", help="look at this machine's GPU; nothing is changed")
    group.addoption(
        "--gpu",
        metavar="ADDRESS",
        help="make, hold and remove vGPUs on that GPU of this machine; it has to be empty",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only(kind, reason): a conformance case for one kind of host")
    config.addinivalue_line("markers", "read_only: a conformance case that changes nothing on its host")
    config.stash[LIMITED] = Counter()
    _asked.real = config.getoption("--real", default=False)
    _asked.gpu = config.getoption("--gpu", default=None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A case on each kind of host, for each of its cards."""
    if "hosts" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("only")
        read_only = metafunc.definition.get_closest_marker("read_only") is not None
        kinds = [kind for kind in KINDS if only is None or kind in only.args]
        assert only is None or (only.kwargs["reason"] and kinds), metafunc.definition.nodeid
        kinds = [kind for kind in kinds if _asked.allows(kind, read_only=read_only)]
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

    With `any_model` a host with another card of that framework does as well.  What else a host may be like:
    see Spec and Disputed.
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
        any_model: bool = False,
    ) -> Bench:
        spec = Spec(
            cards=tuple(
                replace(each, vfs=vfs, mig=mig, mixed_size=mixed_size) for each in parse(cards).cards
            ),
            ready_delay_s=ready_delay_s,
            sriov_manage=sriov_manage,
            disputed=disputed,
        )
        return hosts.make(spec, vfs_timeout_s=vfs_timeout_s, any_model=any_model)

    yield make
    hosts.tidy()


@pytest.fixture
def catalog() -> Catalog:
    return CATALOG


@pytest.fixture
def ready(host: Callable[..., Bench], card: str) -> Bench:
    """A host with one GPU of each framework in turn, ready for vGPUs."""
    bench = host(card, vfs=True, any_model=True)
    assert bench.gpu().state is GpuState.READY
    return bench

"""Whatever is done to a host, its rules hold."""

from __future__ import annotations

from collections import Counter
from uuid import uuid5

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.hosts import DEVICES, MDEVS, turn, types_of
from vgpuctl.errors import VgpuctlError
from vgpuctl.model.codec import dumps, loads
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.sim.board import vf_addresses
from vgpuctl.sim.host import TEST_SEED, MemoryHost, SimHost
from vgpuctl.sim.state import State

CARDS = "t4,l4,a2:sriov-mdev"

deeds = st.lists(
    st.tuples(
        st.sampled_from(
            ["create", "create", "create", "create", "remove", "hold", "release", "vfs", "mixed", "life"]
        ),
        st.integers(0, 2),
        st.integers(0, 40),
        st.integers(0, 5),
    ),
    max_size=40,
)


def do(host: MemoryHost, deed: str, gpu: int, what: int, where: int) -> None:
    board = host.engine.state.boards[gpu]
    parents = (board.address,) if board.framework is FrameworkKind.MDEV else vf_addresses(board)
    if deed == "vfs":
        turn(host, str(board.address), on=bool(what % 3))
    elif deed == "mixed":
        host.control("mixed-size", {"gpu": str(gpu), "enabled": bool(what % 2)})
    elif deed == "life":
        host.control(
            ["reload-driver", "heal", "swap-gpu", "remove-gpu", "reboot"][where % 5], life(where % 5, gpu)
        )
    elif deed in ("hold", "release") and board.vgpus:
        vgpu = board.vgpus[where % len(board.vgpus)]
        host.control(deed, {"vgpu": str(vgpu.uuid or vgpu.parent)})
    elif deed == "remove" and board.vgpus:
        vgpu = board.vgpus[where % len(board.vgpus)]
        if vgpu.uuid is None:
            host.kernel.write(f"{DEVICES}/{vgpu.parent}/nvidia/current_vgpu_type", "0")
        else:
            host.kernel.write_abandonable(f"{MDEVS}/{vgpu.uuid}/remove", "1", 0)
    elif deed == "create" and parents:
        parent = parents[where % len(parents)]
        types = host.engine._models.model(board.model).types
        kind = types[what % len(types)].type_id
        if board.framework is FrameworkKind.VENDOR_VFIO:
            host.kernel.write(f"{DEVICES}/{parent}/nvidia/current_vgpu_type", str(kind))
        else:
            uuid = uuid5(TEST_SEED, str(what + 100 * where))
            host.kernel.write(f"{types_of(str(parent))}/nvidia-{kind}/create", str(uuid))


def life(number: int, gpu: int) -> dict[str, str]:
    return {"gpu": str(gpu)} if number in (2, 3) else {}


def check(state: State, host: MemoryHost) -> None:
    uuids = [vgpu.uuid for board in state.boards for vgpu in board.vgpus if vgpu.uuid is not None]
    assert len(uuids) == len(set(uuids))
    for board in state.boards:
        model = host.engine._models.model(board.model)
        if not board.mixed_size:
            assert len({vgpu.fb_mib for vgpu in board.vgpus}) <= 1
        if board.framework is not FrameworkKind.MDEV:
            assert max(Counter(vgpu.parent for vgpu in board.vgpus).values(), default=0) <= 1
            assert {vgpu.parent for vgpu in board.vgpus} <= set(vf_addresses(board))
        assert sum(vgpu.fb_mib for vgpu in board.vgpus) <= model.fb_mib
        for vgpu in board.vgpus:
            limit = next(each.max_per_gpu for each in model.types if each.type_id == vgpu.type_id)
            assert limit is None or sum(each.fb_mib == vgpu.fb_mib for each in board.vgpus) <= limit
            assert not vgpu.removing or state.holds_vgpu(vgpu)
        if not board.is_driven:
            assert not board.vgpus
    for hold in state.holds:
        assert any(hold.address == vgpu.parent for board in state.boards for vgpu in board.vgpus)


@settings(max_examples=60, deadline=None)
@given(deeds)
def test_the_rules_hold_after_any_deeds(sequence):
    """hardware.md 0.2, 0.3, 1.3.3: one size, at most the type's maximum, one vGPU per VF; state as JSON."""
    host = SimHost.in_memory(CARDS)
    for index in range(3):
        turn(host, str(host.engine.state.boards[index].address), on=True)
    for deed in sequence:
        try:
            do(host, *deed)
        except (OSError, VgpuctlError):
            pass
        check(host.engine.state, host)
    text = dumps(host.engine.state, State)
    assert loads(text, State) == host.engine.state


@settings(max_examples=40, deadline=None)
@given(deeds)
def test_what_is_offered_can_be_had(sequence):
    """hardware.md 0.3: available_instances and creatable_vgpu_types tell the truth, both ways."""
    host = SimHost.in_memory(CARDS)
    for board in host.engine.state.boards:
        turn(host, str(board.address), on=True)
    for deed in sequence:
        try:
            do(host, *deed)
        except (OSError, VgpuctlError):
            pass
    for board in host.engine.state.boards:
        parents = (board.address,) if board.framework is FrameworkKind.MDEV else vf_addresses(board)[-1:]
        for parent in parents:
            if board.is_driven:
                offered_is_true(host, board.framework, str(parent))


def offered_is_true(host: MemoryHost, framework: FrameworkKind, parent: str) -> None:
    before = host.engine.state
    types = next(
        host.engine._models.model(each.model).types
        for each in before.boards
        if parent in (str(each.address), *map(str, vf_addresses(each)))
    )
    for each in types:
        host.engine._state = before
        if framework is FrameworkKind.VENDOR_VFIO:
            listed = host.kernel.read(f"{DEVICES}/{parent}/nvidia/creatable_vgpu_types")
            offered = any(line.startswith(f"{each.type_id} ") for line in listed.split("\n"))
            write = (f"{DEVICES}/{parent}/nvidia/current_vgpu_type", str(each.type_id))
        else:
            base = f"{types_of(parent)}/nvidia-{each.type_id}"
            offered = int(host.kernel.read(f"{base}/available_instances")) > 0
            write = (f"{base}/create", str(uuid5(TEST_SEED, "one more")))
        try:
            host.kernel.write(*write)
        except OSError:
            assert not offered
        else:
            assert offered
    host.engine._state = before

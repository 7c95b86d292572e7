"""Two sets of rules, written apart, have to agree: the card's, and the simulated kernel's."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.cards import CATALOG, identity
from vgpuctl.errors import VgpuctlError
from vgpuctl.host.local import LocalHost
from vgpuctl.model.card import Card, after, allowed, card_of, creatable_types, free_parents
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import GpuState
from vgpuctl.model.step import CreateVgpu, RemoveVgpu, SetVfs
from vgpuctl.sim.host import SimHost
from vgpuctl.sim.spec import Spec, parse


def host_of(key: str) -> LocalHost:
    sim = SimHost.in_memory(Spec(cards=parse(key).cards), CATALOG)
    host = LocalHost(
        kernel=sim.kernel,
        nvml=sim.nvml,
        handles=sim.handles,
        hypervisor=None,
        catalog=CATALOG,
        clock=sim.clock,
        simulated=True,
    )
    gpu = host.observe().gpus[0]
    if gpu.state is GpuState.VFS_OFF:
        host.run(SetVfs(gpu=identity(gpu), enabled=True))
    return host


def observed_card(host: LocalHost) -> Card:
    snapshot = host.observe()
    gpu = snapshot.gpus[0]
    return card_of(gpu, CATALOG.find(gpu.device), (), snapshot.boot_id)


def by_our_rules(card: Card) -> set[str]:
    """What is creatable when the hardware's own answer is hidden."""
    hidden = replace(card, gpu=replace(card.gpu, creatable=Unknown("hidden")))
    return {each.name for each in creatable_types(hidden)}


def by_the_hardware(card: Card) -> set[str] | None:
    if isinstance(card.gpu.creatable, Unknown):
        return None
    return {each.name for each in card.gpu.types if each.type_id in card.gpu.creatable}


@pytest.mark.parametrize("key", ["t4", "a16:sriov-mdev", "l40s", "rtx-8000"])
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=8))
@settings(max_examples=6, deadline=None)
def test_our_rules_and_the_simulated_kernel_agree(key, history):
    """hardware.md 0.2, 0.3, 1.3.3: what fits, what is refused, and what is left afterwards."""
    host, made = host_of(key), []
    card = observed_card(host)
    for create, pick in history:
        if create:
            vgpu_type, parents = card.gpu.types[pick % len(card.gpu.types)], free_parents(card)
            step = CreateVgpu(
                vgpu=uuid4(),
                name="desk",
                gpu=identity(card.gpu),
                framework=card.gpu.framework,
                parent=parents[pick % len(parents)] if parents else card.gpu.address,
                type_id=vgpu_type.type_id,
                type_name=vgpu_type.name,
            )
            ours = by_our_rules(card)
            try:
                host.run(step)
            except VgpuctlError:
                assert vgpu_type.name not in ours
                continue
            assert vgpu_type.name in ours
            made.append(step)
        elif made:
            gone = made.pop(pick % len(made))
            step = RemoveVgpu(
                vgpu=gone.vgpu,
                name=gone.name,
                gpu=gone.gpu,
                framework=gone.framework,
                parent=gone.parent,
                type_id=gone.type_id,
                type_name=gone.type_name,
            )
            host.run(step)
        else:
            continue
        fresh = observed_card(host)
        if isinstance(step, CreateVgpu):
            assert allowed(card, step) is None
            predicted = after(card, step)
            assert by_our_rules(predicted) == by_our_rules(fresh)
        card = fresh
        hardware = by_the_hardware(card)
        assert hardware is None or by_our_rules(card) == hardware

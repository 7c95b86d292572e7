"""On which card a vGPU is put, and as which type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vgpuctl.errors import FactUnknown, InvalidGpuState, NoCapacity, TypeUnknown, VgpuctlError
from vgpuctl.model.card import (
    Card,
    card_facts,
    free_parents,
    occupancy,
    refusal,
    supported_types,
    type_named,
    why_not,
)
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import NumaPolicy, Placement, PlacementPolicy
from vgpuctl.model.frameworks.passthrough import WHOLE_GPU
from vgpuctl.model.gpu import GpuState
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.typename import nearest
from vgpuctl.model.types import VgpuType

_TOLD = 4
"""Types or GPUs that a message names; a rack's worth of them is no message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A place for a vGPU.  `parent` is None while the card's VFs are off."""

    card: Card
    vgpu_type: VgpuType
    parent: GpuAddress | None


@dataclass(frozen=True, slots=True)
class _PassedOver:
    """A card that was not taken.  Why is told in full only when no other card was."""

    card: Card
    refused: VgpuType | None
    reason: str = ""

    def error(self) -> VgpuctlError:
        """What the card has against it."""
        found = refusal(self.card, self.refused) if self.refused is not None else None
        return found or NoCapacity(self.reason)


def choose(
    cards: Sequence[Card],
    types: Sequence[str],
    policy: Placement,
    *,
    numa_node: int | None = None,
    avoid: frozenset[GpuAddress] = frozenset(),
    catalog: Catalog | None = None,
) -> Choice | VgpuctlError:
    """The best place for one vGPU of the first of `types` (in order of preference) that fits anywhere.

    `numa_node` is where the domain is pinned, None where it is not.  `avoid` are parents or GPUs that
    just failed.  Where nothing fits: TypeUnknown when neither a card nor `catalog` knows any of the
    types; the cards' own kind of refusal where all agree in it (InvalidGpuState, FactUnknown); else
    NoCapacity.
    """
    passed_over: dict[GpuAddress, _PassedOver] = {}
    for name in types:
        fitting = []
        for card in cards:
            found = _try(card, name, policy, numa_node, avoid)
            if isinstance(found, Choice):
                fitting.append(found)
            elif found is not None:
                passed_over.setdefault(card.gpu.address, found)
        if fitting:
            return min(fitting, key=lambda choice: _rank(choice, policy, numa_node))
    if passed_over:
        return _nothing_fits(types, [(each.card, each.error()) for each in passed_over.values()])
    return _nobody_offers(cards, types, catalog)


def _try(
    card: Card, name: str, policy: Placement, numa_node: int | None, avoid: frozenset[GpuAddress]
) -> Choice | _PassedOver | None:
    """The place on one card, why there is none, or None where the card has no such type."""
    vgpu_type = type_named(card, name)
    if vgpu_type is None:
        return None
    if policy.numa is NumaPolicy.REQUIRE and not _is_near(card, numa_node):
        why = f"GPU {card.gpu.address} is on NUMA node {card.gpu.numa_node}, not {numa_node}"
        return _PassedOver(card, None, why)
    if card.gpu.address in avoid:
        return _PassedOver(card, None, f"GPU {card.gpu.address} has just failed")
    if why_not(card, vgpu_type) is not None:
        return _PassedOver(card, vgpu_type)
    if vgpu_type == WHOLE_GPU:
        return Choice(card=card, vgpu_type=vgpu_type, parent=card.gpu.address)
    parents = free_parents(card)
    usable = [each for each in parents if each not in avoid]
    if parents and not usable:
        return _PassedOver(
            card, None, f"each free VF of GPU {card.gpu.address} has just failed, or is mdevctl's"
        )
    return Choice(card=card, vgpu_type=vgpu_type, parent=usable[0] if usable else None)


def _rank(choice: Choice, policy: Placement, numa_node: int | None) -> tuple[Any, ...]:
    """The smaller the better; ties go to the lower address."""
    card, gpu = choice.card, choice.card.gpu
    far = policy.numa is NumaPolicy.PREFER and not _is_near(card, numa_node)
    used = _used_share(card)
    match policy.policy:
        case PlacementPolicy.PACK:
            same_size = any(each.fb_mib == choice.vgpu_type.fb_mib for each in card.occupants)
            wanted: tuple[Any, ...] = (not same_size, -used)
        case PlacementPolicy.SPREAD:
            wanted = (used,)
    return (gpu.state is not GpuState.READY, far, *wanted, str(gpu.address))


def _is_near(card: Card, numa_node: int | None) -> bool:
    """A GPU that names no node is as near as any: the kernel says so of a host with one node."""
    return numa_node is None or card.gpu.numa_node is None or card.gpu.numa_node == numa_node


def _used_share(card: Card) -> float:
    """How full a card is, from 0: by frame buffer where that is known, else by vGPUs."""
    total = max((each.fb_mib or 0 for each in supported_types(card)), default=0)
    if total and all(each.fb_mib is not None for each in card.occupants):
        return sum(each.fb_mib or 0 for each in card.occupants) / total
    return len(card.occupants) / max(len(card.gpu.vfs), card.gpu.vfs_max, 1)


def _nothing_fits(types: Sequence[str], refused: list[tuple[Card, VgpuctlError]]) -> VgpuctlError:
    if len(refused) == 1:
        card, error = refused[0]
        return type(error)(str(error), hint=error.hint, **(error.facts | {"gpus": [card_facts(card, error)]}))
    kinds = {type(error) for _card, error in refused}
    kind = kinds.pop() if len(kinds) == 1 else NoCapacity
    if kind not in (InvalidGpuState, FactUnknown):
        kind = NoCapacity
    is_full = kind is NoCapacity
    return kind(
        f"no GPU {'has room for' if is_full else 'can be given'} {_some(types)}: "
        + _some([_in_short(card, error) for card, error in refused], "; ", "; and "),
        hint="remove vGPUs, or ask for one of the types that fit" if is_full else refused[0][1].hint,
        types=list(types),
        gpus=[card_facts(card, error) for card, error in refused],
    )


def _in_short(card: Card, error: VgpuctlError) -> str:
    """Why a card was passed over, and what it would take."""
    reason, fits = error.facts.get("reason"), error.facts.get("fits")
    if reason is None:
        return str(error)
    holds = occupancy(card)
    told = [
        reason,
        *([f"it holds {holds}"] if holds else []),
        f"fits: {_some(fits, ', ', ', ') if fits else '-'}",
    ]
    return f"GPU {card.gpu.address} ({', '.join(told)})"


def _some(texts: Sequence[str], between: str = " or ", last: str = " or ") -> str:
    """The first few of them, and how many more; errors carry the whole list as facts."""
    if len(texts) <= _TOLD:
        return between.join(texts)
    return between.join(texts[:_TOLD]) + f"{last}{len(texts) - _TOLD} more"


def _nobody_offers(cards: Sequence[Card], types: Sequence[str], catalog: Catalog | None) -> VgpuctlError:
    offered = sorted({each.name for card in cards for each in supported_types(card)})
    wanted = _some(types)
    models = {}
    for name in types:
        found = catalog.type_named(name) if catalog is not None else None
        if found is not None:
            models[name] = found[0].name
    if models:
        belongs = _some([f"{name} is a type of {model}" for name, model in models.items()], ", ", ", ")
        where = f"GPU {cards[0].gpu.address} does not offer" if len(cards) == 1 else "no GPU here offers"
        return NoCapacity(
            f"{where} {wanted} ({belongs})",
            hint=f"here there are: {', '.join(offered[:12])}" if offered else "no GPU offers a type now",
            types=list(types),
            gpus=[],
        )
    everything = offered if catalog is None else [*offered, *catalog.type_names()]
    near = list(dict.fromkeys(each for name in types for each in nearest(name, everything)))
    return TypeUnknown(
        f"there is no vGPU type {wanted}",
        hint=f"did you mean {' or '.join(near)}?" if near else None,
        types=list(types),
        near=near,
    )

"""The rules of a card: what may be done to it, and what it is afterwards.

The one place that knows them.  Sources: NVIDIA's resource manager and user guide, by way of
docs/hardware.md 0 to 3, whose sections the rules name.
"""

from vgpuctl.model.card.effects import after, allowed
from vgpuctl.model.card.fit import card_facts, creatable_types, refusal, remaining, why_not
from vgpuctl.model.card.landing import landing
from vgpuctl.model.card.occupancy import (
    Card,
    Occupant,
    card_of,
    free_parents,
    instance_of,
    occupancy,
    placed,
    stands_on,
    supported_types,
    type_named,
)

__all__ = [
    "Card",
    "Occupant",
    "after",
    "allowed",
    "card_facts",
    "card_of",
    "creatable_types",
    "free_parents",
    "instance_of",
    "landing",
    "occupancy",
    "placed",
    "refusal",
    "remaining",
    "stands_on",
    "supported_types",
    "type_named",
    "why_not",
]

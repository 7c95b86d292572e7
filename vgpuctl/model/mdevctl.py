"""mdevctl's definitions of mdevs: a file each, below the parent's name [hardware.md 6.2]."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

DIRECTORY = "etc/mdevctl.d"
"""libvirt's node devices are kept here too: it calls mdevctl."""
AUTO, MANUAL = "auto", "manual"


@dataclass(frozen=True, slots=True)
class MdevDefinition:
    """An mdev that is defined; `autostart` says that it is started when its parent appears."""

    uuid: UUID
    parent: str
    type_name: str
    autostart: bool


def parse(parent: str, uuid: UUID, text: str) -> MdevDefinition:
    """The definition in a file; raises ValueError for one that is none."""
    body = _body(text)
    return MdevDefinition(uuid, parent, str(body.get("mdev_type", "")), body.get("start") == AUTO)


def started_by_hand(text: str) -> str:
    """The file's text with the start set to manual, as mdevctl writes it; raises ValueError."""
    return json.dumps(_body(text) | {"start": MANUAL}, indent=2)


def _body(text: str) -> dict[str, Any]:
    body = json.loads(text)
    if not isinstance(body, dict):
        msg = "no JSON object"
        raise ValueError(msg)  # noqa: TRY004 - like any other text that is no definition
    return body

"""What to simulate: the argument of `--simulate`, as names, as a YAML file, or as a capture."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from vgpuctl.errors import InvalidInput
from vgpuctl.model.codec import DecodeError, decode, encode
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.pci import GpuAddress, ParentName, PciAddress
from vgpuctl.sim.models import (
    ModelSource,
    default_framework,
    frameworks_of,
    model_keyed,
)
from vgpuctl.sim.replay import FORMAT, replay
from vgpuctl.sim.samples import SAMPLES
from vgpuctl.sim.state import AS_USUAL, Board, Disputed, State, noted

_ITEM = re.compile(
    r"(?:(?P<count>\d+)x)?(?P<model>[a-z][a-z0-9-]*)(?::(?P<framework>[a-z-]+))?(?:@numa(?P<numa>\d+))?"
)
_BUSES = (0x41, 0x61, 0x81, 0xA1, 0xC1, 0xE1, 0x11, 0x21)
_BUS_STEP = 4
GPUS_MAX = 32
NUMA_NODES = 2
FIRST_BUS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One GPU of the specification; what is None is chosen."""

    model: str
    framework: FrameworkKind | None = None
    address: PciAddress | None = None
    uuid: str | None = None
    numa: int | None = None
    vfs: bool = False
    mig: bool = False
    mixed_size: bool = False
    ready_delay_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A host to simulate; without `sriov_manage` that program is not installed."""

    cards: tuple[Card, ...] = ()
    hostname: str = "simulated"
    kernel: str = "6.8.0-60-generic"
    driver: str = "580.65.06"
    ready_delay_s: float = 0.0
    disputed: Disputed = AS_USUAL
    sriov_manage: bool = True
    capture: dict[str, Any] | None = None


def parse(argument: str) -> Spec:
    """The specification that `argument` is or (when it names a file) holds; raises InvalidInput."""
    if "/" in argument or argument.endswith((".yaml", ".yml", ".json")):
        return read(Path(argument))
    cards: list[Card] = []
    for item in filter(None, (each.strip() for each in argument.split(","))):
        match = _ITEM.fullmatch(item.lower())
        if match is None:
            raise InvalidInput(f"cannot simulate {item!r}", hint=_HINT)
        numa = match["numa"]
        card = Card(
            model=match["model"],
            framework=_framework(match["framework"]),
            numa=None if numa is None else int(numa),
        )
        cards += [card] * int(match["count"] or 1)
    if not cards:
        raise InvalidInput("nothing to simulate", hint=_HINT)
    return Spec(cards=tuple(cards))


_HINT = "a list such as t4,l40s,2xa100-80:sriov-mdev@numa1, or a YAML file or a capture"


def read(path: Path) -> Spec:
    """The specification in a YAML file, or a capture."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {error}", hint=_HINT) from error
    try:
        data = json.loads(text) if text.lstrip().startswith("{") else _yaml(text)
    except ValueError as error:
        raise InvalidInput(f"{path} is neither YAML nor JSON: {error}") from error
    if isinstance(data, dict) and data.get("format") == FORMAT:
        replay(data)
        return Spec(capture=data)
    return from_json(data)


def from_json(data: Any) -> Spec:
    """The specification of that JSON; raises InvalidInput for what is unknown or wrong in it."""
    if not isinstance(data, dict) or not isinstance(data.get("cards", []), list):
        raise InvalidInput("a specification is a mapping with a list of cards", hint=_HINT)
    known = {"": Spec.__dataclass_fields__, "cards": Card.__dataclass_fields__}
    cards = [{"model": each} if isinstance(each, str) else each for each in data.get("cards", [])]
    unknown = [key for key in data if key not in known[""]]
    unknown += [
        f"cards.{key}"
        for each in cards
        if isinstance(each, dict)
        for key in each
        if key not in known["cards"]
    ]
    if unknown:
        raise InvalidInput(f"unknown in a specification: {', '.join(map(str, unknown))}")
    try:
        spec: Spec = decode(data | {"cards": cards}, Spec)
    except DecodeError as error:
        raise InvalidInput(f"specification: {error}") from error
    return spec


def to_json(spec: Spec) -> dict[str, Any]:
    """The specification as JSON; equal specifications give equal JSON."""
    data: dict[str, Any] = encode(spec, Spec)
    return data


def initial_state(spec: Spec, source: ModelSource, seed: UUID) -> State:
    """The host of a specification as it is after its first boot; raises InvalidInput."""
    boards: list[Board] = []
    for card in spec.cards:
        for _ in range(model_keyed(source, card.model).gpus_per_board):
            boards.append(_board(card, source, len(boards), spec))
    if len(boards) > GPUS_MAX:
        raise InvalidInput(f"{len(boards)} GPUs: at most {GPUS_MAX} can be simulated")
    addresses = [each.address for each in boards]
    twice = sorted({str(each) for each in addresses if addresses.count(each) > 1})
    if twice:
        raise InvalidInput(f"two cards at {', '.join(twice)}")
    for address in addresses:
        if isinstance(address, PciAddress) and not _is_slot(address):
            raise InvalidInput(
                f"a card cannot stand at {address}", hint=f"at xx:00.0 from bus {FIRST_BUS:02x} on"
            )
    state = State(
        spec=to_json(replace(spec, capture=None)),
        seed=seed,
        hostname=spec.hostname,
        kernel=spec.kernel,
        driver_version=spec.driver,
        boards=tuple(boards),
        disputed=spec.disputed,
        sriov_manage=spec.sriov_manage,
        capture=spec.capture,
    )
    lines = () if spec.capture is None else spec.capture.get("log", ())
    return noted(state, *map(str, lines))


def gpu_uuid(index: int, swaps: int = 0) -> str:
    """The UUID of the GPU in slot `index`, and of those that replaced it."""
    return f"GPU-{uuid5(_GPUS, f'{index}/{swaps}')}"


_GPUS = UUID("6b1f9d52-6d3f-4c0b-9a53-3f6a2f6f0d11")


def _board(card: Card, source: ModelSource, index: int, spec: Spec) -> Board:
    model = model_keyed(source, card.model)
    framework = card.framework or default_framework(model)
    if framework not in frameworks_of(model):
        allowed = " or ".join(frameworks_of(model))
        raise InvalidInput(f"{card.model} offers its vGPUs as {allowed}, not as {framework}")
    if card.mig and not model.mig:
        raise InvalidInput(f"{card.model} has no MIG")
    delay_s = spec.ready_delay_s if card.ready_delay_s is None else card.ready_delay_s
    return Board(
        index=index,
        address=_address(card, index),
        model=model.key,
        framework=framework,
        uuid=card.uuid or gpu_uuid(index),
        numa_node=index % NUMA_NODES if card.numa is None else card.numa,
        ready_delay_s=delay_s,
        vfs=model.vfs if card.vfs else 0,
        mig=card.mig,
        mixed_size=model.key in SAMPLES or (card.mixed_size and model.mixed_size),
    )


def _address(card: Card, index: int) -> GpuAddress:
    if card.model in SAMPLES:
        return ParentName(card.model)
    if card.address is not None:
        return card.address
    return PciAddress(0, _BUSES[index % len(_BUSES)] + _BUS_STEP * (index // len(_BUSES)), 0, 0)


def _is_slot(address: PciAddress) -> bool:
    """Whether a card with its VFs has that bus to itself; the first ones are the host's own."""
    return address.bus >= FIRST_BUS and address.device == address.function == 0


def _framework(name: str | None) -> FrameworkKind | None:
    if name is None:
        return None
    try:
        return FrameworkKind(name)
    except ValueError as error:
        known = ", ".join(FrameworkKind)
        raise InvalidInput(f"no framework {name!r}", hint=f"known ones: {known}") from error


def _yaml(text: str) -> Any:
    import yaml  # noqa: PLC0415  # the client side of a simulation needs none

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error

"""Short ways to say what the tests of the simulated host say often."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest

from vgpuctl.sim.host import MemoryHost, SimHost

T4 = L40S = FIRST = "0000:41:00.0"
UUID_1 = "11111111-1111-4111-8111-111111111111"
UUID_2 = "22222222-2222-4222-8222-222222222222"
DEVICES = "sys/bus/pci/devices"
MDEVS = "sys/bus/mdev/devices"


def vf(number: int, bus: int = 0x41) -> str:
    return f"0000:{bus:02x}:{(4 + number) // 8:02x}.{(4 + number) % 8}"


def with_vfs(cards: str) -> MemoryHost:
    host = SimHost.in_memory(cards)
    for board in host.engine.state.boards:
        turn(host, str(board.address), on=True)
    return host


def turn(host: SimHost, address: str, *, on: bool) -> tuple[int, str]:
    result = host.kernel.sriov_manage(address, enable=on, timeout_s=5)
    assert result is not None
    return result.exit_status, result.output


def type_id(host: MemoryHost, name: str) -> int:
    board = host.engine.state.boards[0]
    return next(
        each.type_id
        for each in host.engine._models.model(board.model).types
        if each.name == name and each.type_id is not None
    )


def set_type(host: MemoryHost, number: int, type_name: str | int) -> None:
    kind = type_id(host, type_name) if isinstance(type_name, str) else type_name
    host.kernel.write(f"{DEVICES}/{vf(number)}/nvidia/current_vgpu_type", str(kind))


def current_type(host: SimHost, number: int) -> str:
    return host.kernel.read(f"{DEVICES}/{vf(number)}/nvidia/current_vgpu_type")


def creatable(host: SimHost, number: int) -> list[str]:
    header, *lines = host.kernel.read(f"{DEVICES}/{vf(number)}/nvidia/creatable_vgpu_types").split("\n")
    assert header == "ID    : vGPU Name"
    return [line.rpartition(" ")[2] for line in lines]


def types_of(parent: str) -> str:
    return f"sys/class/mdev_bus/{parent}/mdev_supported_types"


def create(host: MemoryHost, parent: str, type_name: str, uuid: str | UUID) -> None:
    kind = type_id(host, type_name)
    host.kernel.write(f"{types_of(parent)}/nvidia-{kind}/create", str(uuid))


def available(host: MemoryHost, parent: str, type_name: str) -> int:
    return int(host.kernel.read(f"{types_of(parent)}/nvidia-{type_id(host, type_name)}/available_instances"))


def log_of(host: SimHost) -> list[str]:
    return [line.text for line in host.kernel.log()]


@contextmanager
def refused(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno == number

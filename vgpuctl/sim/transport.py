"""How the ports reach a simulated host: a Protocol, and the way to one in this process."""

from __future__ import annotations

from typing import Any, Protocol

from vgpuctl.ports.kernel import Uevent


class Transport(Protocol):
    """A way to a simulated host; callable from any thread."""

    def call(self, verb: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        """Do one operation of the machine; raises OSError."""
        ...

    def control(self, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do a control; raises VgpuctlError."""
        ...

    def events(self, since: int | None, wait_s: float) -> tuple[int, tuple[Uevent, ...]]:
        """Uevents after number `since`, and the last number; waits up to `wait_s` for one."""
        ...

    def close(self) -> None:
        """Let go of the host."""
        ...

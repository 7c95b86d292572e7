"""A service with canned answers in the shape of `surface`, for tests of the edge alone."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from vgpuctl.errors import GpuNotFound, OperationNotFound, PlanStale, RevisionGone
from vgpuctl.model.document import Document, VgpuDocument, Wish
from vgpuctl.model.edit import Edit
from vgpuctl.model.record import Requester
from vgpuctl.model.start import DomainRelease, DomainStart
from vgpuctl.surface import RESOURCES

OPERATION_ID = "3b0c4f8e-3f0a-4a3e-9f57-0a4f5c9a8d11"
_SAMPLES: dict[str, Any] = {
    "string": "text",
    "integer": 1,
    "boolean": False,
    "object": {},
    "time": "2026-11-23T12:00:00Z",
    "uuid": OPERATION_ID,
}


def sample(resource: str, /, **values: Any) -> dict[str, Any]:
    """An instance of a resource of `surface`, with every field."""
    made: dict[str, Any] = {}
    for field in RESOURCES[resource].fields:
        kind = field.kind
        if kind.startswith("["):
            inner = kind[1:-1]
            made[field.name] = [_SAMPLES[inner] if inner in _SAMPLES else sample(inner)]
        else:
            made[field.name] = _SAMPLES[kind]
    return made | values


class StubService:
    """Answers like the service; what was asked for stands in `calls`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.log: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        self.ended = True
        self.kept: list[Document] = [VgpuDocument(name="a", type="L40S-8Q")]
        self.pruned_below = 0

    def host(self) -> dict[str, Any]:
        return sample("host", revision=len(self.log))

    def start_domain(self, start: DomainStart, limit_s: float) -> dict[str, Any]:
        self.calls.append(("start", start, limit_s))
        return {"allowed": True}

    def release_domain(self, release: DomainRelease) -> dict[str, Any]:
        self.calls.append(("release", release))
        return {}

    def capture(self) -> dict[str, Any]:
        return {"format": "vgpuctl-capture/1"}

    def gpus(self) -> list[dict[str, Any]]:
        return [sample("gpu")]

    def gpu(self, ref: str) -> dict[str, Any]:
        if ref == "explode":
            raise ZeroDivisionError("a secret in the traceback")
        if ref != "0000:41:00.0":
            raise GpuNotFound(f"no GPU {ref!r}", hint="vgpuctl gpu list")
        return sample("gpu", address=ref)

    def types(self, *, gpu: str | None, creatable: bool, catalog: bool) -> list[dict[str, Any]]:
        self.calls.append(("types", gpu, creatable, catalog))
        return [sample("type")]

    def profiles(self) -> list[dict[str, Any]]:
        return [sample("profile")]

    def profile(self, name: str) -> dict[str, Any]:
        return sample("profile", name=name)

    def vgpus(self, *, foreign: bool = False) -> list[dict[str, Any]]:
        return [sample("vgpu", holders=None, problem=None)]

    def vgpu(self, ref: str) -> dict[str, Any]:
        return sample("vgpu", name=ref)

    def domains(self) -> list[dict[str, Any]]:
        return [sample("domain")]

    def domain(self, ref: str) -> dict[str, Any]:
        return sample("domain", name=ref)

    def domain_xml(self, ref: str, live: bool) -> str:
        self.calls.append(("domain_xml", ref, live))
        return "<domain/>"

    def documents(self) -> list[Document]:
        return self.kept

    def wishes(self) -> list[Wish]:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        return [Wish(document=each, generation=1, created_at=now, changed_at=now) for each in self.kept]

    def revision(self) -> int:
        return len(self.log)

    def plan(self, edit: Edit, who: Requester) -> dict[str, Any]:
        self.calls.append(("plan", edit, who))
        change = {"key": "Vgpu/a", "before": None, "after": VgpuDocument(name="a", type="L40S-8Q")}
        return sample("plan", id="p1", changes=[change])

    def submit(
        self,
        edit: Edit | None,
        who: Requester,
        *,
        plan_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        if plan_id == "stale":
            raise PlanStale("the host changed")
        self.calls.append(("submit", edit, who, plan_id, idempotency_key))
        return self._operation()

    def _operation(self) -> dict[str, Any]:
        ended = {"state": "succeeded"} if self.ended else {"state": "running", "ended_at": None}
        return sample("operation", id=OPERATION_ID, problem=None, **ended)

    def operation(self, operation_id: str) -> dict[str, Any]:
        if operation_id != OPERATION_ID:
            raise OperationNotFound(f"no operation {operation_id}")
        return self._operation()

    def operations(self, limit: int) -> list[dict[str, Any]]:
        self.calls.append(("operations", limit))
        return [self._operation()]

    def wait(self, operation_id: str, timeout_s: float) -> dict[str, Any]:
        self.operation(operation_id)
        with self.changed:
            self.changed.wait_for(lambda: self.ended, timeout_s)
        return self._operation()

    def end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def cancel(self, operation_id: str, who: Requester) -> dict[str, Any]:
        self.calls.append(("cancel", operation_id, who))
        return self.operation(operation_id)

    def pause(self, who: Requester) -> None:
        self.calls.append(("pause", who))

    def resume(self, who: Requester) -> None:
        self.calls.append(("resume", who))

    def record(self, summary: str) -> None:
        with self.changed:
            revision = len(self.log) + 1
            self.log.append(sample("event", revision=revision, summary=summary, operation=str(UUID(int=1))))
            self.changed.notify_all()

    def events(self, since: int, limit: int) -> list[dict[str, Any]]:
        if since < self.pruned_below:
            raise RevisionGone(f"revision {since} is no longer kept")
        return [each for each in self.log if each["revision"] > since][:limit]

    def wait_events(self, since: int, timeout_s: float) -> list[dict[str, Any]]:
        with self.changed:
            self.changed.wait_for(lambda: self.events(since, 1), timeout_s)
            return self.events(since, 1000)

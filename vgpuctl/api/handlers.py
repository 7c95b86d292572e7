"""What each route does: one function a route, from a checked request to an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

import vgpuctl
from vgpuctl.api import openapi
from vgpuctl.api.access import Caller
from vgpuctl.api.documents import dump_document, dump_documents
from vgpuctl.api.edits import parse_edit, parse_plan_reference
from vgpuctl.api.faults import Fault, refuse
from vgpuctl.api.hook import HookStart, parse_hook
from vgpuctl.api.query import MAX_ENTRIES
from vgpuctl.api.waiting import EventStream, Waiting
from vgpuctl.errors import InvalidInput, UnsupportedHere
from vgpuctl.model.edit import Edit
from vgpuctl.ports.host import Simulator
from vgpuctl.service.service import Service

EXTENSIONS: tuple[str, ...] = ()
"""What was added since /v1 began; each has a paragraph in the documentation."""

_NEWEST = 100

_log = structlog.get_logger("vgpuctl.api")


@dataclass(frozen=True, slots=True)
class Backend:
    """What the handlers work on."""

    service: Service
    waiting: Waiting
    simulator: Simulator | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose caller may make it; `body` reads and parses the JSON body."""

    backend: Backend
    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Callable[[], Any]
    if_match: str | None = None
    idempotency_key: str | None = None

    @property
    def service(self) -> Service:
        """The service that the daemon runs."""
        return self.backend.service


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: JSON, or an event stream."""

    value: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: EventStream | None = None


Handler = Callable[[Call], Reply]

HANDLERS: dict[tuple[str, str], Handler] = {}


def _route(method: str, path: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS[method, path] = handler
        return handler

    return register


@_route("GET", "/v1")
def show_info(call: Call) -> Reply:
    """Name the API and the caller's role."""
    return Reply(
        {
            "api": "v1",
            "version": vgpuctl.__version__,
            "extensions": list(EXTENSIONS),
            "role": call.caller.role.value,
        }
    )


@_route("GET", "/v1/openapi.json")
def show_schema(_call: Call) -> Reply:
    """Describe this API."""
    return Reply(openapi.describe())


@_route("GET", "/v1/host")
def show_host(call: Call) -> Reply:
    """Show the host."""
    return Reply(call.service.host())


@_route("GET", "/v1/host/capture")
def capture_host(call: Call) -> Reply:
    """Write down what the host says, redacted."""
    return Reply(call.service.capture())


@_route("GET", "/v1/gpus")
def list_gpus(call: Call) -> Reply:
    """List the GPUs."""
    return Reply(call.service.gpus())


@_route("GET", "/v1/gpus/{gpu}")
def show_gpu(call: Call) -> Reply:
    """Show a GPU."""
    return Reply(call.service.gpu(call.path["gpu"]))


@_route("GET", "/v1/types")
def list_types(call: Call) -> Reply:
    """List vGPU types."""
    query = call.query
    gpu, catalog = query.get("gpu"), query.get("catalog", False)
    if catalog and (gpu is not None or query.get("creatable")):
        raise refuse("query", [Fault("catalog", "goes with neither gpu nor creatable")])
    return Reply(call.service.types(gpu=gpu, creatable=query.get("creatable", False), catalog=catalog))


@_route("GET", "/v1/profiles")
def list_profiles(call: Call) -> Reply:
    """List the profiles."""
    return Reply(call.service.profiles())


@_route("GET", "/v1/profiles/{name}")
def show_profile(call: Call) -> Reply:
    """Show a profile."""
    return Reply(call.service.profile(call.path["name"]))


@_route("GET", "/v1/vgpus")
def list_vgpus(call: Call) -> Reply:
    """List the vGPUs."""
    return Reply(call.service.vgpus(foreign=call.query.get("foreign", False)))


@_route("GET", "/v1/vgpus/{vgpu}")
def show_vgpu(call: Call) -> Reply:
    """Show a vGPU."""
    return Reply(call.service.vgpu(call.path["vgpu"]))


@_route("GET", "/v1/domains")
def list_domains(call: Call) -> Reply:
    """List the domains."""
    return Reply(call.service.domains())


@_route("GET", "/v1/domains/{domain}")
def show_domain(call: Call) -> Reply:
    """Show a domain."""
    return Reply(call.service.domain(call.path["domain"]))


@_route("GET", "/v1/domains/{domain}/xml")
def show_domain_xml(call: Call) -> Reply:
    """Show a domain's XML."""
    live = call.query.get("live", False)
    return Reply({"xml": call.service.domain_xml(call.path["domain"], live=live)})


@_route("GET", "/v1/documents")
def list_documents(call: Call) -> Reply:
    """List the documents in force, as apply reads them."""
    return Reply(dump_documents(call.service.documents()))


@_route("GET", "/v1/generations")
def list_generations(call: Call) -> Reply:
    """Show the generation of every document, as an apply's `generations` takes them."""
    return Reply({str(wish.key): wish.generation for wish in call.service.wishes()})


@_route("POST", "/v1/plans")
def make_plan(call: Call) -> Reply:
    """Plan an edit."""
    edit = parse_edit(call.body(), if_match=call.if_match)
    return _plan(call, edit)


@_route("POST", "/v1/operations")
def submit_operation(call: Call) -> Reply:
    """Run a shown plan, or an edit."""
    body, who, service = call.body(), call.caller.requester, call.service
    plan_id = parse_plan_reference(body)
    if plan_id is not None and call.query.get("dry_run"):
        raise refuse("request", [Fault("plan", "was shown already; dry_run goes with an action")])
    if plan_id is not None and call.if_match is not None:
        raise refuse("request", [Fault("If-Match", "a shown plan is bound to its generations already")])
    edit = None if plan_id is not None else parse_edit(body, if_match=call.if_match)
    if edit is not None and call.query.get("dry_run"):
        return _plan(call, edit)
    operation = service.submit(edit, who, plan_id=plan_id, idempotency_key=call.idempotency_key)
    _log.info(
        "operation admitted",
        operation=operation["id"],
        kind=operation["kind"],
        subject=operation["subject"],
        domain=getattr(edit, "domain", None),
        gpu=getattr(edit, "gpu", None),
        uid=who.uid,
        pid=who.pid,
        user=who.name,
    )
    return _operation(call, operation["id"])


@_route("GET", "/v1/operations")
def list_operations(call: Call) -> Reply:
    """List the newest operations."""
    return Reply(call.service.operations(call.query.get("limit", _NEWEST)))


@_route("GET", "/v1/operations/{id}")
def show_operation(call: Call) -> Reply:
    """Show an operation, once it has ended or the caller's time is up."""
    return Reply(_wait(call, call.path["id"]))


@_route("POST", "/v1/operations/{id}/cancel")
def cancel_operation(call: Call) -> Reply:
    """Cancel an operation."""
    call.service.cancel(call.path["id"], call.caller.requester)
    return _operation(call, call.path["id"])


@_route("GET", "/v1/events")
def list_events(call: Call) -> Reply:
    """List log entries, or stream them."""
    service, query = call.service, call.query
    limit, since = query.get("limit", MAX_ENTRIES), query.get("since")
    if query.get("follow"):
        since = service.revision() if since is None else since
        first = service.events(since, limit)
        return Reply(stream=call.backend.waiting.stream(first, since, service.wait_events))
    if since is None:
        since = max(0, service.revision() - min(limit, _NEWEST))
    entries = service.events(since, limit)
    if not entries and query.get("wait"):

        def ask(seconds: float) -> tuple[list[dict[str, Any]], bool]:
            newer = service.wait_events(since, seconds)
            return newer, bool(newer)

        entries = call.backend.waiting.until(query["wait"], ask)[0][:limit]
    return Reply(entries)


@_route("POST", "/v1/pause")
def pause(call: Call) -> Reply:
    """Stop background changes."""
    call.service.pause(call.caller.requester)
    return Reply(call.service.host())


@_route("POST", "/v1/resume")
def resume(call: Call) -> Reply:
    """Let background changes go on."""
    call.service.resume(call.caller.requester)
    return Reply(call.service.host())


@_route("POST", "/v1/hook")
def answer_hook(call: Call) -> Reply:
    """Say whether a domain may start, or take note that it has ended."""
    told = parse_hook(call.body())
    if isinstance(told, HookStart):
        return Reply(call.service.start_domain(told.start, told.limit_s))
    return Reply(call.service.release_domain(told))


@_route("POST", "/v1/sim/{action}")
def control_simulation(call: Call) -> Reply:
    """Do to a simulated host what life does to one."""
    if call.backend.simulator is None:
        raise UnsupportedHere(
            "this host is not simulated", hint="vgpuctl daemon --simulate l40s runs a simulated one"
        )
    arguments = call.body()
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise InvalidInput("the arguments of a simulation control are a JSON object")
    return Reply(call.backend.simulator.control(call.path["action"], arguments))


def _plan(call: Call, edit: Edit) -> Reply:
    """What the edit would do, with the documents that change as apply reads them."""
    plan = call.service.plan(edit, call.caller.requester)
    changes = [
        change | {side: dump_document(change[side]) for side in ("before", "after")}
        for change in plan["changes"]
    ]
    return Reply(plan | {"changes": changes})


def _wait(call: Call, operation_id: str) -> dict[str, Any]:
    """The operation, after waiting as long as the caller wants and while it has not ended."""

    def ask(seconds: float) -> tuple[dict[str, Any], bool]:
        found = call.service.wait(operation_id, seconds) if seconds else call.service.operation(operation_id)
        return found, found["ended_at"] is not None

    operation: dict[str, Any] = call.backend.waiting.until(call.query.get("wait", 0.0), ask)[0]
    return operation


def _operation(call: Call, operation_id: str) -> Reply:
    """200 for an operation that has ended; 202 and where to ask for one that goes on."""
    operation = _wait(call, operation_id)
    location = {"Location": f"/v1/operations/{operation['id']}"}
    return Reply(operation, 200 if operation["ended_at"] is not None else 202, location)

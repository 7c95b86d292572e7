"""Query parameters: one table that the handlers read by and the schema shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

from vgpuctl.api.faults import Fault, did_you_mean, refuse

MAX_WAIT_S = 60
_MOST = 100
MAX_ENTRIES = 1000


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter.  `maximum` is where a larger number is refused."""

    name: str
    kind: Literal["string", "boolean", "integer", "seconds"]
    doc: str
    maximum: int | None = None


_WAIT = Parameter(
    "wait", "seconds", f"Wait so long for the end; more than {MAX_WAIT_S} counts as {MAX_WAIT_S}."
)

PARAMETERS: Mapping[tuple[str, str], tuple[Parameter, ...]] = {
    ("GET", "/v1/types"): (
        Parameter("gpu", "string", "Only of this GPU: address, UUID or index."),
        Parameter("creatable", "boolean", "Only types of which one more fits now."),
        Parameter("catalog", "boolean", "What the catalogue knows, rather than this host."),
    ),
    ("GET", "/v1/vgpus"): (Parameter("foreign", "boolean", "Only those that are not ours."),),
    ("GET", "/v1/domains/{domain}/xml"): (
        Parameter("live", "boolean", "What the running guest has, rather than the config."),
    ),
    ("POST", "/v1/operations"): (
        _WAIT,
        Parameter("dry_run", "boolean", "Answer with the plan and change nothing."),
    ),
    ("GET", "/v1/operations"): (Parameter("limit", "integer", "At most so many.", MAX_ENTRIES),),
    ("GET", "/v1/operations/{id}"): (_WAIT,),
    ("POST", "/v1/operations/{id}/cancel"): (_WAIT,),
    ("GET", "/v1/events"): (
        Parameter("since", "integer", "Entries above this revision; the newest ones when absent."),
        Parameter("limit", "integer", "At most so many.", MAX_ENTRIES),
        Parameter("wait", "seconds", "Wait so long for an entry when there is none."),
        Parameter("follow", "boolean", "Stream entries as NDJSON; a blank line is a sign of life."),
    ),
}


def read_query(method: str, path: str, text: str) -> dict[str, Any]:
    """The parameters of a request to that route; InvalidInput with every fault.

    Only those that were given stand in the result: text, bool, int, or float for seconds.
    """
    known = {each.name: each for each in PARAMETERS.get((method, path), ())}
    found: dict[str, Any] = {}
    faults: list[Fault] = []
    try:
        given = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST)
    except ValueError:
        raise refuse("query", [Fault("", f"has more than {_MOST} parameters")]) from None
    for name, value in given:
        parameter = known.get(name)
        if parameter is None:
            near = did_you_mean(name, known) if known else "this route has none"
            faults.append(Fault(name, f"unknown query parameter; {near}"))
        elif name in found:
            faults.append(Fault(name, "stands twice"))
        else:
            try:
                found[name] = _value(parameter, value)
            except ValueError as error:
                found[name] = None
                faults.append(Fault(name, str(error)))
    if faults:
        raise refuse("query", faults)
    return found


def _value(parameter: Parameter, text: str) -> Any:
    match parameter.kind:
        case "string":
            if not text:
                raise ValueError("is empty")
            return text
        case "boolean":
            lowered = text.lower()
            if lowered in ("1", "true", "yes", ""):
                return True
            if lowered in ("0", "false", "no"):
                return False
            raise ValueError("must be 1 or 0")
        case "integer":
            if not text.isascii() or not text.isdigit() or len(text) > 18:
                raise ValueError("must be a whole number, 0 or more")
            number = int(text)
            if parameter.maximum is not None and not 1 <= number <= parameter.maximum:
                raise ValueError(f"must be 1 to {parameter.maximum}")
            return number
        case "seconds":
            try:
                seconds = float(text)
            except ValueError:
                seconds = -1.0
            if not 0 <= seconds < float("inf"):
                raise ValueError("must be a number of seconds, 0 or more")
            return min(seconds, float(MAX_WAIT_S))

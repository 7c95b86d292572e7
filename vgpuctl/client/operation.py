"""Operations: admitted once, followed to their end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

from vgpuctl.client.client import Client, at
from vgpuctl.errors import (
    DaemonUnreachable,
    DeadlineExceeded,
    NeedsOperator,
    OperationCancelled,
    Unavailable,
    VgpuctlError,
)

T = TypeVar("T")

LONG_POLL_S = 30
_SOON_S = 0.05
RESTART_GRACE_S = 30.0
"""For so long a daemon that went away is waited for: it goes on with its operations when it is back."""

_GOING_ON = frozenset({"running", "rolling-back"})


def has_ended(operation: dict[str, Any]) -> bool:
    """Whether nothing more will happen."""
    return operation.get("state") not in _GOING_ON


def submit(client: Client, body: dict[str, Any], *, timeout_s: float | None = None) -> dict[str, Any]:
    """Have an edit, or a shown plan (`{"plan": ID}`), admitted; the operation as it is then.

    Asked again, the idempotency key keeps it from being done twice.  Raises DeadlineExceeded when it has
    not come to its turn after `timeout_s`.
    """
    headers = {"Idempotency-Key": str(uuid4())}
    deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def ask() -> dict[str, Any]:
        left_s = None if deadline is None else max(_SOON_S, deadline - time.monotonic())
        reply = client.request("POST", "/v1/operations", body, headers=headers, reply_timeout_s=left_s)
        operation: dict[str, Any] = reply.value()
        return operation

    return patiently(ask)


def patiently(ask: Callable[[], T], *, was_there: bool = False) -> T:
    """What `ask` comes to, also where the daemon stops and is started anew: RESTART_GRACE_S at most.

    Where none answers to begin with that is raised at once, unless it `was_there` just now.
    """
    until = time.monotonic() + RESTART_GRACE_S
    heard: Unavailable | None = None
    while True:
        try:
            return ask()
        except Unavailable as error:
            if not isinstance(error, DaemonUnreachable) and not error.facts.get("stopping"):
                raise
            # That none answers now does not say that nothing was done: the first failure does.
            heard = heard or error
            is_there = was_there or heard.facts.get("sent") or heard.facts.get("stopping")
            if not is_there or time.monotonic() > until:
                raise heard from error
            time.sleep(0.5)


def follow(
    client: Client,
    operation: dict[str, Any],
    *,
    timeout_s: float | None = None,
    poll_s: int = LONG_POLL_S,
    seen: Callable[[dict[str, Any]], None] = lambda _operation: None,
) -> dict[str, Any]:
    """Wait until `operation` has ended, telling `seen` of each state; at least every `poll_s` seconds.

    Raises DeadlineExceeded after `timeout_s`: the operation goes on.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    last_answer = time.monotonic()
    while True:
        seen(operation)
        if has_ended(operation):
            return operation
        wait_s: float = poll_s
        if deadline is not None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise DeadlineExceeded(
                    f"operation {operation['id']} has not ended in time; it goes on",
                    hint=f"`vgpuctl operation wait {operation['id']}`, or cancel it",
                    operation=operation["id"],
                )
            wait_s = max(1, min(poll_s, round(left_s)))
        try:
            operation = client.get(
                at("operations", operation["id"]), wait=wait_s, reply_timeout_s=wait_s + LONG_POLL_S
            )
            last_answer = time.monotonic()
        except DaemonUnreachable:
            if time.monotonic() - last_answer > RESTART_GRACE_S + wait_s:
                raise
            time.sleep(0.5)


def failure_of(operation: dict[str, Any]) -> VgpuctlError | None:
    """Why an ended operation failed; None when it did not.

    Whether anything was undone is what the daemon says: with the code of RolledBack.
    """
    state = operation.get("state")
    if state == "succeeded":
        return None
    problem = operation.get("problem") or {}
    cause = VgpuctlError.from_problem({"detail": f"the operation ended as {state}", **problem})
    facts = {"operation": operation.get("id"), "cause": problem}
    if state == "needs-operator":
        hint = cause.hint or f"`vgpuctl operation show {operation.get('id')}` says how far it came"
        return NeedsOperator(cause.message, hint=hint, **facts)
    if state == "cancelled":
        return OperationCancelled(cause.message, hint=cause.hint, **facts)
    return cause

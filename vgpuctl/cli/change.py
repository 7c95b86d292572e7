"""Making a change: show it, ask where somebody would notice, submit it, follow it to its end."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

from vgpuctl.cli.cells import plain
from vgpuctl.cli.options import ChangeOptions
from vgpuctl.cli.output import Item, check_format, name_of, print_item
from vgpuctl.cli.planview import lines
from vgpuctl.cli.progress import Progress
from vgpuctl.cli.session import NOT_CHANGED, Session, talk
from vgpuctl.client.client import Client, at
from vgpuctl.client.operation import LONG_POLL_S, failure_of, follow, patiently, submit
from vgpuctl.errors import DeadlineExceeded, OperationNotFound, PlanStale, VgpuctlError
from vgpuctl.surface import OPERATION, PLAN

INTERRUPTED = 130
_AGAIN_S = 30.0
"""For so long a plan that others made stale, and nobody has seen, is made anew."""
_PAUSE_S = 1.0
_NOTICING = frozenset({"running", "paused"})


def make(
    session: Session,
    client: Client,
    edit: dict[str, Any],
    options: ChangeOptions,
    *,
    may_touch: bool = True,
    always_show: bool = False,
) -> Item | None:
    """Make the change that `edit` asks for; the operation that ended well, or None where none was waited for.

    A change that `may_touch` running domains is planned first and asks where it does; `always_show`
    shows the plan and asks in any case.  Raises what the operation failed with.
    """
    if options.dry_run:
        show_dry_run(session, client, edit)
        return None
    if (options.yes and not always_show) or not may_touch:
        began = time.monotonic()
        return _finish(session, client, _submit(session, client, edit, options), options, began)
    until = time.monotonic() + _AGAIN_S
    while True:
        plan = patiently(partial(client.post, "/v1/plans", edit))
        asked = _agree(session, client, edit, plan, options, always_show=always_show)
        began = time.monotonic()
        try:
            operation = _submit(session, client, {"plan": plan["id"]}, options)
        except (PlanStale, OperationNotFound):
            # Nobody has seen the plan: a newer one is as good.  A new daemon keeps none of the old one's.
            if asked or time.monotonic() > until:
                raise
            import random  # noqa: PLC0415

            # Whoever else is at it would make it stale again, were all to ask at the same moment.
            time.sleep(random.uniform(0, _PAUSE_S))  # noqa: S311
            continue
        return _finish(session, client, operation, options, began)


def show_dry_run(session: Session, client: Client, edit: dict[str, Any]) -> None:
    """Print what `edit` would do.  Fails with the first thing that cannot be done."""
    check_format(session, PLAN)
    show_plan(session, patiently(partial(client.post, "/v1/plans", edit)))


def show_plan(session: Session, plan: Item) -> None:
    """Print a plan.  Fails with the first thing that cannot be done."""
    print_item(session, PLAN, plan, lambda: lines(plan, session.paint(), sys.stdout))
    fail_as(plan, told=session.format in ("table", "wide") and not session.columns)


def fail_as(plan: Item, *, told: bool) -> None:
    """Fail with the first thing that cannot be done, if any; without a word where the plan has `told` it."""
    if plan.get("problems"):
        first = VgpuctlError.from_problem(plan["problems"][0])
        if told:
            raise SystemExit(first.exit_status)
        raise first


def follow_to_end(session: Session, client: Client, operation: Item, timeout_s: float | None) -> Item:
    """Wait for an operation, telling its steps on a terminal.  Raises what it failed with.

    Ctrl-C leaves the operation alone and says how to come back to it.
    """
    show = sys.stderr.isatty() and not session.quiet
    progress = Progress(sys.stderr, session.paint_talk())
    try:
        ended = follow(
            client,
            operation,
            timeout_s=timeout_s,
            poll_s=1 if show else LONG_POLL_S,
            seen=progress.seen if show else lambda _operation: None,
        )
    except KeyboardInterrupt:
        progress.clear()
        leave(operation["id"])
    except DeadlineExceeded:
        progress.clear()
        raise
    failure = failure_of(ended)
    if failure is not None:
        raise failure
    return ended


def leave(operation_id: str) -> None:
    """End this process, but not the operation."""
    talk(
        f"\noperation {operation_id} goes on\n"
        f"  to wait for it: vgpuctl operation wait {operation_id}\n"
        f"  to undo it:     vgpuctl operation cancel {operation_id}"
    )
    raise SystemExit(INTERRUPTED)


def vgpus_of(client: Client, operation: Item) -> list[Item]:
    """The vGPUs that came of an operation, as they are now."""
    names = (operation.get("result") or {}).get("vgpus") or []
    return [patiently(partial(client.get, at("vgpus", name)), was_there=True) for name in names]


def _submit(session: Session, client: Client, body: dict[str, Any], options: ChangeOptions) -> Item:
    try:
        return submit(client, body, timeout_s=options.timeout_s)
    except KeyboardInterrupt:
        session.say("\ninterrupted; it may have been admitted: see `vgpuctl operation list`")
        raise SystemExit(INTERRUPTED) from None


def _finish(
    session: Session, client: Client, operation: Item, options: ChangeOptions, began: float
) -> Item | None:
    """Follow an operation that was asked for at `began`, unless nobody waits for it."""
    if not options.wait:
        print_item(session, OPERATION, operation, lambda: [name_of(OPERATION, operation)])
        return None
    waited_s = time.monotonic() - began
    left_s = None if options.timeout_s is None else max(0.0, options.timeout_s - waited_s)
    return follow_to_end(session, client, operation, left_s)


def _agree(
    session: Session,
    client: Client,
    edit: dict[str, Any],
    plan: Item,
    options: ChangeOptions,
    *,
    always_show: bool,
) -> bool:
    """Show and ask as far as that is needed; whether a person was asked."""
    noticing = [] if options.yes else _running(client, _touched(edit, plan))
    heard = session.can_ask() or session.format != "json"
    shown = heard and bool(noticing or (always_show and not (options.yes and session.quiet)))
    if shown:
        talk("\n".join(lines(plan, session.paint_talk(), sys.stderr)))
    if plan.get("problems"):
        # It would be refused: no question, and no second telling of what stands above.
        told = shown and session.format != "json"
        if told:
            talk(NOT_CHANGED)
        fail_as(plan, told=told)
    if options.yes or (not noticing and not always_show):
        return False
    if always_show and plan.get("verdict") == "match" and not plan.get("changes"):
        return False
    if noticing:
        names = ", ".join(plain(each) for each in noticing)
        session.confirm(f"This touches running domains ({names}). Go on?")
    else:
        session.confirm("Apply this?")
    return True


def _touched(edit: dict[str, Any], plan: Item) -> list[str]:
    """The domains that would notice; of a plan that is not complete, also the one that it is about.

    A change of the definition alone is for the next start: no guest notices.
    """
    if edit.get("affect") == ["config"]:
        return []
    touched = list(plan.get("touches") or [])
    domain = edit.get("domain")
    if plan.get("incomplete") and domain not in (None, *touched):
        touched.append(domain)
    return touched


def _running(client: Client, touched: list[str]) -> list[str]:
    """Those of `touched` that run; all of them where libvirt does not say."""
    if not touched:
        return []
    reading = partial(client.get, "/v1/domains")
    try:
        states = {each["name"]: each["state"] for each in patiently(reading, was_there=True)}
    except VgpuctlError:
        return touched
    return [each for each in touched if states.get(each, "running") in _NOTICING]


def say_done(session: Session, text: str, operation: Item) -> None:
    """Tell that it is done; the operation itself goes to stdout for programs."""
    if session.is_for_programs or session.format == "name":
        print_item(session, OPERATION, operation, list)
    else:
        session.say(text)

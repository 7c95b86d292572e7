"""What an edit would come to: its plan, and what may be said against it.  Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from vgpuctl.model.allocation import Allocation
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import DocumentKey, DocumentKind, GpuDocument, Repair, Wish, Wishes
from vgpuctl.model.edit import Edit
from vgpuctl.model.plan import Plan
from vgpuctl.model.planner import plan
from vgpuctl.model.record import Requester
from vgpuctl.model.situation import Situation
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.service import edits
from vgpuctl.service.change import Change, Context


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPlan:
    """A plan that somebody looks at, and what it was made from."""

    id: str
    edit: Edit
    plan: Plan
    change: Change
    before: dict[DocumentKey, Wish]
    ids: dict[str, UUID]

    def does_the_same_as(self, other: ShownPlan) -> bool:
        """Whether both come to the same steps and documents."""
        mine, theirs = self.change, other.change
        return (self.plan.steps, mine.put, mine.drop) == (other.plan.steps, theirs.put, theirs.drop)


def propose(
    edit: Edit,
    who: Requester,
    snapshot: Snapshot,
    ids: dict[str, UUID],
    *,
    before: Wishes,
    places: dict[UUID, Allocation],
    catalog: Catalog,
    repair: Repair,
    now: datetime,
    new_uuid: Callable[[], UUID],
) -> tuple[ShownPlan, frozenset[str], Wishes]:
    """What an edit comes to: its plan, the names that it is about, the wishes after it."""
    ids = dict(ids)

    def new_id(name: str) -> UUID:
        return ids.setdefault(name, new_uuid())

    context = Context(
        wishes=before,
        allocations=places,
        snapshot=snapshot,
        catalog=catalog,
        owner=who.name,
        now=now,
        new_id=new_id,
        repair=repair,
    )
    change = edits.change(edit, context)
    after = change.wishes_after(before, now)
    scope = scope_of(change, before, after)
    given = {each.id: each for each in (*change.adopted, *change.rehomed)}
    situation = Situation(
        snapshot=snapshot,
        wishes=after,
        allocations=places | given,
        catalog=catalog,
        now=now,
        new_id=new_id,
        scope=scope,
        desktops_change=any(
            key.kind is DocumentKind.DESKTOP and before.documents.get(key) != after.documents.get(key)
            for key in (*change.put, *change.drop)
        ),
        former=tuple(
            wish.document
            for key in (*change.put, *change.drop)
            if (wish := before.documents.get(key)) is not None and isinstance(wish.document, GpuDocument)
        ),
    )
    result = plan(situation)
    while change.lenient and (unfit := scope & {each.subject for each in result.problems}):
        change.notes += [f"left out: {each.subject}: {each.error.message}" for each in result.problems]
        scope -= unfit
        result = plan(replace(situation, scope=scope))
    made = ShownPlan(
        id=str(new_uuid()),
        edit=edit,
        plan=result,
        change=change,
        before={key: before.documents[key] for key in before.documents if str(key) in scope},
        ids=ids,
    )
    return made, scope, after


def refuse_problems(result: Plan) -> None:
    """Raise the first problem of a plan, with all of them among its facts."""
    if not result.problems:
        return
    error = result.problems[0].error
    if len(result.problems) > 1:
        error.facts["problems"] = [
            {"subject": each.subject, **each.error.to_problem()} for each in result.problems[:50]
        ]
    raise error


def scope_of(change: Change, before: Wishes, after: Wishes) -> frozenset[str]:
    """Every vGPU and document that a change is about."""
    keys = {*change.put, *change.drop}
    old, new = before.vgpus(), after.vgpus()
    names = {*change.names}
    names |= {name for name in {*old, *new} if old.get(name) != new.get(name)}
    profiles = {
        key.name
        for key in keys
        if key.kind is DocumentKind.PROFILE and before.documents.get(key) != after.documents.get(key)
    }
    names |= {name for name, wish in new.items() if wish.profile in profiles}
    return frozenset(names | {str(key) for key in keys})

"""Planning from what is remembered: for what is left of an operation, for a restore, for a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from vgpuctl import errors
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.catalog import Catalog
from vgpuctl.model.document import DocumentKind, GpuDocument, Repair, Wishes
from vgpuctl.model.edit import Edit
from vgpuctl.model.pci import GpuAddress
from vgpuctl.model.plan import Plan, Problem
from vgpuctl.model.planner import plan
from vgpuctl.model.record import OperationState, Requester
from vgpuctl.model.situation import Situation
from vgpuctl.model.snapshot import Snapshot
from vgpuctl.model.step import CreateComputeInstance
from vgpuctl.service import restore
from vgpuctl.service.ledger import Operation
from vgpuctl.service.proposal import ShownPlan, propose
from vgpuctl.service.restore import Restoration
from vgpuctl.service.turn import Turn
from vgpuctl.service.wayback import with_former_gpus

NOWHERE: frozenset[GpuAddress] = frozenset()


class Planning:
    """Makes every plan; `places` tells the allocations as a snapshot shows them."""

    def __init__(
        self,
        turn: Turn,
        places: Callable[[Snapshot], dict[UUID, Allocation]],
        catalog: Catalog,
        new_uuid: Callable[[], UUID],
        repair: Repair = Repair.AUTO,
    ) -> None:
        self._turn = turn
        self._places = places
        self._catalog = catalog
        self.new_uuid = new_uuid
        self.repair = repair
        """The host's policy."""

    def proposal(
        self, edit: Edit, who: Requester, snapshot: Snapshot, ids: dict[str, UUID]
    ) -> tuple[ShownPlan, frozenset[str], Wishes]:
        """What an edit comes to: its plan, the names that it is about, the wishes after it."""
        try:
            return propose(
                edit,
                who,
                snapshot,
                ids,
                before=self._turn.ledger.in_force(),
                places=self._places(snapshot),
                catalog=self._catalog,
                repair=self.repair,
                now=self._turn.now(),
                new_uuid=self.new_uuid,
            )
        except errors.VgpuctlError:
            raise
        except Exception as error:
            # One odd request must not take everybody else's turn with it.
            raise internal(error) from error

    def left(
        self,
        snapshot: Snapshot,
        scope: frozenset[str],
        avoid: frozenset[GpuAddress] = NOWHERE,
        operation: Operation | None = None,
    ) -> Plan:
        """What is left to do for those names, of an operation where there is one.

        A fault of ours in planning is a problem like another: raised, it would come again with every
        observation, and nothing else would ever be decided.
        """
        undo = operation.started.undo if operation is not None else ()
        runs = operation.runs if operation is not None else ()
        wishes = self._turn.ledger.in_force()
        try:
            if operation is not None and operation.state is OperationState.ROLLING_BACK:
                wishes = with_former_gpus(wishes, operation, snapshot, self._turn.now())
            return plan(
                Situation(
                    snapshot=snapshot,
                    wishes=wishes,
                    allocations=self._places(snapshot),
                    catalog=self._catalog,
                    now=self._turn.now(),
                    new_id=lambda _name: self.new_uuid(),
                    scope=scope,
                    avoid=avoid,
                    desktops_change=any(key.kind is DocumentKind.DESKTOP for key, _ in undo),
                    former=tuple(
                        each.document for _, each in undo if each and isinstance(each.document, GpuDocument)
                    ),
                    made=tuple(
                        each.step.effect
                        for each in runs
                        if isinstance(each.step.effect, CreateComputeInstance)
                    ),
                )
            )
        except Exception as error:  # noqa: BLE001
            return Plan(problems=(Problem("", internal(error)),))

    def start(
        self,
        names: Iterable[str],
        snapshot: Snapshot,
        own: Mapping[UUID, Allocation],
        *,
        anywhere: bool = False,
    ) -> Plan:
        """What makes those vGPUs of a domain that is being started.

        `own` are its places, as its XML names them; with `anywhere` new ones are chosen, under the same id.
        """
        scope = frozenset(names)
        ids = {each.name: each.id for each in own.values()}
        places = {**self._places(snapshot), **own}
        if anywhere:
            places = {key: each for key, each in places.items() if each.name not in scope}
        try:
            return plan(
                Situation(
                    snapshot=snapshot,
                    wishes=self._turn.ledger.in_force(),
                    allocations=places,
                    catalog=self._catalog,
                    now=self._turn.now(),
                    new_id=lambda name: ids[name],
                    scope=scope,
                )
            )
        except Exception as error:  # noqa: BLE001
            return Plan(problems=(Problem("", internal(error)),))

    def restoration(
        self, names: Iterable[str], snapshot: Snapshot, avoid: frozenset[GpuAddress] = NOWHERE
    ) -> Restoration:
        """What may be done unasked for those names."""
        return restore.restoration(
            names,
            snapshot,
            self._turn.ledger.allocations,
            lambda scope: self.left(snapshot, scope, avoid),
        )


def internal(error: Exception) -> errors.VgpuctlError:
    """A fault of ours, as users may see it."""
    found = errors.VgpuctlError(f"{type(error).__name__}: {error}")
    found.__cause__ = error
    return found

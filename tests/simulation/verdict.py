"""What has to hold once all is quiet again."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.simulation.history import History
from tests.support.stage import Daemon, faults_of, key_of, show
from vgpuctl import errors
from vgpuctl.model.document import DocumentKey
from vgpuctl.model.edit import ApplyDocuments, DeleteVgpu, ReplaceGpu
from vgpuctl.model.finding import Drift
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.record import (
    DAEMON,
    AllocationPut,
    OperationEnded,
    OperationRollingBack,
    OperationStarted,
    OperationState,
    PauseSet,
    StepEnded,
    StepStarted,
    WishDropped,
    WishPut,
)
from vgpuctl.model.situation import observed_for
from vgpuctl.model.step import CreateVgpu, Effect, RemoveVgpu, describe
from vgpuctl.service.proposal import ShownPlan


def problems(history: History) -> list[str]:
    """Everything that is wrong after a history that has settled."""
    found = at_rest(history)
    return found or once_repaired(history)


def at_rest(history: History) -> list[str]:
    """What is wrong while other people, guests and exchanged cards are still there."""
    daemon, stage = history.daemon, history.stage
    stage.foreign |= history.ground.started_by_mdevctl()
    in_doubt = unsure(daemon) | history.ground.ambiguous
    found = [*history.wrong]
    found += [f"ticket {each} was never answered" for each in sorted(history.asked - set(daemon.answers))]
    found += told_and_kept(daemon)
    found += open_steps(daemon)
    found += done_while_paused(daemon)
    found += done_twice(history)
    found += history.guests.faults(daemon.engine.ledger.allocations)
    unowned = [
        f"{each.subject} names "
        for each in daemon.engine.differing(stage.observe())
        if each.code is Drift.HOSTDEV_UNOWNED
    ]
    found += [
        each
        for each in faults_of(daemon, ended_well=False)
        if not any(f"'{place}'" in each for place in in_doubt) or "belongs to nobody" not in each
        # Somebody copied the hostdev into that XML, and it is told.
        if not (history.ground.copied and each.startswith(tuple(unowned)))
    ]
    kernel = {key_of(each) for each in stage.observe().vgpus()}
    taken = ever_adopted(daemon)
    taken |= {(parent, "None") for parent, _ in taken}
    gone = stage.foreign - kernel - taken
    found += [f"the vGPU of others on {each} is gone" for each in gone if each[0] not in in_doubt]
    return found + taken_for_ours(history) + unreported(daemon)


def ever_adopted(daemon: Daemon) -> set[tuple[str, str]]:
    """The vGPUs of others that became ours."""
    return {
        (str(each.record.allocation.parent), str(each.record.allocation.id))
        for each in daemon.store.entries(0, 100_000)
        if isinstance(each.record, AllocationPut) and each.record.allocation.adopted
    }


def taken_for_ours(history: History) -> list[str]:
    """What others made, and nobody adopted, and that counts as ours."""
    daemon, stage = history.daemon, history.stage
    snapshot = stage.observe()
    in_doubt = unsure(daemon) | history.ground.ambiguous
    if not history.setting.has_mdevs:
        in_doubt |= {parent for parent, _ in ever_adopted(daemon)}
    found = []
    for allocation in daemon.engine.ledger.allocations.values():
        vgpu = observed_for(allocation, snapshot)
        if vgpu is None or str(vgpu.parent) in in_doubt:
            continue
        adopted = ever_adopted(daemon)
        # An mdev is known by its UUID, wherever its card stands.
        if vgpu.mdev_uuid is not None and str(vgpu.mdev_uuid) in {uuid for _, uuid in adopted}:
            continue
        if key_of(vgpu) in stage.foreign - adopted:
            found.append(f"{allocation.name} is the vGPU of others on {key_of(vgpu)}")
    return found


def once_repaired(history: History) -> list[str]:
    """What is wrong after a person did what the findings say: then everything is as wished."""
    daemon = history.daemon
    for name in list(history.guests.running):
        history.guests.stop(name)
    for name in list(history.guests.saved):
        history.guests.drop_image(name)
    history.ground.take_copies_out()
    boards = history.stage.sim.engine.state.boards
    if history.ground.is_moved():
        history.ground.move()
    elif not all(each.present for each in boards):
        history.ground.reboot()
    history.ground.unpark()
    history.rest()
    for old, new in exchanged(history):
        try:
            history.do(ReplaceGpu(old=old, new=new))
        except errors.GpuNotFound:
            pass  # nothing has its place there
        except (errors.NoCapacity, errors.InvalidGpuState):
            return []  # what is wished does not fit on it, or its document wishes it without VFs
    remove_foreign(history)
    history.rest()
    wished = daemon.engine.ledger.in_force().vgpus()
    for allocation in list(daemon.engine.ledger.allocations.values()):
        if allocation.name not in wished:
            history.do(DeleteVgpu(vgpu=str(allocation.id)))
    shown = show(daemon, ApplyDocuments(documents=daemon.documents()))
    if not isinstance(shown, ShownPlan):
        return [f"the documents cannot be planned: {shown}"]
    if any(each.error.code in ("no-capacity", "gpu-state") for each in shown.plan.problems):
        return []
    operation = history.do(ApplyDocuments(documents=daemon.documents()))
    found = []
    cause = ((operation.problem or {}).get("facts") or {}).get("cause") or operation.problem or {}
    if cause.get("code") == errors.NoCapacity.code:
        return []  # mdevctl starts what it has defined on VFs that come on
    history.stage.foreign |= history.ground.started_by_mdevctl()
    if operation.state is not OperationState.SUCCEEDED:
        found.append(f"the documents cannot be applied: {operation.problem}")
    return found + faults_of(daemon)


def exchanged(history: History) -> list[tuple[str, str]]:
    """The cards that were taken out, and the one that stands in for each.

    One that had been moved before has its places by another address.
    """
    swapped = list(history.ground.swapped)
    boards = {each.uuid for each in history.stage.sim.engine.state.boards}
    places = history.daemon.engine.ledger.allocations.values()
    gone = {(str(each.gpu.uuid), str(each.gpu.address)) for each in places if each.gpu.uuid not in boards}
    found = [(each, each) for each in swapped]
    return found + [
        (uuid, swapped[0]) for uuid, address in sorted(gone) if swapped and address not in swapped
    ]


def unreported(daemon: Daemon) -> list[str]:
    """What differs from the wishes, and no finding says so."""
    snapshot = daemon.stage.observe()
    findings = daemon.engine.differing(snapshot)
    named = {name for each in findings for name in (*each.names, each.subject)}
    places = daemon.engine.ledger.allocations.values()
    found = [
        f"{each.name} has no vGPU, and nobody is told"
        for each in places
        if observed_for(each, snapshot) is None and each.name not in named
    ]
    placed = {each.name for each in places}
    found += [
        f"{name} is wished, and has neither place nor finding"
        for name in daemon.engine.ledger.in_force().vgpus()
        if name not in placed | named
    ]
    foreign = [each for each in findings if each.code is Drift.FOREIGN_VGPU]
    owned = [observed_for(each, snapshot) for each in places]
    count = sum(each not in owned for each in snapshot.vgpus())
    if len(foreign) != count:
        found.append(f"{count} vGPUs are somebody else's, and {len(foreign)} are told")
    return found


def unsure(daemon: Daemon) -> set[str]:
    """Where a step on a vendor vGPU ended nobody knows how.

    hardware.md 1.4: a vGPU of the vendor framework has no name but its VF and its type: of those that
    somebody else makes on that very VF at that very moment, ours cannot be told.
    """
    effects: dict[tuple[UUID, int, int], Effect] = {}
    found = set()
    for entry in daemon.store.entries(0, 100_000):
        match entry.record:
            case StepStarted(operation=operation, round=round_, step=step):
                effects[operation, round_, step.number] = step.effect
            case StepEnded(operation=operation, round=round_, number=number, problem=dict(problem)):
                effect = effects[operation, round_, number]
                is_vendor = getattr(effect, "framework", None) is FrameworkKind.VENDOR_VFIO
                is_told = problem.get("code") == errors.Conflict.code
                if is_vendor and not is_told and isinstance(effect, (CreateVgpu, RemoveVgpu)):
                    found.add(str(effect.parent))
    return found


def remove_foreign(history: History) -> None:
    """Everybody else takes away what is theirs."""
    places = history.daemon.engine.ledger.allocations.values()
    snapshot = history.stage.observe()
    ours = [observed_for(each, snapshot) for each in places]
    for vgpu in snapshot.vgpus():
        if vgpu not in ours:
            history.ground.take_away(vgpu)


def open_steps(daemon: Daemon) -> list[str]:
    """Steps that have begun in the log and never ended there."""
    begun: dict[tuple[UUID, int, int], Effect] = {}
    for entry in daemon.store.entries(0, 100_000):
        match entry.record:
            case StepStarted(operation=operation, round=round_, step=step):
                begun[operation, round_, step.number] = step.effect
            case StepEnded(operation=operation, round=round_, number=number):
                begun.pop((operation, round_, number), None)
    return [f"{describe(each)}: it has begun, and not ended" for each in begun.values()]


def done_while_paused(daemon: Daemon) -> list[str]:
    """What was begun unasked between `pause` and `resume`: starts of domains and requests are not."""
    unasked: set[UUID] = set()
    is_paused = False
    found = []
    for entry in daemon.store.entries(0, 100_000):
        match entry.record:
            case PauseSet(paused=is_paused):
                pass
            case OperationStarted(id=key, requester=requester) if requester == DAEMON:
                unasked.add(key)
                if is_paused:
                    found.append(f"{entry.record.kind} {entry.record.subject} began while paused")
            case StepStarted(operation=key, step=step) if is_paused and key in unasked:
                found.append(f"{describe(step.effect)}: begun unasked while paused")
    return found


def done_twice(history: History) -> list[str]:
    """Idempotency keys of more than one operation, and promised ones of which the log knows nothing."""
    started: dict[str, list[UUID]] = {}
    for entry in history.daemon.store.entries(0, 100_000):
        if isinstance(entry.record, OperationStarted) and entry.record.idempotency_key is not None:
            started.setdefault(entry.record.idempotency_key, []).append(entry.record.id)
    found = [f"{key} was done {len(each)} times" for key, each in started.items() if len(each) > 1]
    return found + [
        f"{key} was answered with {operation}, which the log does not have"
        for key, operation in history.promised.items()
        if started.get(key) != [operation]
    ]


def told_and_kept(daemon: Daemon) -> list[str]:
    """An operation's documents are in force when it has succeeded, and else those before it."""
    documents: dict[DocumentKey, Any] = {}
    new: dict[UUID, dict[DocumentKey, Any]] = {}
    started: dict[UUID, OperationStarted] = {}
    filling: dict[DocumentKey, Any] = {}
    found = []
    for entry in daemon.store.entries(0, 100_000):
        match entry.record:
            case WishPut(wish=wish):
                documents[wish.key] = filling[wish.key] = wish.document
            case WishDropped(key=key):
                documents.pop(key, None)
                filling[key] = None
            case OperationStarted(id=key):
                started[key] = entry.record
                filling = new[key] = {}
            case OperationRollingBack():
                filling = {}
            case OperationEnded(id=key, state=state):
                filling = {}
                operation = started[key]
                undone = {each: wish and wish.document for each, wish in operation.undo}
                is_kept = state is OperationState.SUCCEEDED or operation.forward
                wanted = new[key] if is_kept else undone
                if any(documents.get(each) != wanted[each] for each in undone):
                    found.append(
                        f"{operation.kind} {operation.subject} {state}, and its documents are not so"
                    )
            case _:
                filling = {}
    return found

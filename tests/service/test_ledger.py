"""What is kept in memory of operations that have ended."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.support.builders import NOW, make_gpu
from tests.support.world import WHO
from vgpuctl.model.record import OperationEnded, OperationStarted, OperationState, StepStarted
from vgpuctl.model.situation import identity_of
from vgpuctl.model.step import SetVfs, Step
from vgpuctl.service.ledger import ENDED_KEPT, STEPS_KEPT, Ledger

STEP = Step(number=1, effect=SetVfs(gpu=identity_of(make_gpu("l40s")), enabled=True), reason="")


def begun(ledger: Ledger, number: int) -> UUID:
    """An operation, which has begun."""
    key = UUID(int=number)
    ledger.fold(OperationStarted(id=key, kind="apply", subject="", requester=WHO, scope=(), undo=()), NOW)
    return key


def ended(ledger: Ledger, number: int, steps: int) -> UUID:
    """An operation of so many steps, which has ended."""
    key = begun(ledger, number)
    for _ in range(steps):
        ledger.fold(StepStarted(operation=key, round=1, step=STEP, boot_id=""), NOW)
    end(ledger, key)
    return key


def end(ledger: Ledger, key: UUID) -> None:
    """It ends well."""
    ledger.fold(OperationEnded(id=key, state=OperationState.SUCCEEDED, problem=None, result={}), NOW)


@pytest.mark.parametrize(("steps", "kept"), [(0, ENDED_KEPT), (STEPS_KEPT // 4, 4), (STEPS_KEPT + 1, 1)])
def test_the_newest_are_kept_as_far_as_their_steps_are_few(steps: int, kept: int) -> None:
    ledger = Ledger()
    under_way = begun(ledger, 0)
    keys = [ended(ledger, number, steps) for number in range(1, kept + 3)]
    assert list(ledger.operations) == [under_way, *keys[-kept:]]


def test_what_ended_last_is_kept_however_early_it_began() -> None:
    ledger = Ledger()
    early = begun(ledger, 0)
    ended(ledger, 1, STEPS_KEPT + 1)
    end(ledger, early)
    assert early in ledger.operations

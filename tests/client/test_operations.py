"""Operations: admitted once, and followed to their end whatever happens to the daemon."""

from __future__ import annotations

import threading

import pytest

from tests.cli import canned
from tests.cli.fakedaemon import FakeDaemon, Raw
from vgpuctl.client import operation as subject
from vgpuctl.client.client import Client
from vgpuctl.client.operation import failure_of, follow, has_ended, patiently, submit
from vgpuctl.errors import DaemonUnreachable, DeadlineExceeded, NameTaken, Unavailable, VgpuctlError

SUBMIT = ("POST", "/v1/operations")
SHOW = ("GET", f"/v1/operations/{canned.OPERATION_ID}")
RUNNING = canned.operation("running")
DONE = canned.operation()


@pytest.fixture(autouse=True)
def _no_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject.time, "sleep", lambda _seconds: None)


def test_a_lost_answer_is_asked_for_once_more_with_the_same_key(daemon: FakeDaemon) -> None:
    """The daemon may have admitted it: the key makes the second request find the first."""
    daemon.in_turn[SUBMIT] = [Raw(None), DONE]
    assert submit(Client(daemon.host), {"action": "adopt"}) == DONE
    first, second = daemon.calls(*SUBMIT)
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    submit(Client(daemon.host), {"action": "adopt"})
    assert daemon.calls(*SUBMIT)[2].headers["Idempotency-Key"] != first.headers["Idempotency-Key"]


def test_a_lost_answer_is_asked_for_until_the_daemon_is_back(daemon: FakeDaemon) -> None:
    """A restart takes longer than one question."""
    daemon.in_turn[SUBMIT] = [Raw(None), Raw(None), Raw(None), DONE]
    assert submit(Client(daemon.host), {"action": "adopt"}) == DONE
    assert len({each.headers["Idempotency-Key"] for each in daemon.calls(*SUBMIT)}) == 1


def test_a_daemon_that_stays_away_may_have_heard_it(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised in the end says so, and not only that none answers now."""
    monkeypatch.setattr(subject, "RESTART_GRACE_S", -1)
    daemon.answers[SUBMIT] = Raw(None)
    with pytest.raises(DaemonUnreachable) as caught:
        submit(Client(daemon.host), {})
    assert caught.value.facts.get("sent")
    assert "operation list" in (caught.value.hint or "")


def test_where_none_answers_to_begin_with_nobody_waits() -> None:
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        raise DaemonUnreachable("no daemon answers")

    with pytest.raises(DaemonUnreachable):
        patiently(ask)
    assert len(asked) == 1


def test_a_daemon_that_stops_is_not_the_last_one() -> None:
    """Between its SIGTERM and the next one's first answer."""
    answers: list[VgpuctlError | str] = [
        Unavailable("the daemon is stopping", stopping=True),
        DaemonUnreachable("nobody there"),
        "done",
    ]

    def ask() -> str:
        answer = answers.pop(0)
        if isinstance(answer, VgpuctlError):
            raise answer
        return answer

    assert patiently(ask) == "done"
    answers = [Unavailable("too many wait"), "done"]
    with pytest.raises(Unavailable, match="too many"):
        patiently(ask)


def test_a_refusal_is_not_asked_again(daemon: FakeDaemon) -> None:
    daemon.answers[SUBMIT] = NameTaken("there is one")
    with pytest.raises(NameTaken):
        submit(Client(daemon.host), {})
    assert len(daemon.requests) == 1


def test_follow_tells_each_state(daemon: FakeDaemon) -> None:
    undoing = canned.operation("rolling-back")
    failed = canned.operation("failed")
    daemon.in_turn[SHOW] = [RUNNING, undoing, failed]
    seen: list[str] = []
    ended = follow(Client(daemon.host), RUNNING, seen=lambda each: seen.append(each["state"]))
    assert ended == failed
    assert seen == ["running", "running", "rolling-back", "failed"]
    assert daemon.calls(*SHOW)[0].query == {"wait": "30"}


def test_follow_survives_a_restart_of_the_daemon(daemon: FakeDaemon) -> None:
    daemon.in_turn[SHOW] = [Raw(None), RUNNING, Raw(None), DONE]
    assert follow(Client(daemon.host), RUNNING) == DONE


def test_follow_gives_up_on_a_daemon_that_stays_away(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "RESTART_GRACE_S", -subject.LONG_POLL_S)
    daemon.answers[SHOW] = Raw(None)
    with pytest.raises(DaemonUnreachable):
        follow(Client(daemon.host), RUNNING)


def test_timeout(daemon: FakeDaemon) -> None:
    daemon.answers[SHOW] = RUNNING
    with pytest.raises(DeadlineExceeded) as caught:
        follow(Client(daemon.host), RUNNING, timeout_s=0.02)
    assert caught.value.facts == {"operation": canned.OPERATION_ID}


def test_waiting_for_the_turn_is_within_the_timeout(daemon: FakeDaemon) -> None:
    free = threading.Event()

    def late(_request: object) -> object:
        assert free.wait(30)
        return RUNNING

    daemon.answers["POST", "/v1/operations"] = late
    try:
        with pytest.raises(DeadlineExceeded, match="may still happen"):
            submit(Client(daemon.host), {"action": "adopt"}, timeout_s=0.05)
    finally:
        free.set()


def test_success_is_no_failure() -> None:
    assert has_ended(DONE)
    assert not has_ended(RUNNING)
    assert failure_of(DONE) is None


def test_a_failure_keeps_its_cause() -> None:
    problem = {"code": "kernel-refused", "detail": "EIO", "hint": "look at dmesg"}
    stopped = failure_of(canned.operation("needs-operator", steps_done=2, problem=problem))
    assert stopped is not None
    assert (stopped.code, stopped.hint, stopped.facts["cause"]) == (
        "needs-operator",
        "look at dmesg",
        problem,
    )


@pytest.mark.parametrize("code", ["kernel-refused", "rolled-back"])
def test_whether_anything_was_undone_is_what_the_daemon_says(code: str) -> None:
    """A repair is not: what it did stays, also when it failed."""
    problem = {"code": code, "detail": "EIO"}
    failure = failure_of(canned.operation("failed", steps_done=2, problem=problem))
    assert failure is not None
    assert (failure.code, failure.message) == (code, "EIO")

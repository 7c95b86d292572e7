"""Calls of which some hang."""

from __future__ import annotations

import threading

import pytest

from vgpuctl.host.watch import Call, Hanging, Watch, deadline_in


def answers(calls: dict[str, Call[str] | Hanging]) -> dict[str, str]:
    found = {}
    for key, call in calls.items():
        try:
            found[key] = str(call) if isinstance(call, Hanging) else call.result(deadline_in(0))
        except Hanging as error:
            found[key] = str(error)
    return found


def test_calls_that_answer_are_made_in_order_by_one_thread():
    threads: list[int] = []

    def ask(key: str) -> str:
        threads.append(threading.get_ident())
        return key

    keys = [f"GPU {number}" for number in range(8)]
    calls = Watch().each({key: lambda key=key: ask(key) for key in keys}, deadline_in(30))
    assert answers(calls) == {key: key for key in keys}
    assert len(set(threads)) == 1


def test_those_that_hang_hold_up_no_other_and_are_not_asked_again():
    watch, gate, asked = Watch(), threading.Event(), []

    def hang(key: str) -> str:
        asked.append(key)
        gate.wait()
        return key

    asks = {"a": lambda: hang("a"), "b": lambda: hang("b"), "c": lambda: "c"}
    assert answers(watch.each(asks, deadline_in(1))) == {
        "a": "a did not answer in time",
        "b": "b did not answer in time",
        "c": "c",
    }
    again = watch.each(asks, deadline_in(30))
    assert [isinstance(each, Hanging) for each in again.values()] == [True, True, False]
    assert asked == ["a", "b"]
    gate.set()


def test_what_was_not_begun_in_time_is_never_begun():
    watch, asked = Watch(), []
    calls = watch.each({"a": lambda: asked.append("a")}, deadline_in(-1))
    first = calls["a"]
    assert isinstance(first, Call)
    try:
        first.result(deadline_in(30))
    except Hanging:
        assert asked == []
    assert not first.hangs


def test_an_error_belongs_to_its_call():
    def fail() -> str:
        raise OSError(5, "no")

    calls = Watch().each({"a": fail, "b": lambda: "b"}, deadline_in(30))
    failed, well = calls.values()
    assert isinstance(failed, Call)
    assert isinstance(well, Call)
    with pytest.raises(OSError, match="no"):
        failed.result(deadline_in(0))
    assert well.result(deadline_in(0)) == "b"


def test_where_no_thread_is_to_be_had_it_is_asked_again_later(monkeypatch):
    """A call that never began must not pass for one that hangs, for ever."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    watch = Watch()
    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", refuse)
        with pytest.raises(Hanging, match="NVML could not be asked: can't start new thread"):
            watch.start("NVML", lambda: "driver")
        asks = {"GPU 1": lambda: "L40S"}
        assert answers(watch.each(asks, deadline_in(0.1))) == {"GPU 1": "GPU 1 was not asked in time"}
    assert watch.start("NVML", lambda: "driver").result(deadline_in(30)) == "driver"
    assert answers(watch.each(asks, deadline_in(30))) == {"GPU 1": "L40S"}

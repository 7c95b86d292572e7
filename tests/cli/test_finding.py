"""Problems and drift as people read them."""

from __future__ import annotations

from vgpuctl.cli.finding import gathered


def lost(name: str, gpu: str = "0000:41:00.0") -> dict[str, object]:
    return {"subject": name, "code": "gpu-not-found", "detail": f"the GPU of vGPU {name} ({gpu}) is gone"}


def test_the_same_of_many_is_said_once():
    (one,) = gathered([lost(f"desk-{number}") for number in range(1, 13)])
    assert one["subject"] == "desk-1 and 11 more"
    assert "desk-1 " in str(one["detail"])
    assert "steps" not in one


def test_few_are_named():
    (one,) = gathered([lost("desk-1"), lost("desk-10"), lost("b")])
    assert one["subject"] == "desk-1, desk-10, b"


def test_what_differs_stays_apart_and_in_its_order():
    rows = [lost("a"), lost("b", gpu="0000:61:00.0"), lost("c"), {**lost("d"), "hint": "look there"}]
    assert [each["subject"] for each in gathered(rows)] == ["a, c", "b", "d"]


def test_every_step_that_would_mend_is_kept():
    rows = [{**lost(name), "steps": [f"create vGPU {name}"]} for name in "ab"]
    (one,) = gathered(rows)
    assert one["steps"] == ["create vGPU a", "create vGPU b"]


def test_one_alone_is_as_it_is():
    row = lost("a")
    assert gathered([row]) == [row]

from __future__ import annotations

import threading

from vgpuctl.service.lanes import Lanes


def test_the_work_of_a_lane_is_done_in_its_order_by_one_thread():
    lanes, done, threads = Lanes(), threading.Event(), []
    order: list[int] = []

    def work(number: int) -> None:
        order.append(number)
        threads.append(threading.get_ident())

    for number in range(5):
        lanes.run("gpu/a", lambda number=number: work(number))
    lanes.run("gpu/a", done.set)
    assert done.wait(30)
    assert order == [0, 1, 2, 3, 4]
    assert len(set(threads)) == 1


def test_a_lane_that_hangs_holds_up_no_other():
    lanes, gate, done = Lanes(), threading.Event(), threading.Event()
    lanes.run("gpu/a", gate.wait)
    lanes.run("gpu/b", done.set)
    assert done.wait(30)
    gate.set()


def test_a_lane_without_work_keeps_no_thread_and_begins_anew():
    lanes = Lanes(linger_s=0.01)
    for _ in range(3):
        found: list[threading.Thread] = []
        done = threading.Event()
        lanes.run("gpu/a", lambda found=found: found.append(threading.current_thread()))
        lanes.run("gpu/a", done.set)
        assert done.wait(30)
        found[0].join(30)
        assert not found[0].is_alive()

from __future__ import annotations

import threading

from vgpuctl.service.threads import Threads


def test_one_thread_does_what_comes_one_after_the_other():
    threads, seen = Threads(), []
    for _ in range(5):
        done = threading.Event()
        threads.run("gpu", lambda done=done: (seen.append(threading.current_thread()), done.set()))
        assert done.wait(30)
        while not threads._idle:
            pass
    assert len(set(seen)) == 1


def test_work_that_hangs_holds_up_none():
    threads, gate, done = Threads(), threading.Event(), threading.Event()
    threads.run("gpu", gate.wait)
    threads.run("gpu", done.set)
    assert done.wait(30)
    gate.set()


def test_a_thread_without_work_ends_and_another_begins():
    threads, found = Threads(linger_s=0.01), []
    for _ in range(3):
        done = threading.Event()
        threads.run("gpu", lambda done=done: (found.append(threading.current_thread()), done.set()))
        assert done.wait(30)
        found[-1].join(30)
        assert not found[-1].is_alive()

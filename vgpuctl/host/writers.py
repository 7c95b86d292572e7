"""Processes that write to sysfs for us, one write each at a time, and can be abandoned in it.

A write may block in the kernel for ever (mdev `remove` waits uninterruptibly for the last user,
hardware.md 1.6).  Starting a process costs more than most writes, so one that has written waits for the
next; it ends when we close its pipe, or end ourselves.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import subprocess
import threading
import time
from pathlib import Path
from typing import Final

from vgpuctl.host import helper

IDLE_KEPT: Final = 8
"""A restore writes to as many GPUs at once; each idle process has 3 MiB of its own."""
_ANSWER_MAX: Final = 16
_PAUSE_S: Final = 0.05


class Writers:
    """Writes by processes that hold none of our descriptors; any thread may ask.

    `lock` is a file of which each has a share while it writes; where its directory is missing none has.
    """

    def __init__(self, lock: Path) -> None:
        self._lock_file = lock
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._writing: dict[str, subprocess.Popen[bytes] | None] = {}
        self._is_closed = False

    def write(self, path: str, text: str, timeout_s: float) -> None:
        """Give all of `text` to the file at `path` in one go.

        Raises OSError with the errno that the process met, TimeoutError after `timeout_s`; at once while
        an earlier write to that file is still in the kernel, so that a sick driver does not collect
        processes.
        """
        deadline = time.monotonic() + timeout_s
        process = self._begin(path, text)
        try:
            answer = _answer(process, deadline)
        except TimeoutError:
            helper.abandon(process)  # and it stays in _writing, until it ends
            raise TimeoutError(errno.ETIMEDOUT, f"not done within {timeout_s:g} s", path) from None
        except BaseException:
            helper.abandon(process)
            raise
        self._end(path, process, is_usable=answer is not None)
        if answer is None:
            raise OSError(errno.ECHILD, "the process that wrote ended without an answer", path)
        if answer:
            raise OSError(answer, os.strerror(answer), path)

    def wait_for_earlier(self, timeout_s: float) -> bool:
        """Wait until nothing is written any more that a killed daemon had begun; whether that is so.

        It would else appear after we have looked, as somebody else's.
        """
        deadline = time.monotonic() + timeout_s
        try:
            descriptor = os.open(self._lock_file, os.O_RDWR)
        except OSError:
            return True  # nobody has written yet
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        return False
                    time.sleep(_PAUSE_S)
                else:
                    return True
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """End the processes that wait for work, now and after their write."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            helper.abandon(process)

    def _begin(self, path: str, text: str) -> subprocess.Popen[bytes]:
        """A process that has been told to write."""
        with self._lock:
            for ended in [
                each for each, process in self._writing.items() if process and process.poll() is not None
            ]:
                del self._writing[ended]
            if path in self._writing:
                earlier = self._writing[path]
                who = f"pid {earlier.pid}" if earlier else "just beginning"
                raise TimeoutError(errno.ETIMEDOUT, f"an earlier write ({who}) has not returned", path)
            self._writing[path] = None
        try:
            process = self._told(_request(path, text))
        except BaseException:
            with self._lock:
                del self._writing[path]
            raise
        with self._lock:
            self._writing[path] = process
        return process

    def _told(self, request: bytes) -> subprocess.Popen[bytes]:
        while True:
            with self._lock:
                waiting = self._idle.pop() if self._idle else None
            process = waiting or helper.start(helper.script("writer.py", str(self._lock_file)))
            try:
                _send(process, request)
            except BrokenPipeError:
                if waiting is not None:
                    helper.abandon(process)  # somebody killed it while it waited
                    continue
                # That a new one ended, its missing answer will tell.
            return process

    def _end(self, path: str, process: subprocess.Popen[bytes], *, is_usable: bool) -> None:
        with self._lock:
            # Of one that was killed somebody else may have taken note, and be writing there by now.
            if self._writing.get(path) is process:
                del self._writing[path]
            if is_usable and not self._is_closed and len(self._idle) < IDLE_KEPT:
                self._idle.append(process)
                return
        helper.abandon(process)


def _request(path: str, text: str) -> bytes:
    """Two lengths in a line, then path and text."""
    where, what = os.fsencode(path), os.fsencode(text)
    return b"%d %d\n%b%b" % (len(where), len(what), where, what)


def _send(process: subprocess.Popen[bytes], request: bytes) -> None:
    assert process.stdin is not None
    view = memoryview(request)
    while view:
        view = view[process.stdin.write(view) :]


def _answer(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    """The errno that it answers, 0 for none; None when it ended instead.  Raises TimeoutError."""
    assert process.stdout is not None
    answers = process.stdout.fileno()
    poller = select.poll()
    poller.register(answers, select.POLLIN)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError
    text = os.read(answers, _ANSWER_MAX)
    return int(text) if text.strip().isdigit() else None

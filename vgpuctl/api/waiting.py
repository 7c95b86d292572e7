"""Requests that wait: each holds a thread of the server, so they are counted and can be called off."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from vgpuctl.errors import Unavailable, VgpuctlError

_SLICE_S = 1.0

_log = structlog.get_logger("vgpuctl.api")


class Waiting:
    """How many requests may wait or stream at once, and the sign for all of them to end."""

    def __init__(self, *, waits: int = 24, streams: int = 16, heartbeat_s: float = 15.0) -> None:
        self.heartbeat_s = heartbeat_s
        self._waits = threading.BoundedSemaphore(waits)
        self._streams = threading.BoundedSemaphore(streams)
        self._max_streams = streams
        self._ending = threading.Event()

    @property
    def is_ending(self) -> bool:
        """Whether the server is about to stop."""
        return self._ending.is_set()

    def end(self) -> None:
        """Let every waiting request answer with what it has."""
        self._ending.set()

    def until(self, timeout_s: float, ask: Callable[[float], tuple[Any, bool]]) -> tuple[Any, bool]:
        """Call `ask(seconds)` until it says that it is done, or the time is up; at least once.

        With too many waiting already, it asks once and does not wait.
        """
        if timeout_s <= 0 or self.is_ending or not self._waits.acquire(blocking=False):
            return ask(0.0)
        try:
            deadline = time.monotonic() + timeout_s
            while True:
                left_s = deadline - time.monotonic()
                answer, done = ask(max(0.0, min(left_s, _SLICE_S)))
                if done or left_s <= _SLICE_S or self.is_ending:
                    return answer, done
        finally:
            self._waits.release()

    def stream(self, first: list[dict[str, Any]], since: int, more: _More) -> EventStream:
        """An NDJSON stream that begins with `first`; Unavailable when too many are open."""
        if not self._streams.acquire(blocking=False):
            raise Unavailable(
                f"{self._max_streams} event streams are open already",
                hint="ask with since= and wait= instead of follow=1",
                limit=self._max_streams,
            )
        return EventStream(first, since, more, self, self._streams.release)


_More = Callable[[int, float], list[dict[str, Any]]]


class EventStream:
    """The body of a followed event log, one JSON object a line.

    A blank line goes out now and then when there is no event: writing is how a client that left is noticed.
    """

    def __init__(
        self,
        first: list[dict[str, Any]],
        since: int,
        more: _More,
        waiting: Waiting,
        release: Callable[[], None],
    ) -> None:
        self._first = first
        self._since = since
        self._more = more
        self._waiting = waiting
        self._release = release
        self._open = True
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._chunks()
        finally:
            self.close()

    def close(self) -> None:
        """Give the place back; the server calls it however the response ends."""
        with self._lock:
            was_open, self._open = self._open, False
        if was_open:
            self._release()

    def _chunks(self) -> Iterator[bytes]:
        # The first byte makes the server send the headers: the client knows that it is connected.
        yield self._lines(self._first) or b"\n"
        written = time.monotonic()
        while not self._waiting.is_ending:
            try:
                entries = self._more(self._since, _SLICE_S)
            except VgpuctlError as error:
                # Fell behind the log's retention, or the service stopped: the client asks again.
                _log.info("event stream ends", code=error.code, reason=error.message)
                return
            if entries or time.monotonic() - written >= self._waiting.heartbeat_s:
                yield self._lines(entries) or b"\n"
                written = time.monotonic()

    def _lines(self, entries: list[dict[str, Any]]) -> bytes:
        if entries:
            self._since = max(entry["revision"] for entry in entries)
        return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)

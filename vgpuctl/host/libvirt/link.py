"""A connection to libvirt that has a deadline for everything and comes back by itself.

`libvirt.open` on a mute socket blocks for ever, and so does every call to a libvirtd that hangs.
Hence one thread opens, and opens again (a hung attempt is waited for by nobody else), and every call
runs in a thread of its own, which is abandoned at its deadline together with its connection; libvirt's
keepalive ends it some time later.  Only then is that connection closed: libvirt frees it at once, under
the feet of a call that is still in it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import libvirt
import structlog
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)

from vgpuctl.errors import DeadlineExceeded, VgpuctlError
from vgpuctl.host.libvirt import event_loop, refusals

T = TypeVar("T")

_log = structlog.get_logger(__name__)

_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_COUNT = 3
_BACKOFF_MAX_S = 5.0
_HUNG_CALLS_MAX = 16
_GOODBYE_S = 2.0
_NOT_AWAITED = "it is not up yet"


@dataclass(slots=True, eq=False)
class _Open:
    """An open connection, its event callbacks' numbers, and how many threads are in it."""

    connection: Any
    callbacks: tuple[int, ...] = ()
    users: int = 1


class _Call(Generic[T]):
    """One call in a thread of its own."""

    def __init__(self, work: Callable[[Any], T], connection: Any) -> None:
        self._work = work
        self._connection = connection
        self.done = threading.Event()
        self.is_abandoned = False
        self.result: T
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do the work; what it raises is kept."""
        try:
            self.result = self._work(self._connection)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self.error = error


class Link:
    """The one connection to `uri`.

    `opened` gets each new connection before anybody may call it, may call libvirt, and returns the
    numbers of the event callbacks that it registered.  `changed` is told whether libvirt is there now,
    and must not call it.  Where it is not `awaited`, the first attempt is waited for by nobody until
    `await_first` is called.
    """

    def __init__(
        self,
        uri: str,
        *,
        opened: Callable[[Any], tuple[int, ...]],
        changed: Callable[[bool], None],
        open_connection: Callable[[str], Any] = libvirt.open,
        awaited: bool = True,
    ) -> None:
        self.uri = uri
        self._opened = opened
        self._tell = changed
        self._open_connection = open_connection
        self._changed = threading.Condition()
        self._open: _Open | None = None
        self._problem: str | None = None if awaited else _NOT_AWAITED
        self._hung = 0
        self._closing = threading.Event()
        refusals.silence()
        event_loop.ensure_running()
        threading.Thread(target=self._keep, name="libvirt-link", daemon=True).start()

    def call(self, doing: str, work: Callable[[Any], T], timeout_s: float, *, changes: bool = False) -> T:
        """What `work` returns for the connection; libvirt's errors become vgpuctl's.

        No answer in time is LibvirtUnreachable, and DeadlineExceeded for a call that `changes`
        something, since it may still happen.
        """
        is_open = self._enter(timeout_s)
        call = _Call(work, is_open.connection)
        thread = threading.Thread(target=self._run, args=(call, is_open), name="libvirt-call", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._leave(is_open)
            raise refusals.unreachable(self.uri, f"{doing}: {error}") from error
        if not call.done.wait(timeout_s) and self._abandon(call):
            self._drop(is_open, f"{doing}: no answer within {timeout_s:g} s")
            raise self._no_answer(doing, timeout_s, changes=changes)
        if isinstance(call.error, libvirt.libvirtError):
            if refusals.is_connection_lost(call.error):
                self._drop(is_open, refusals.text(call.error))
            raise refusals.refusal(call.error, self.uri, doing) from call.error
        if call.error is not None:
            raise call.error
        return call.result

    def await_first(self) -> None:
        """From now on whoever calls waits for the first attempt, unless it has failed."""
        with self._changed:
            if self._problem == _NOT_AWAITED:
                self._problem = None

    def close(self) -> None:
        """Let go, for good; waits a moment for libvirt to say goodbye."""
        self._closing.set()
        with self._changed:
            is_open, self._open = self._open, None
            self._changed.notify_all()
        if is_open is not None:
            self._bury(is_open).wait(_GOODBYE_S)

    def _enter(self, timeout_s: float) -> _Open:
        """The open connection, with one user more; waits for an attempt, not for one that failed."""
        with self._changed:
            if self._hung >= _HUNG_CALLS_MAX:
                raise refusals.unreachable(self.uri, f"{self._hung} calls hang in it")
            self._changed.wait_for(
                lambda: self._open is not None or self._problem is not None or self._closing.is_set(),
                timeout_s,
            )
            if self._closing.is_set():
                raise refusals.unreachable(self.uri, "this connection was closed")
            if self._open is None:
                self._problem = self._problem or f"no answer within {timeout_s:g} s"
                raise refusals.unreachable(self.uri, self._problem)
            self._open.users += 1
            return self._open

    def _leave(self, is_open: _Open) -> None:
        with self._changed:
            is_open.users -= 1
            self._changed.notify_all()

    def _run(self, call: _Call[T], is_open: _Open) -> None:
        call.run()
        self._leave(is_open)
        with self._changed:
            call.done.set()
            if call.is_abandoned:
                self._hung -= 1

    def _abandon(self, call: _Call[T]) -> bool:
        """Give up waiting for `call`; False when it has just ended."""
        with self._changed:
            if call.done.is_set():
                return False
            call.is_abandoned = True
            self._hung += 1
            return True

    def _no_answer(self, doing: str, timeout_s: float, *, changes: bool) -> VgpuctlError:
        if not changes:
            return refusals.unreachable(self.uri, f"{doing} took more than {timeout_s:g} s")
        return DeadlineExceeded(
            f"{doing}: libvirt at {self.uri} did not answer within {timeout_s:g} s",
            hint="It may still happen: look at the domain before trying again.",
            uri=self.uri,
        )

    def _drop(self, is_open: _Open, reason: str) -> None:
        """Give a connection up, unless somebody did so before."""
        with self._changed:
            if self._open is not is_open:
                return
            self._open = None
            self._problem = None
            self._changed.notify_all()
        _log.warning("libvirt is gone", uri=self.uri, reason=reason)
        self._bury(is_open)
        self._tell(False)

    def _keep(self) -> None:
        """Open the connection, and again whenever it was lost."""
        while not self._closing.is_set():
            try:
                is_open = self._attempts()(self._attempt)
            except libvirt.libvirtError:
                return
            with self._changed:
                if self._closing.is_set():
                    self._leave(is_open)
                    self._bury(is_open)
                    return
                self._open, self._problem = is_open, None
                self._changed.notify_all()
            self._tell(True)
            if not _is_alive(is_open.connection):
                self._drop(is_open, "the connection was closed")
            self._leave(is_open)
            with self._changed:
                self._changed.wait_for(lambda: self._open is not is_open)  # noqa: B023

    def _attempts(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception_type(libvirt.libvirtError),
            wait=wait_exponential(multiplier=0.1, max=_BACKOFF_MAX_S) + wait_random(0, 0.1),
            stop=stop_when_event_set(self._closing),
            sleep=sleep_using_event(self._closing),
            before_sleep=self._note_failure,
            reraise=True,
        )

    def _note_failure(self, state: RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        with self._changed:
            self._problem = str(error) or "the connection failed"
            self._changed.notify_all()

    def _attempt(self) -> _Open:
        connection = self._open_connection(self.uri)
        is_open = _Open(connection)
        try:
            # Drivers in this process (test, embed) know neither; they have no socket to lose.
            with contextlib.suppress(libvirt.libvirtError):
                connection.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
            with contextlib.suppress(libvirt.libvirtError):
                connection.registerCloseCallback(self._on_close, None)
            is_open.callbacks = self._opened(connection)
        except libvirt.libvirtError:
            self._leave(is_open)
            self._bury(is_open)
            raise
        return is_open

    def _on_close(self, connection: Any, reason: int, _opaque: object) -> None:
        is_open = self._open
        if is_open is not None and is_open.connection is connection:
            self._drop(is_open, _CLOSE_REASONS.get(reason, "the connection broke"))

    def _bury(self, is_open: _Open) -> threading.Event:
        """Close a connection when nobody is in it, in a thread: closing asks the server and may hang, too.

        The thread holds a reference, so that no other thread drops the last one and closes by that.
        """
        over = threading.Event()

        def close() -> None:
            with self._changed:
                self._changed.wait_for(lambda: is_open.users == 0)
            for callback in is_open.callbacks:
                with contextlib.suppress(libvirt.libvirtError):
                    is_open.connection.domainEventDeregisterAny(callback)
            with contextlib.suppress(libvirt.libvirtError):
                is_open.connection.unregisterCloseCallback()
            with contextlib.suppress(libvirt.libvirtError):
                is_open.connection.close()
            over.set()

        try:
            threading.Thread(target=close, name="libvirt-goodbye", daemon=True).start()
        except RuntimeError as error:
            _log.warning("a connection to libvirt is left open", uri=self.uri, reason=str(error))
            over.set()
        return over


_CLOSE_REASONS = {
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "libvirt closed the connection",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "keepalive had no answer",
}


def _is_alive(connection: Any) -> bool:
    """Whether the socket is there; asks nobody."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False

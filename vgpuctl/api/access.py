"""Who may do what: local callers are known by SO_PEERCRED, their rights follow from their groups."""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vgpuctl.errors import Denied
from vgpuctl.model.record import Requester

OPERATE_GROUP = "vgpuctl"
READ_GROUP = "vgpuctl-ro"
_REMEMBER_S = 5.0
_REMEMBER_MAX = 256


class Role(StrEnum):
    """What a caller may do.  Operating is equivalent to root on the host."""

    OPERATE = "operate"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may."""

    requester: Requester
    role: Role


@dataclass(frozen=True, slots=True)
class Account:
    """A local user: the name, and the names of the groups that the user is in."""

    name: str
    groups: frozenset[str]


def local_account(uid: int, gid: int) -> Account:
    """The account of `uid` from the name service; `gid` (of the connection) counts as well.

    SO_PEERCRED carries the primary group only, hence the look-up.
    """
    gids = {gid}
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        name = str(uid)
    else:
        name = entry.pw_name
        gids.update(_group_list(entry.pw_name, entry.pw_gid))
    names = set()
    for each in gids:
        try:
            names.add(grp.getgrgid(each).gr_name)
        except KeyError:
            continue
    return Account(name, frozenset(names))


def _group_list(name: str, gid: int) -> list[int]:
    """getgrouplist(3).

    `os.getgrouplist` keeps the interpreter's lock, and with it every other thread, until a name service
    answers; ctypes lets go of it.
    """
    ask = ctypes.CDLL(None).getgrouplist
    count = ctypes.c_int(64)
    while True:
        room = count.value
        gids = (ctypes.c_uint32 * room)()
        if ask(os.fsencode(name), ctypes.c_uint32(gid), gids, ctypes.byref(count)) >= 0:
            return gids[: count.value]
        count.value = max(count.value, 2 * room)


class Access:
    """Roles of callers.  Root and `own_uid` (the daemon's user) operate; groups decide for the others."""

    def __init__(
        self,
        *,
        own_uid: int | None = None,
        account: Callable[[int, int], Account] = local_account,
    ) -> None:
        self._own_uid = os.geteuid() if own_uid is None else own_uid
        self._account = account
        self._known: dict[tuple[int, int], tuple[float, Account]] = {}
        self._lock = threading.Lock()

    def identify(self, environ: Mapping[str, Any]) -> Caller:
        """The caller of a WSGI request; Denied without credentials or without a role."""
        try:
            pid, uid, gid = (int(environ[f"X_REMOTE_{each}"]) for each in ("PID", "UID", "GID"))
        except (KeyError, ValueError):
            raise Denied(
                "the connection carries no credentials",
                hint="connect to the daemon's unix socket on the same host",
            ) from None
        account = self._lookup(uid, gid)
        requester = Requester(uid=uid, pid=pid, name=account.name)
        if uid in (0, self._own_uid) or OPERATE_GROUP in account.groups:
            return Caller(requester, Role.OPERATE)
        if READ_GROUP in account.groups:
            return Caller(requester, Role.READ)
        raise Denied(
            f"user {account.name} may not use vgpuctl",
            hint=f"become a member of group {OPERATE_GROUP} (operate) or {READ_GROUP} (read)",
            uid=uid,
        )

    def _lookup(self, uid: int, gid: int) -> Account:
        """The account, remembered for a few seconds: a name service may be a slow network service."""
        now = time.monotonic()
        with self._lock:
            known = self._known.get((uid, gid))
            if known is not None and known[0] > now:
                return known[1]
        account = self._account(uid, gid)
        with self._lock:
            if len(self._known) >= _REMEMBER_MAX:
                self._known.clear()
            self._known[uid, gid] = (now + _REMEMBER_S, account)
        return account


def require_operate(caller: Caller) -> None:
    """Denied unless `caller` may change something."""
    if caller.role is not Role.OPERATE:
        raise Denied(
            f"user {caller.requester.name} may only read",
            hint=f"changes are for root and members of group {OPERATE_GROUP}",
            uid=caller.requester.uid,
        )

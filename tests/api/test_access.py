"""Who may do what."""

from __future__ import annotations

import os
import pwd

import pytest

from vgpuctl.api.access import Access, Account, Role, local_account
from vgpuctl.errors import Denied


def environ(uid: int, gid: int = 100) -> dict[str, str]:
    return {"X_REMOTE_PID": "7", "X_REMOTE_UID": str(uid), "X_REMOTE_GID": str(gid)}


def access(*groups: str, own_uid: int = 990) -> Access:
    return Access(own_uid=own_uid, account=lambda uid, _gid: Account(f"user{uid}", frozenset(groups)))


@pytest.mark.parametrize(
    ("uid", "groups", "role"),
    [
        (0, (), Role.OPERATE),
        (990, (), Role.OPERATE),
        (1000, ("users", "vgpuctl"), Role.OPERATE),
        (1000, ("vgpuctl", "vgpuctl-ro"), Role.OPERATE),
        (1000, ("vgpuctl-ro",), Role.READ),
    ],
)
def test_roles_follow_from_uid_and_groups(uid: int, groups: tuple[str, ...], role: Role) -> None:
    caller = access(*groups).identify(environ(uid))
    assert caller.role is role
    assert (caller.requester.uid, caller.requester.pid, caller.requester.name) == (uid, 7, f"user{uid}")


@pytest.mark.parametrize("groups", [(), ("users",), ("vgpuctl-rw", "Vgpuctl", "libvirt")])
def test_everybody_else_is_denied(groups: tuple[str, ...]) -> None:
    with pytest.raises(Denied, match="user1000"):
        access(*groups).identify(environ(1000))


@pytest.mark.parametrize("missing", ["X_REMOTE_PID", "X_REMOTE_UID", "X_REMOTE_GID"])
def test_missing_credentials_are_denied(missing: str) -> None:
    partial = environ(0)
    del partial[missing]
    with pytest.raises(Denied, match="no credentials"):
        access().identify(partial)


def test_an_account_of_this_machine() -> None:
    mine = local_account(os.getuid(), os.getgid())
    assert mine.name == pwd.getpwuid(os.getuid()).pw_name
    assert "root" in local_account(0, 0).groups
    # SO_PEERCRED's own group counts as well: after newgrp it is not the one of the user database.
    assert "daemon" in local_account(0, 1).groups


def test_a_uid_without_an_account_is_known_by_its_number() -> None:
    assert local_account(987654, 987654) == Account("987654", frozenset())


def test_the_name_service_is_not_asked_for_every_request() -> None:
    asked: list[tuple[int, int]] = []

    def account(uid: int, gid: int) -> Account:
        asked.append((uid, gid))
        return Account("x", frozenset({"vgpuctl"}))

    careful = Access(own_uid=0, account=account)
    for gid in (1, 1, 2):
        careful.identify(environ(1000, gid))
    assert asked == [(1000, 1), (1000, 2)]

"""Who may do what."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vgpuctl.api.access import Access, Account, Role, _group_list, local_account
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


def test_groups_are_those_of_the_name_service() -> None:
    for entry in pwd.getpwall():
        gids = os.getgrouplist(entry.pw_name, entry.pw_gid)
        assert set(_group_list(entry.pw_name, entry.pw_gid)) == set(gids)


_SLOW_NAME_SERVICE = """
#include <unistd.h>
#include <grp.h>
int getgrouplist(const char *user, gid_t group, gid_t *groups, int *count)
{
    sleep(2);
    groups[0] = group;
    return *count = 1;
}
"""
_TURNS_MEANWHILE = """
import threading, time
from vgpuctl.api.access import local_account
asking = threading.Thread(target=local_account, args=(0, 0))
asking.start()
turns = 0
while asking.is_alive():
    time.sleep(0.01)
    turns += 1
print(turns)
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_slow_name_service_holds_up_no_other_thread(tmp_path: Path) -> None:
    """Above all not the decision loop, the watchdog, and the answers to libvirt's hook."""
    (tmp_path / "slow.c").write_text(_SLOW_NAME_SERVICE)
    library = tmp_path / "slow.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "slow.c"], check=True)
    told = subprocess.run(
        [sys.executable, "-c", _TURNS_MEANWHILE],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert int(told.stdout) > 5


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

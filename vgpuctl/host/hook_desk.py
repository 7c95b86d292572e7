"""The directory in which the daemon and libvirt's hook leave files for each other.

sock            the daemon listens here for the hook alone
nonce, seen     the daemon's nonce, and the one that the hook read when it was last called
book            which vGPUs are ours, for a hook that finds no daemon
starts/<uuid>   the token of a domain's start, from the hook's first call to its last
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from vgpuctl.errors import Conflict
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.fact import Fact, Unknown
from vgpuctl.model.gpu import FrameworkKind
from vgpuctl.model.start import HookLife, HookState
from vgpuctl.ports.hypervisor import DomainEvent, DomainEventKind

_START_OVER_S = 120.0
"""A start has a hold, or is refused, well before this."""
HOOK_FILE = Path("etc/libvirt/hooks/qemu.d/vgpuctl")

_log = structlog.get_logger("vgpuctl.hook")


class HookFiles:
    """The desk as files; only root can read them."""

    def __init__(self, directory: Path, root: Path = Path("/")) -> None:
        directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        _make_ours(directory)
        self._directory = directory
        self._hook = root / HOOK_FILE
        self._nonce = ""
        self._book = ""
        self._uncalled: str | None = None
        self.renew()

    @property
    def socket(self) -> Path:
        """Where the daemon listens for the hook."""
        return self._directory / "sock"

    def hear(self, event: DomainEvent) -> None:
        """Take note of what libvirt says: it has started anew, or it has started a domain."""
        if event.kind is DomainEventKind.CONNECTED:
            self.renew()
        elif event.kind is DomainEventKind.STARTED and not self._is_seen():
            self._uncalled = event.domain

    def renew(self) -> None:
        """Whatever was called before, does not say what this libvirt calls."""
        self._nonce, self._uncalled = secrets.token_hex(16), None
        self._write("nonce", self._nonce)

    def state(self) -> HookState:
        """Whether libvirt calls the hook."""
        path = str(self._hook)
        if self._is_seen():
            return HookState(HookLife.LIVE, path)
        if not os.access(self._hook, os.X_OK):
            return HookState(HookLife.NOT_INSTALLED, path)
        if self._uncalled is not None:
            return HookState(HookLife.NOT_CALLED, path, self._uncalled)
        return HookState(HookLife.UNSEEN, path)

    def starts(self) -> Fact[Mapping[UUID, str]]:
        """The tokens of the starts whose end the hook has not noted."""
        found: dict[UUID, str] = {}
        try:
            for path in (self._directory / "starts").iterdir():
                try:
                    found[UUID(path.name)] = str(json.loads(path.read_text(encoding="utf-8"))["token"])
                except (ValueError, LookupError, TypeError, FileNotFoundError):
                    continue  # half written, or gone meanwhile
        except FileNotFoundError:
            return {}
        except OSError as error:
            return Unknown(f"{error.filename}: {error.strerror}")
        return found

    def publish(self, boot_id: str, allocations: Iterable[Allocation]) -> None:
        """Write down which vGPUs are ours."""
        vgpus: dict[str, Any] = {}
        tokens: set[str] = set()
        for each in allocations:
            if each.hold is not None:
                tokens.add(each.hold.token)
            is_on_vf = each.framework is FrameworkKind.VENDOR_VFIO
            is_made = each.created_boot == boot_id and not each.lost
            vgpus[str(each.id)] = {
                "type_id": each.type_id,
                "vf": str(each.parent) if is_on_vf and is_made else None,
            }
        book = json.dumps({"boot_id": boot_id, "vgpus": vgpus})
        is_there = (self._directory / "book").exists()
        if not (is_there and book == self._book) and self._write("book", book):
            self._book = book
        self._forget_all_but(tokens)

    def _forget_all_but(self, tokens: set[str]) -> None:
        """Drop the notes of starts that are over although the hook was not called at their end."""
        starts = self.starts()
        if isinstance(starts, Unknown):
            return
        for domain, token in starts.items():
            note = self._directory / "starts" / str(domain)
            try:
                if token not in tokens and time.time() - note.stat().st_mtime > _START_OVER_S:
                    note.unlink()
            except OSError:
                continue  # the hook was faster

    def _is_seen(self) -> bool:
        try:
            return (self._directory / "seen").read_text(encoding="utf-8").strip() == self._nonce
        except OSError:
            return False

    def _write(self, name: str, text: str) -> bool:
        beside = self._directory / f".{name}"
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(self._directory / name)
        except OSError as error:
            _log.warning("the hook cannot be told", file=name, reason=str(error))
            return False
        return True


def _make_ours(directory: Path) -> None:
    """Let nobody else in; raises Conflict for what is a link, or somebody else's."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise Conflict(
            f"{directory} is not a directory of ours", hint="see who put it there, and take it away"
        )
    directory.chmod(0o700)

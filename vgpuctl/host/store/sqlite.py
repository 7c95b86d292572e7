"""The Store port on SQLite: one writer, readers that never wait for it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

from vgpuctl.errors import RevisionGone, StoreFailure
from vgpuctl.host.store.codec import entry_of, row_of, text_of
from vgpuctl.host.store.schema import migrate, way_back
from vgpuctl.model import codec
from vgpuctl.model.allocation import Allocation
from vgpuctl.model.document import Wish
from vgpuctl.model.finding import Finding
from vgpuctl.model.record import (
    AllocationDropped,
    AllocationPut,
    DriftFound,
    DriftGone,
    LogEntry,
    OperationEnded,
    OperationRollingBack,
    OperationStarted,
    PauseSet,
    Record,
    StepEnded,
    StepStarted,
    WishDropped,
    WishPut,
)
from vgpuctl.ports.store import Saved

KEEP_ENTRIES = 100_000
"""How many of the newest entries the log keeps."""

_BUSY_TIMEOUT_S = 5.0


class SqliteStore:
    """A Store in one file; the file is 0600, and its directory, when made here, 0700.

    WAL with synchronous=FULL: one commit is one transaction, and one fsync of the WAL, however many
    records it holds.  Checkpoints, some every thousand pages, add theirs.  After an I/O error in that
    very fsync it cannot be known what a crash would leave; until the next commit it may be the records.
    """

    def __init__(self, path: Path, *, keep: int = KEEP_ENTRIES) -> None:
        """Open or make the store at `path`; raises StoreFailure for one that cannot be used."""
        self._path = path
        self._keep = keep
        self._lock = Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        with self._failing("opened"):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            path.chmod(0o600)
            self._writer = self._connect()
            try:
                migrate(self._writer, path)
                self._use_wal()
            except BaseException:
                self._writer.close()
                raise

    def load(self) -> Saved:
        """The state as of the last commit; StoreFailure where this version cannot read all of it."""
        with self._reading() as db:
            wishes = [_read(each, Wish) for each in db.execute("SELECT body FROM wishes")]
            allocations = [_read(each, Allocation) for each in db.execute("SELECT body FROM allocations")]
            findings = [_read(each, Finding) for each in db.execute("SELECT body FROM findings")]
            unended = db.execute(
                "SELECT revision, at, kind, subject, body FROM log WHERE operation IN"
                " (SELECT id FROM operations WHERE ended_revision IS NULL) ORDER BY revision"
            )
            return Saved(
                revision=db.execute("SELECT coalesce(max(revision), 0) FROM log").fetchone()[0],
                paused=bool(_meta(db, "paused")),
                wishes={each.key: each for each in wishes},
                allocations={each.id: each for each in allocations},
                findings={each.key: each for each in findings},
                # Recovery has to know what was asked for; of the rest it can do without what it cannot read
                unended=tuple(entry_of(each, strict=each[2] == "operation-started") for each in unended),
            )

    def commit(self, records: Iterable[Record], at: datetime) -> int:
        """Append all records, or none; they are on the disk when this returns the last revision."""
        rows = [(record, row_of(record)) for record in records]
        time = text_of(at)
        with self._writing() as db:
            revision: int = db.execute("SELECT coalesce(max(revision), 0) FROM log").fetchone()[0]
            for record, row in rows:
                cursor = db.execute(
                    "INSERT INTO log (at, kind, operation, subject, body) VALUES (?, ?, ?, ?, ?)",
                    (time, row.kind, row.operation, row.subject, row.body),
                )
                revision = cursor.lastrowid or revision
                _project(db, revision, record)
            _prune(db, revision, self._keep)
        return revision

    def entries(self, since: int, limit: int = 1000) -> tuple[LogEntry, ...]:
        """The entries above revision `since`; raises RevisionGone when those were pruned."""
        with self._reading() as db:
            pruned_to = _meta(db, "pruned_to")
            if since < pruned_to:
                raise RevisionGone(
                    f"the log begins after revision {pruned_to}, and {since} was asked for",
                    hint="Read the state anew, then follow the log from the revision that it shows.",
                    oldest=pruned_to,
                )
            rows = db.execute(
                "SELECT revision, at, kind, subject, body FROM log WHERE revision > ?"
                " ORDER BY revision LIMIT ?",
                (since, limit),
            )
            return tuple(entry_of(each) for each in rows)

    def operation_entries(self, operation: UUID) -> tuple[LogEntry, ...]:
        """Every entry of one operation, oldest first; empty when there is none."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT revision, at, kind, subject, body FROM log WHERE operation = ? ORDER BY revision",
                (str(operation),),
            )
            return tuple(entry_of(each) for each in rows)

    def operations(self, limit: int = 100) -> tuple[UUID, ...]:
        """The newest operations, newest first."""
        with self._reading() as db:
            rows = db.execute("SELECT id FROM operations ORDER BY first_revision DESC LIMIT ?", (limit,))
            return tuple(UUID(each) for (each,) in rows)

    def operation_by_key(self, idempotency_key: str) -> UUID | None:
        """The operation that was started with that idempotency key, as long as the log has it."""
        with self._reading() as db:
            row = db.execute(
                "SELECT id FROM operations WHERE idempotency_key = ? ORDER BY first_revision DESC LIMIT 1",
                (idempotency_key,),
            ).fetchone()
            return UUID(row[0]) if row else None

    def close(self) -> None:
        """Let go of the file; every later call raises StoreFailure."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        """A connection that any one thread at a time may use, in autocommit until BEGIN."""
        db = sqlite3.connect(
            self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        db.execute("PRAGMA trusted_schema = OFF")
        return db

    def _use_wal(self) -> None:
        mode = self._writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreFailure(
                f"{self._path} cannot keep a write-ahead log (journal mode {mode})",
                hint="Put the state directory on a local file system; WAL does not work over a network.",
                path=str(self._path),
            )
        self._writer.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._failing("written"):
            db = self._writer
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            finally:
                # SQLite itself rolls back after some errors (a full disk), not after others
                if not self._closed and db.in_transaction:
                    db.execute("ROLLBACK")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one commit's state from its first statement to its last."""
        with self._failing("read"):
            try:
                db = self._idle.pop()
            except IndexError:
                db = self._connect()
                db.execute("PRAGMA query_only = ON")
            try:
                db.execute("BEGIN")
                yield db
                db.execute("COMMIT")
            except BaseException:
                db.close()
                raise
            if self._closed:
                db.close()
            else:
                self._idle.append(db)

    @contextmanager
    def _failing(self, deed: str) -> Iterator[None]:
        """Turn whatever SQLite and the file system raise into a StoreFailure with a way out."""
        if self._closed:
            raise StoreFailure(f"{self._path} cannot be {deed}: it was closed", path=str(self._path))
        try:
            yield
        except (sqlite3.Error, OSError, codec.DecodeError) as error:
            name = getattr(error, "sqlite_errorname", None) or type(error).__name__
            raise StoreFailure(
                f"{self._path} cannot be {deed}: {error}",
                hint=_hint(name, self._path),
                path=str(self._path),
                reason=name,
            ) from error


def _hint(name: str, path: Path) -> str:
    match name.removeprefix("SQLITE_").split("_")[0]:
        case "FULL" | "IOERR":
            return f"Make room on the file system of {path.parent}; see the kernel log for disk errors."
        case "BUSY" | "LOCKED":
            return "Another process holds the store open for writing; see who: fuser -v " + str(path)
        case "CORRUPT" | "NOTADB":
            return way_back(path)
        case "DecodeError":
            return "A newer vgpuctl wrote it, or it was edited: install that version again. " + way_back(path)
        case _:
            return f"Look at the owner and the mode of {path} and of {path.parent}."


def _read(row: tuple[Any, ...], hint: Any) -> Any:
    return codec.loads(row[0], hint)


def _meta(db: sqlite3.Connection, key: str) -> int:
    value: int = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0]
    return value


def _project(db: sqlite3.Connection, revision: int, record: Record) -> None:
    """What `record` does to the state that load() reads."""
    match record:
        case WishPut(wish):
            db.execute(
                "INSERT OR REPLACE INTO wishes (kind, name, body) VALUES (?, ?, ?)",
                (wish.key.kind, wish.key.name, codec.dumps(wish, Wish)),
            )
        case WishDropped(key):
            db.execute("DELETE FROM wishes WHERE kind = ? AND name = ?", (key.kind, key.name))
        case AllocationPut(allocation):
            db.execute(
                "INSERT OR REPLACE INTO allocations (id, body) VALUES (?, ?)",
                (str(allocation.id), codec.dumps(allocation, Allocation)),
            )
        case AllocationDropped(id=id_):
            db.execute("DELETE FROM allocations WHERE id = ?", (str(id_),))
        case OperationStarted(id=id_):
            _see_operation(db, revision, id_)
            db.execute(
                "UPDATE operations SET idempotency_key = ? WHERE id = ?", (record.idempotency_key, str(id_))
            )
        case StepStarted(operation=id_) | StepEnded(operation=id_) | OperationRollingBack(id=id_):
            _see_operation(db, revision, id_)
        case OperationEnded(id=id_):
            _see_operation(db, revision, id_)
            db.execute("UPDATE operations SET ended_revision = ? WHERE id = ?", (revision, str(id_)))
        case DriftFound(finding):
            db.execute(
                "INSERT OR REPLACE INTO findings (code, subject, body) VALUES (?, ?, ?)",
                (*finding.key, codec.dumps(finding, Finding)),
            )
        case DriftGone(code=code, subject=subject):
            db.execute("DELETE FROM findings WHERE code = ? AND subject = ?", (code, subject))
        case PauseSet(paused):
            db.execute("UPDATE meta SET value = ? WHERE key = 'paused'", (int(paused),))
        case _:
            pass


def _see_operation(db: sqlite3.Connection, revision: int, operation: UUID) -> None:
    db.execute(
        "INSERT OR IGNORE INTO operations (id, first_revision) VALUES (?, ?)", (str(operation), revision)
    )


def _prune(db: sqlite3.Connection, newest: int, keep: int) -> None:
    """Drop what is older than the newest `keep` entries, some at a time, and ended operations whole.

    An operation stays, with every entry, until it has ended and its end is old.
    """
    floor = newest - keep
    if floor - _meta(db, "pruned_to") < max(1, keep // 100):
        return
    db.execute("DELETE FROM operations WHERE ended_revision <= ?", (floor,))
    db.execute(
        "DELETE FROM log WHERE revision <= ?"
        " AND (operation IS NULL OR operation NOT IN (SELECT id FROM operations))",
        (floor,),
    )
    db.execute("UPDATE meta SET value = ? WHERE key = 'pruned_to'", (floor,))

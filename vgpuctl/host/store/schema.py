"""The tables, and how a file of an older schema becomes one of today's."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from vgpuctl.errors import StoreFailure

APPLICATION_ID = 0x76475055
"""`vGPU`: tells our file from any other SQLite file, to us and to file(1)."""

V1 = """
CREATE TABLE log (
    revision   INTEGER PRIMARY KEY AUTOINCREMENT,
    at         TEXT NOT NULL,
    kind       TEXT NOT NULL,
    operation  TEXT,
    subject    TEXT NOT NULL,
    body       TEXT NOT NULL
) STRICT;
CREATE INDEX log_operation ON log (operation, revision) WHERE operation IS NOT NULL;
CREATE TABLE wishes (
    kind  TEXT NOT NULL,
    name  TEXT NOT NULL,
    body  TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;
CREATE TABLE allocations (
    id    TEXT PRIMARY KEY NOT NULL,
    body  TEXT NOT NULL
) STRICT;
CREATE TABLE operations (
    id               TEXT PRIMARY KEY NOT NULL,
    first_revision   INTEGER NOT NULL,
    ended_revision   INTEGER,
    idempotency_key  TEXT
) STRICT;
CREATE INDEX operations_first ON operations (first_revision);
CREATE INDEX operations_key ON operations (idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE TABLE meta (
    key    TEXT PRIMARY KEY NOT NULL,
    value  INTEGER NOT NULL
) STRICT;
INSERT INTO meta (key, value) VALUES ('paused', 0), ('pruned_to', 0);
"""

V2 = """
CREATE TABLE findings (
    code     TEXT NOT NULL,
    subject  TEXT NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (code, subject)
) STRICT;
"""

MIGRATIONS: tuple[str, ...] = (V1, V2)
"""Script n leads from schema n to n + 1.  A released one is never changed."""

HAS_STRICT = sqlite3.sqlite_version_info >= (3, 37)
"""RHEL 9 has SQLite 3.34, which knows no STRICT tables; its tables are the same otherwise."""


def migrate(
    db: sqlite3.Connection, path: Path, migrations: Sequence[str] = MIGRATIONS, *, strict: bool = HAS_STRICT
) -> None:
    """Bring the file that `db` has open to the newest schema, each step in one transaction.

    A file of an older schema is copied to `<path>.schema-<n>` first.  Raises StoreFailure for a file
    of a newer vgpuctl, of another program, or one that is damaged; such a file is left as it is.
    """
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    _refuse_foreign(db, path, version)
    _refuse_damaged(db, path)
    if version > len(migrations):
        raise StoreFailure(
            f"{path} has schema {version}, and this vgpuctl knows schemas up to {len(migrations)}",
            hint="A newer vgpuctl wrote it: install that version again, or stop the daemon and put back the "
            f"copy that was made before the upgrade ({path.name}.schema-{len(migrations)}).",
            path=str(path),
            schema=version,
        )
    if 0 < version < len(migrations):
        backup = path.with_name(f"{path.name}.schema-{version}")
        backup.unlink(missing_ok=True)
        backup.touch(mode=0o600)
        db.execute("VACUUM INTO ?", (str(backup),))
        with backup.open("rb+") as copy:
            os.fsync(copy)
    for number, script in enumerate(migrations[version:], start=version + 1):
        text = script if strict else script.replace(") STRICT;", ");")
        try:
            db.executescript(
                f"BEGIN IMMEDIATE; {text} PRAGMA application_id = {APPLICATION_ID}; "
                f"PRAGMA user_version = {number}; COMMIT;"
            )
        except sqlite3.Error:
            if db.in_transaction:
                db.rollback()
            raise


def way_back(path: Path) -> str:
    """What to do about a file that cannot be used."""
    return (
        f"Stop the daemon and move {path.name}, {path.name}-wal and {path.name}-shm in {path.parent} away, "
        "then put a backup in their place. Without a backup start with an empty store: the vGPUs on the "
        "host stay as they are; adopt them (vgpuctl adopt --all), and take vgpuctl export for your new "
        "documents: the old ones would ask for each vGPU a second time."
    )


def _refuse_foreign(db: sqlite3.Connection, path: Path, version: int) -> None:
    application: int = db.execute("PRAGMA application_id").fetchone()[0]
    is_empty = version == 0 and db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application != APPLICATION_ID and not (is_empty and application == 0):
        raise StoreFailure(
            f"{path} is a database of another program",
            hint="Name another state directory, or move the file away.",
            path=str(path),
        )


def _refuse_damaged(db: sqlite3.Connection, path: Path) -> None:
    verdict: str = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise StoreFailure(f"{path} is damaged: {verdict}", hint=way_back(path), path=str(path))

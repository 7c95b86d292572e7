"""The store's file: older, newer, damaged, foreign, and who may read it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import make_store_v2 as store_v2
import pytest
from make_store_v1 import ENTRIES, FIXTURE, WRITTEN_AT
from store_records import NOW, fold

from vgpuctl.errors import StoreFailure
from vgpuctl.host.store import SqliteStore
from vgpuctl.host.store import schema as store_schema
from vgpuctl.host.store.codec import KINDS
from vgpuctl.model.record import LogEntry, Noticed

RECORD = Noticed("a", "test", "x")


SINCE_V2 = {"drift-found", "drift-gone"}
"""The kinds of records that schema 1 does not have."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def make(path: Path, entries: int = 1) -> None:
    store = SqliteStore(path)
    store.commit([RECORD] * entries, NOW)
    store.close()


def refusal(path: Path) -> StoreFailure:
    before = path.read_bytes()
    with pytest.raises(StoreFailure) as failure:
        SqliteStore(path)
    assert path.read_bytes() == before, "a refused file is left as it is"
    return failure.value


def test_a_store_of_schema_v1_opens(path: Path) -> None:
    """The file in tests/fixtures was written by the release that had schema 1, and is never rewritten."""
    shutil.copy(FIXTURE, path)
    store = SqliteStore(path)
    entries = [LogEntry(number, WRITTEN_AT, record) for number, record in enumerate(ENTRIES, start=1)]
    assert {type(record) for record in ENTRIES} == {
        kind for name, kind in KINDS.items() if name not in SINCE_V2
    }
    assert list(store.entries(0)) == entries
    assert store.load() == fold(entries)
    assert store.commit([RECORD], NOW) == len(entries) + 1
    store.close()


def test_a_store_of_schema_v2_opens(path: Path) -> None:
    """What schema 2 brought: what is not as it should be, since when, and who used it."""
    shutil.copy(store_v2.FIXTURE, path)
    store = SqliteStore(path)
    entries = [LogEntry(number, WRITTEN_AT, record) for number, record in enumerate(store_v2.ENTRIES, 1)]
    assert {type(record) for record in store_v2.ENTRIES} >= {KINDS[name] for name in SINCE_V2}
    assert list(store.entries(0)) == entries
    assert store.load() == fold(entries)
    assert list(store.load().findings) == [("foreign-vgpu", "0000:41:00.5")]
    store.close()


def test_an_older_store_is_copied_and_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    newer = (*store_schema.MIGRATIONS, "ALTER TABLE log ADD COLUMN host TEXT NOT NULL DEFAULT '';")
    monkeypatch.setattr(store_schema.migrate, "__defaults__", (newer,))
    store = SqliteStore(path)
    assert store.load().revision == 1
    assert store._writer.execute("SELECT host FROM log").fetchall() == [("",)]
    store.close()
    monkeypatch.undo()

    failure = refusal(path)
    newest = len(store_schema.MIGRATIONS)
    assert failure.facts["schema"] == newest + 1
    assert f"store.db.schema-{newest}" in (failure.hint or "")
    copy = path.with_name(f"store.db.schema-{newest}")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    copy.rename(path)
    store = SqliteStore(path)
    assert store.entries(0)[0].record == RECORD
    store.close()


def test_a_migration_that_fails_leaves_the_old_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    bad = (*store_schema.MIGRATIONS, "ALTER TABLE log ADD COLUMN host TEXT; INSERT INTO absent VALUES (1);")
    monkeypatch.setattr(store_schema.migrate, "__defaults__", (bad,))
    with pytest.raises(StoreFailure, match="absent"):
        SqliteStore(path)
    monkeypatch.undo()
    store = SqliteStore(path)
    assert "host" not in [each[1] for each in store._writer.execute("PRAGMA table_info(log)")]
    store.close()


def test_the_tables_are_strict_where_sqlite_can(path: Path) -> None:
    """RHEL 9 has SQLite 3.34, which has no STRICT tables; the same store works there."""
    store = SqliteStore(path)
    with pytest.raises(sqlite3.IntegrityError):
        store._writer.execute("INSERT INTO operations (id, first_revision) VALUES ('a', 'text')")
    store.close()
    path.unlink()
    with sqlite3.connect(path, isolation_level=None) as db:
        store_schema.migrate(db, path, strict=False)
        assert "STRICT" not in str(db.execute("SELECT sql FROM sqlite_schema").fetchall())
    db.close()
    make(path)


def test_a_damaged_page_is_found_before_anything_is_done(path: Path) -> None:
    make(path, entries=500)
    with path.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 4096)
    failure = refusal(path)
    assert "adopt" in (failure.hint or "")


def test_a_cut_off_file_is_refused(path: Path) -> None:
    make(path, entries=500)
    os.truncate(path, path.stat().st_size - 5000)
    assert "backup" in (refusal(path).hint or "")


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_text("not a database, but long enough to look at\n" * 100)
    assert refusal(path).facts["reason"] == "SQLITE_NOTADB"


@pytest.mark.parametrize(
    "script", ["CREATE TABLE t (a)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"]
)
def test_the_database_of_another_program_is_refused(path: Path, script: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(script)
    db.close()
    assert "another program" in str(refusal(path))


def test_a_state_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreFailure) as failure:
        SqliteStore(tmp_path / "state" / "store.db")
    assert failure.value.hint


def test_a_store_that_another_process_writes_to_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vgpuctl.host.store.sqlite._BUSY_TIMEOUT_S", 0.01)
    store = SqliteStore(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreFailure) as failure:
        store.commit([RECORD], NOW)
    assert "fuser" in (failure.value.hint or "")
    other.execute("ROLLBACK")
    other.close()
    assert store.commit([RECORD], NOW) == 1
    store.close()


def test_only_the_owner_reads_the_store(tmp_path: Path) -> None:
    """Domain names and requesters stand in it; the umask does not matter."""
    mask = os.umask(0)
    try:
        store = SqliteStore(tmp_path / "state" / "store.db")
        store.commit([RECORD], NOW)
    finally:
        os.umask(mask)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "state").iterdir()}
    assert set(modes) == {"store.db", "store.db-wal", "store.db-shm"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    store.close()


def test_the_settings_that_durability_hangs_on(path: Path) -> None:
    store = SqliteStore(path)
    settings = {
        name: store._writer.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "user_version", "application_id")
    }
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,
        "user_version": len(store_schema.MIGRATIONS),
        "application_id": 0x76475055,
    }
    store.close()

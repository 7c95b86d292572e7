"""The store: what it loads is what its log adds up to."""

from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_records import IDS, NOW, RECORDS, fold, operation_of

from vgpuctl.errors import RevisionGone, StoreFailure
from vgpuctl.host.store import SqliteStore
from vgpuctl.host.store.codec import KINDS, UNREADABLE, record_of, row_of
from vgpuctl.model.document import VgpuDocument, Wish
from vgpuctl.model.record import (
    DAEMON,
    LogEntry,
    Noticed,
    OperationEnded,
    OperationStarted,
    OperationState,
    PauseSet,
    Record,
    StepEnded,
    WishPut,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store.db"


@pytest.fixture
def store(path: Path):
    opened = SqliteStore(path)
    yield opened
    opened.close()


def started(id_: UUID, key: str | None = None) -> OperationStarted:
    return OperationStarted(
        id=id_, kind="create", subject="a", requester=DAEMON, scope=(), undo=(), idempotency_key=key
    )


def ended(id_: UUID) -> OperationEnded:
    return OperationEnded(id_, OperationState.SUCCEEDED, None, {})


def is_late(record: Record, over: set[UUID]) -> bool:
    """Whether an operation goes on after its end, which none does: a pruned one would be unended again."""
    operation = operation_of(record)
    if operation in over:
        return True
    if isinstance(record, OperationEnded):
        over.add(record.id)
    return False


def notices(count: int) -> list[Record]:
    return [Noticed(str(number), "test", "x") for number in range(count)]


def test_every_record_has_a_kind() -> None:
    assert set(KINDS.values()) == set(get_args(Record))


@given(RECORDS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_record_comes_back_from_its_row(record: Record) -> None:
    row = row_of(record)
    assert record_of(row.kind, row.body) == record
    assert row.operation == (str(operation_of(record)) if operation_of(record) else None)


@given(
    st.lists(st.tuples(st.lists(RECORDS, max_size=6), st.booleans()), max_size=5), st.sampled_from([5, 1000])
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_loaded_is_what_the_log_adds_up_to(
    commits: list[tuple[list[Record], bool]], keep: int
) -> None:
    """Whatever is committed, reopened between commits or not, and also where the log was pruned."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "store.db"
        store = SqliteStore(path, keep=keep)
        log: list[LogEntry] = []
        over: set[UUID] = set()
        for number, (drawn, reopen) in enumerate(commits):
            records = [each for each in drawn if not is_late(each, over)]
            at = NOW + timedelta(seconds=number)
            revision = store.commit(records, at)
            log += [LogEntry(len(log) + each, at, record) for each, record in enumerate(records, start=1)]
            assert revision == len(log)
            if reopen:
                store.close()
                store = SqliteStore(path, keep=keep)
        assert store.load() == fold(log)
        assert list(store.entries(max(0, len(log) - keep))) == log[-keep:]
        store.close()


def test_wishes_and_operations_are_found_again(store: SqliteStore, path: Path) -> None:
    wish = Wish(document=VgpuDocument(name="a", type="L40S-8Q"), generation=1, created_at=NOW, changed_at=NOW)
    assert store.load().revision == 0
    assert store.commit([WishPut(wish), started(IDS[0], "key-1"), PauseSet(True)], NOW) == 3
    store.close()
    again = SqliteStore(path)
    saved = again.load()
    assert (saved.revision, saved.paused, saved.wishes) == (3, True, {wish.key: wish})
    assert [entry.record for entry in saved.unended] == [started(IDS[0], "key-1")]
    assert again.operation_by_key("key-1") == IDS[0]
    assert again.operation_by_key("key-2") is None
    again.commit([ended(IDS[0])], NOW)
    assert again.load().unended == ()
    again.close()


def test_a_page_of_entries_begins_after_since(store: SqliteStore) -> None:
    store.commit(notices(10), NOW)
    assert [entry.revision for entry in store.entries(3, limit=4)] == [4, 5, 6, 7]
    assert store.entries(10) == ()
    assert store.entries(0)[0] == LogEntry(1, NOW, Noticed("0", "test", "x"))


def test_the_newest_operations_come_first(store: SqliteStore) -> None:
    for id_ in (IDS[2], IDS[0], IDS[1]):
        store.commit([started(id_), *notices(1), ended(id_)], NOW)
    assert store.operations() == (IDS[1], IDS[0], IDS[2])
    assert store.operations(limit=1) == (IDS[1],)
    assert [type(entry.record) for entry in store.operation_entries(IDS[0])] == [
        OperationStarted,
        OperationEnded,
    ]
    assert store.operation_entries(IDS[3]) == ()


def test_a_commit_of_nothing_changes_nothing(store: SqliteStore) -> None:
    store.commit(notices(2), NOW)
    assert store.commit([], NOW) == 2
    assert store.load().revision == 2


def test_a_record_that_cannot_be_written_takes_the_whole_commit_with_it(store: SqliteStore) -> None:
    naive = Wish(
        document=VgpuDocument(name="a", type="t"),
        generation=1,
        created_at=datetime(2026, 1, 1),  # noqa: DTZ001
        changed_at=NOW,
    )
    with pytest.raises(ValueError, match="time zone"):
        store.commit([*notices(1), WishPut(naive)], NOW)
    surrogate = Wish(
        document=VgpuDocument(name="\udc80", type="t"), generation=1, created_at=NOW, changed_at=NOW
    )
    with pytest.raises(UnicodeEncodeError):
        store.commit([*notices(1), WishPut(surrogate)], NOW)
    assert store.load().revision == 0
    assert store.commit(notices(1), NOW) == 1


def test_bytes_that_are_no_utf8_can_be_noticed(store: SqliteStore) -> None:
    record = Noticed("vgpu\udcff", "foreign", "comm \udc80")
    store.commit([record], NOW)
    assert store.entries(0)[0].record == record


def test_pruning_keeps_operations_whole_until_they_are_old(path: Path) -> None:
    store = SqliteStore(path, keep=10)
    store.commit([started(IDS[0], "unended"), started(IDS[1], "long"), started(IDS[2], "short")], NOW)
    store.commit([ended(IDS[2])], NOW)
    store.commit(notices(20), NOW)
    store.commit([StepEnded(IDS[1], 1, 1, None), ended(IDS[1])], NOW)
    newest = store.commit(notices(5), NOW)

    with pytest.raises(RevisionGone) as gone:
        store.entries(newest - 11)
    assert gone.value.facts["oldest"] == newest - 10
    assert len(store.entries(newest - 10)) == 10
    assert [entry.record for entry in store.load().unended] == [started(IDS[0], "unended")]
    assert len(store.operation_entries(IDS[1])) == 3
    assert store.operation_entries(IDS[2]) == ()
    assert store.operation_by_key("short") is None
    assert set(store.operations()) == {IDS[0], IDS[1]}

    store.commit([ended(IDS[0]), *notices(30)], NOW)
    assert store.operations() == ()
    assert store.load().unended == ()
    store.close()
    again = SqliteStore(path, keep=10)
    assert again.commit(notices(1), NOW) == newest + 32, "a pruned revision is never used again"
    again.close()


def test_a_record_of_a_newer_version_does_not_break_reading(store: SqliteStore, path: Path) -> None:
    store.commit([started(IDS[0])], NOW)
    with sqlite3.connect(path) as db:
        db.execute(
            "INSERT INTO log (at, kind, operation, subject, body) VALUES (?, 'step-progress', ?, 's', '{}')",
            ("2027-01-01T00:00:00Z", str(IDS[0])),
        )
    db.close()
    [_, entry] = store.entries(0)
    assert isinstance(entry.record, Noticed)
    assert (entry.record.subject, entry.record.kind) == ("s", UNREADABLE)
    assert entry.at == datetime(2027, 1, 1, tzinfo=UTC)
    assert len(store.load().unended) == 2
    assert store.commit(notices(1), NOW) == 3


@pytest.mark.parametrize(
    "change",
    [
        """UPDATE wishes SET body = replace(body, 'VgpuDocument', 'QuotaDocument')""",
        """UPDATE log SET body = '{"id":"later"}' WHERE kind = 'operation-started'""",
    ],
)
def test_state_that_cannot_be_read_is_not_taken_for_absent(
    store: SqliteStore, path: Path, change: str
) -> None:
    """A wish that were skipped would be a vGPU removed."""
    wish = Wish(document=VgpuDocument(name="a", type="t"), generation=1, created_at=NOW, changed_at=NOW)
    store.commit([WishPut(wish), started(IDS[0])], NOW)
    with sqlite3.connect(path) as db:
        assert db.execute(change).rowcount == 1
    db.close()
    with pytest.raises(StoreFailure) as failure:
        store.load()
    assert "newer vgpuctl" in (failure.value.hint or "")


def test_readers_do_not_wait_for_the_writer_and_see_whole_commits(store: SqliteStore) -> None:
    """A commit in progress is invisible, and blocks no reader."""
    store.commit(notices(2), NOW)
    with store._writing() as db:
        db.execute("DELETE FROM log")
        assert len(store.entries(0)) == 2
        assert store.load().revision == 2
    assert store.entries(0) == ()


def test_many_threads_share_a_store(store: SqliteStore) -> None:
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                store.commit([Noticed(f"{number}", str(turn), ""), Noticed(f"{number}", str(turn), "")], NOW)
                assert len(store.entries(0)) % 2 == 0
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    log = store.entries(0)
    assert [entry.revision for entry in log] == list(range(1, 81))
    assert all(log[each].record == log[each + 1].record for each in range(0, 80, 2))


def test_a_closed_store_says_so(store: SqliteStore) -> None:
    store.load()
    store.close()
    for use in (store.load, lambda: store.commit(notices(1), NOW), lambda: store.entries(0)):
        with pytest.raises(StoreFailure, match="closed"):
            use()

"""The store on a disk: killed writers, full disks, and how often a commit waits for the disk."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from store_records import NOW, fold
from store_writer import batch

from vgpuctl.errors import StoreFailure
from vgpuctl.host.store import SqliteStore
from vgpuctl.model.record import LogEntry

WRITER = Path(__file__).with_name("store_writer.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(WRITER.parents[3]), str(WRITER.parent)])}


def whole_log(store: SqliteStore) -> tuple[LogEntry, ...]:
    return store.entries(0, limit=1_000_000)


def expect_whole_batches(path: Path, size: int, acknowledged: int) -> int:
    """All that was acknowledged is there, in whole batches, and adds up to what is loaded."""
    store = SqliteStore(path)
    log = whole_log(store)
    count, rest = divmod(len(log), size + 1)
    assert rest == 0, "a commit was torn"
    assert acknowledged <= count <= acknowledged + 1
    assert [entry.record for entry in log] == [
        record for number in range(1, count + 1) for record in batch(number, size)
    ]
    assert store.load() == fold(log)
    store.close()
    return count


def test_a_killed_writer_leaves_whole_commits(tmp_path: Path) -> None:
    """kill -9 at any instant: a commit is there whole or not at all, one that returned is there."""
    path = tmp_path / "store.db"
    size, count = 7, 0
    for kills in range(5):
        with subprocess.Popen(
            [sys.executable, WRITER, path, "100000", str(size)],
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        ) as writer:
            assert writer.stdout is not None
            for _ in range(random.Random(kills).randrange(1, 60)):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            rest = writer.stdout.read().split()
        acknowledged = int(rest[-1]) if rest else acknowledged
        assert acknowledged > count, "the next writer goes on where the killed one was"
        count = expect_whole_batches(path, size, acknowledged)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_one_commit_is_one_fsync_however_many_records(tmp_path: Path) -> None:
    def syncs(commits: int, size: int) -> int:
        trace = tmp_path / f"{commits}-{size}.trace"
        path = tmp_path / f"{commits}-{size}.db"
        strace = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", trace]
        traced = subprocess.run(
            [*strace, sys.executable, WRITER, path, str(commits), str(size)],
            env=ENVIRONMENT,
            capture_output=True,
            check=False,
        )
        if b"ptrace" in traced.stderr.lower():
            pytest.skip("strace may not trace here")
        assert traced.returncode == 0, traced.stderr
        return sum("sync(" in line for line in trace.read_text().splitlines())

    few, many = syncs(2, 1), syncs(12, 30)
    assert many - few == 10


def test_a_full_file_system_costs_a_commit_and_nothing_else(tmp_path: Path) -> None:
    """A file that may not grow (RLIMIT_FSIZE) fails as a full disk does, without root."""
    path = tmp_path / "store.db"
    output = run_writer([sys.executable, WRITER, path, "1000", "20", str(300_000)])
    expect_recovered(output, path)


@pytest.mark.root
def test_a_full_tmpfs_costs_a_commit_and_nothing_else(tmp_path: Path) -> None:
    """ENOSPC of a real file system, and the same commit again once there is room."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    script = (
        'mount -t tmpfs -o size=2m none "$1" || exit 77; head -c 700000 /dev/zero > "$1/ballast";'
        ' "$2" "$3" "$1/store.db" 100000 20 && cp "$1/store.db" "$4"'
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    saved = tmp_path / "saved.db"
    output = run_writer(["unshare", "-m", "sh", "-c", script, "sh", disk, sys.executable, WRITER, saved])
    expect_recovered(output, saved)
    assert "SQLITE_FULL" in output[-2]


def run_writer(command: list[str | Path]) -> list[str]:
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("may not mount here")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def expect_recovered(output: list[str], path: Path) -> None:
    *done, failure, again = output
    assert done
    assert failure.startswith("store-failure SQLITE_")
    assert again == f"again {len(done) + 1}"
    expect_whole_batches(path, 20, len(done) + 1)


def test_a_full_store_says_what_to_do(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    store.commit(batch(1, 1), NOW)
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    before = whole_log(store)
    with pytest.raises(StoreFailure) as failure:
        store.commit(batch(2, 100), NOW)
    assert failure.value.facts["reason"] == "SQLITE_FULL"
    assert "room" in (failure.value.hint or "")
    assert whole_log(store) == before
    assert store.load() == fold(before)
    store.close()

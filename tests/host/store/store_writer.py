"""A process that commits batches to a store until it is killed, has done `commits`, or the disk is full.

Run as: store_writer.py PATH COMMITS SIZE [FILE_LIMIT].  Prints the number of each commit that is done.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from store_records import NOW

from vgpuctl.errors import StoreFailure
from vgpuctl.host.store import SqliteStore
from vgpuctl.model.document import VgpuDocument, Wish
from vgpuctl.model.record import Noticed, Record, WishPut


def batch(number: int, size: int) -> list[Record]:
    """The commit of that number: notices, and a wish whose generation is the number."""
    document = VgpuDocument(name="a", type="L40S-8Q")
    wish = Wish(document=document, generation=number, created_at=NOW, changed_at=NOW)
    notices: list[Record] = [Noticed(str(number), "test", "x" * 500) for _ in range(size)]
    return [*notices, WishPut(wish)]


def main(path: Path, commits: int, size: int, file_limit: int | None = None) -> None:
    store = SqliteStore(path)
    first = store.load().revision // (size + 1) + 1
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    try:
        for number in range(first, first + commits):
            store.commit(batch(number, size), NOW)
            print(number, flush=True)
    except StoreFailure as failure:
        print(failure.code, failure.facts["reason"], flush=True)
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        (path.parent / "ballast").unlink(missing_ok=True)
        assert store.load().revision == (number - 1) * (size + 1), "a failed commit left something"
        store.commit(batch(number, size), NOW)
        print("again", number, flush=True)
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(each) for each in sys.argv[2:]))

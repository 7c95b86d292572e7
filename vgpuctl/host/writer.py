"""Stand-alone script: writes to files as it is told, one write(2) each; answers errnos, 0 when all was taken.

    writer.py [LOCK]

Run by `vgpuctl.host.writers` with a bare interpreter: it imports nothing of vgpuctl.  It ends when
nobody is there any more to tell it, or to be told.  While it writes it has a share of the lock: it outlives
a daemon that is killed, and the next one lets it end before it looks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from typing import BinaryIO


def write(path: bytes, text: bytes) -> int:
    """The errno of writing `text` to `path`, 0 when all of it was taken."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            taken = os.write(descriptor, text)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno or errno.EIO
    return 0 if taken == len(text) else errno.EIO


def serve(requests: BinaryIO, lock: int | None) -> None:
    """Do what each request says: the lengths of path and text in a line, then both."""
    while line := requests.readline():
        lengths = line.split()
        path = requests.read(int(lengths[0]))
        text = requests.read(int(lengths[1]))
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_SH)
        answer = write(path, text)
        if lock is not None:
            fcntl.flock(lock, fcntl.LOCK_UN)
        try:
            os.write(1, b"%d\n" % answer)
        except BrokenPipeError:
            return


def opened(lock: str) -> int | None:
    """The lock; None where it cannot be had, and nobody waits for it."""
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None


if __name__ == "__main__":
    serve(sys.stdin.buffer, opened(sys.argv[1]) if len(sys.argv) > 1 else None)

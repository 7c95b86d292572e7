"""Stand-alone script: writes to files as it is told, one write(2) each; answers errnos, 0 when all was taken.

Run by `vgpuctl.host.writers` with a bare interpreter: it imports nothing of vgpuctl.  It ends when
nobody is there any more to tell it, or to be told.
"""

from __future__ import annotations

import errno
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


def serve(requests: BinaryIO) -> None:
    """Do what each request says: the lengths of path and text in a line, then both."""
    while line := requests.readline():
        lengths = line.split()
        path = requests.read(int(lengths[0]))
        text = requests.read(int(lengths[1]))
        try:
            os.write(1, b"%d\n" % write(path, text))
        except BrokenPipeError:
            return


if __name__ == "__main__":
    serve(sys.stdin.buffer)

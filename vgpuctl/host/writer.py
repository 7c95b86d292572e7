"""Stand-alone script: one write(2) to one file; prints the errno, 0 when all was taken.

Run by `vgpuctl.host.helper` with a bare interpreter: it imports nothing of vgpuctl.
"""

from __future__ import annotations

import errno
import os
import sys


def write(path: str, text: str) -> int:
    """The errno of writing `text` to `path`, 0 when all of it was taken."""
    data = os.fsencode(text)
    try:
        descriptor = os.open(path, os.O_WRONLY)
        taken = os.write(descriptor, data)
        os.close(descriptor)
    except OSError as error:
        return error.errno or errno.EIO
    return 0 if taken == len(data) else errno.EIO


if __name__ == "__main__":
    os.write(1, b"%d" % write(sys.argv[1], sys.argv[2]))

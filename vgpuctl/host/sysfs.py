"""sysfs and procfs: files under one root."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vgpuctl.host.helper import write_in_helper

_CHUNK = 1 << 16


class RootedFiles:
    """The files below `root`, by paths relative to it.

    Raises OSError with the kernel's errno; a path that would leave the root is EINVAL, a link that
    leads out of it EXDEV.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)

    def locate(self, path: str) -> str:
        """Where `path` is on this machine; raises OSError (EINVAL) when it could leave the root."""
        if path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise OSError(errno.EINVAL, "not a path below the root", path)
        return os.path.join(self._root, path)  # noqa: PTH118  # Path() would drop a "." and a final slash

    def read(self, path: str) -> str:
        """The text of a file, without the final newline; bytes that are no UTF-8 are replaced."""
        with _opened(self.locate(path), os.O_RDONLY) as descriptor:
            chunks = []
            while chunk := os.read(descriptor, _CHUNK):
                chunks.append(chunk)
        return b"".join(chunks).decode(errors="replace").removesuffix("\n")

    def write(self, path: str, text: str) -> None:
        """Give all of `text` to the file in one go; never creates or truncates."""
        data = text.encode()
        with _opened(self.locate(path), os.O_WRONLY) as descriptor:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.EIO, "only a part was taken")

    def write_abandonable(self, path: str, text: str, timeout_s: float) -> None:
        """Write from a process that can be left alone; TimeoutError after `timeout_s`."""
        write_in_helper(self.locate(path), text, timeout_s)

    def replace(self, path: str, text: str) -> None:
        """Put a file of that text, with the same owner and mode, in the place of one that is there."""
        located = self.locate(path)
        old = os.stat(located, follow_symlinks=False)  # noqa: PTH116
        if not stat.S_ISREG(old.st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file", located)
        directory, name = os.path.split(located)
        descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fchown(descriptor, old.st_uid, old.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
                os.fsync(descriptor)
            os.replace(temporary, located)  # noqa: PTH105
        except BaseException:
            os.unlink(temporary)  # noqa: PTH108
            raise

    def list(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted."""
        return tuple(sorted(os.listdir(self.locate(path))))  # noqa: PTH208

    def link(self, path: str) -> str:
        """The last component of what a symbolic link points to."""
        return os.path.basename(os.readlink(self.locate(path)))  # noqa: PTH115, PTH119

    def resolve(self, path: str) -> str:
        """The real path, relative to the root, after following every link."""
        located = self.locate(path)
        real = os.path.realpath(located, strict=True)
        if os.path.commonpath((self._root, real)) != self._root:
            raise OSError(errno.EXDEV, "leads out of the root", located)
        return os.path.relpath(real, self._root)

    def exists(self, path: str) -> bool:
        """Whether something is there; a link that leads nowhere is not."""
        try:
            os.stat(self.locate(path))  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    except OSError as error:
        # read(2) and write(2) do not know their file; an errno without a path helps nobody.
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)

"""sysfs and procfs: files under one root."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

from vgpuctl.host.writers import Writers

_CHUNK = 1 << 16
_PAGE = 4096
_WRITING = "run/vgpuctl/writing"


class RootedFiles:
    """The files below `root`, by paths relative to it.

    Raises OSError with the kernel's errno; a path that would leave the root is EINVAL, a link that
    leads out of it EXDEV.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._prefix = self._root if self._root.endswith("/") else f"{self._root}/"
        self._writers = Writers(Path(self.locate(_WRITING)))

    def locate(self, path: str) -> str:
        """Where `path` is on this machine; raises OSError (EINVAL) when it could leave the root."""
        # The second half only where the first, which costs next to nothing, is in doubt.
        if (".." in path or "\0" in path or path[:1] == "/") and not _is_below(path):
            raise OSError(errno.EINVAL, "not a path below the root", path)
        return self._prefix + path

    def read(self, path: str) -> str:
        """The text of a file, without the final newline; bytes that are no UTF-8 are replaced."""
        located = self.locate(path)
        descriptor = os.open(located, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, _CHUNK)
            # Less than a page came whole from sysfs [filesystems/sysfs.rst]; of procfs nobody says so.
            if len(data) >= _PAGE or not path.startswith("sys/"):
                while more := os.read(descriptor, _CHUNK):
                    data += more
        except OSError as error:
            raise _named(error, located) from None
        finally:
            os.close(descriptor)
        return data.decode(errors="replace").removesuffix("\n")

    def write(self, path: str, text: str) -> None:
        """Give all of `text` to the file in one go; never creates or truncates."""
        data, located = text.encode(), self.locate(path)
        descriptor = os.open(located, os.O_WRONLY | os.O_CLOEXEC)
        try:
            taken = os.write(descriptor, data)
        except OSError as error:
            raise _named(error, located) from None
        finally:
            os.close(descriptor)
        if taken != len(data):
            raise OSError(errno.EIO, "only a part was taken", located)

    def write_abandonable(self, path: str, text: str, timeout_s: float) -> None:
        """Write from a process that can be left alone; TimeoutError after `timeout_s`."""
        self._writers.write(self.locate(path), text, timeout_s)

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
        return os.readlink(self.locate(path)).rpartition("/")[2]  # noqa: PTH115

    def resolve(self, path: str) -> str:
        """The real path, relative to the root, after following every link."""
        located = self.locate(path)
        real = os.path.realpath(located, strict=True)
        if os.path.commonpath((self._root, real)) != self._root:
            raise OSError(errno.EXDEV, "leads out of the root", located)
        return os.path.relpath(real, self._root)

    def exists(self, path: str) -> bool:
        """Whether something is there; a link that leads nowhere is not."""
        return self._mode(path) is not None

    def is_writable(self, path: str) -> bool:
        """Whether a file is there and has a write bit in its mode."""
        return bool((self._mode(path) or 0) & 0o222)

    def _mode(self, path: str) -> int | None:
        try:
            return os.stat(self.locate(path)).st_mode  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return None


def _is_below(path: str) -> bool:
    return not path.startswith("/") and "\0" not in path and ".." not in path.split("/")


def _named(error: OSError, path: str) -> OSError:
    """The error with its file: read(2) and write(2) do not know it, and an errno alone helps nobody."""
    return OSError(error.errno, error.strerror, path)

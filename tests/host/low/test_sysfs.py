"""The kernel's files, over temp trees of real files, links and FIFOs."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgpuctl.host import helper
from vgpuctl.host.kernel import LocalKernel
from vgpuctl.host.sysfs import RootedFiles


@pytest.fixture
def files(tmp_path: Path) -> RootedFiles:
    return RootedFiles(tmp_path)


def errno_of(call, *arguments) -> int | None:
    with pytest.raises(OSError) as caught:
        call(*arguments)
    return caught.value.errno


def test_read_takes_off_exactly_one_newline(files, tmp_path):
    (tmp_path / "name").write_text("NVIDIA L40S-8Q\n\n")
    assert files.read("name") == "NVIDIA L40S-8Q\n"


def test_read_of_more_than_one_chunk(files, tmp_path):
    (tmp_path / "long").write_text("x" * 200_000)
    assert len(files.read("long")) == 200_000


def test_bytes_that_are_no_utf8_do_not_raise(files, tmp_path):
    (tmp_path / "raw").write_bytes(b"a\xffb")
    assert files.read("raw") == "a\N{REPLACEMENT CHARACTER}b"


def test_write_never_creates(files, tmp_path):
    assert errno_of(files.write, "create", "1") == errno.ENOENT
    assert not (tmp_path / "create").exists()


def test_write_does_not_truncate_first(files, tmp_path):
    """O_TRUNC would empty a file of a test tree before the write; sysfs has none of it."""
    (tmp_path / "numvfs").write_text("1234")
    files.write("numvfs", "9")
    assert (tmp_path / "numvfs").read_text() == "9234"


def test_replace_is_whole_and_keeps_owner_and_mode(files, tmp_path):
    """A write would leave the tail of a longer text; mdevctl's own files are longer or shorter."""
    path = tmp_path / "definition"
    path.write_text("a long text that was there before")
    path.chmod(0o640)
    before = path.stat()
    files.replace("definition", "short")
    after = path.stat()
    assert path.read_text() == "short"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert [each.name for each in tmp_path.iterdir()] == ["definition"]


def test_replace_never_creates_nor_follows_a_link(files, tmp_path):
    with pytest.raises(FileNotFoundError):
        files.replace("absent", "x")
    (tmp_path / "target").write_text("kept")
    (tmp_path / "link").symlink_to("target")
    with pytest.raises(OSError, match="ordinary"):
        files.replace("link", "x")
    assert (tmp_path / "target").read_text() == "kept"


def test_errors_of_the_write_itself_name_the_file():
    kernel = LocalKernel()
    with pytest.raises(OSError) as caught:
        kernel.write("dev/full", "x")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")


def test_no_descriptor_stays_open_after_a_failed_write():
    files = RootedFiles(Path("/"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert errno_of(files.write, "dev/full", "x") == errno.ENOSPC
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("read", "absent", errno.ENOENT),
        ("read", "directory", errno.EISDIR),
        ("read", "file/below", errno.ENOTDIR),
        ("list", "file", errno.ENOTDIR),
        ("list", "absent", errno.ENOENT),
        ("link", "file", errno.EINVAL),
        ("resolve", "dangling", errno.ENOENT),
        ("resolve", "loop", errno.ELOOP),
    ],
)
def test_the_kernels_errno_comes_through(files, tmp_path, method, path, expected):
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    assert errno_of(getattr(files, method), path) == expected


def test_list_is_sorted(files, tmp_path):
    names = [f"virtfn{number}" for number in range(32)]
    for name in names:
        (tmp_path / name).touch()
    assert files.list("") == tuple(sorted(names))


def test_links(files, tmp_path):
    device = tmp_path / "sys/devices/pci0000:40/0000:41:00.0"
    device.mkdir(parents=True)
    (tmp_path / "sys/bus").mkdir()
    (tmp_path / "sys/bus/0000:41:00.0").symlink_to("../devices/pci0000:40/0000:41:00.0")
    assert files.link("sys/bus/0000:41:00.0") == "0000:41:00.0"
    assert files.resolve("sys/bus/0000:41:00.0") == "sys/devices/pci0000:40/0000:41:00.0"


def test_exists(files, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    found = [files.exists(path) for path in ("file", "dangling", "absent", "file/below")]
    assert found == [True, False, False, False]


def test_a_link_out_of_the_root_is_refused(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root-beside").mkdir()
    (tmp_path / "root/out").symlink_to(tmp_path / "root-beside")
    assert errno_of(RootedFiles(tmp_path / "root").resolve, "out") == errno.EXDEV


@pytest.mark.parametrize("path", ["../etc", "a/../../b", "a/..", "/etc/passwd", "a\0b"])
@pytest.mark.parametrize("method", ["read", "list", "link", "resolve", "exists"])
def test_paths_that_leave_the_root_are_refused(files, method, path):
    assert errno_of(getattr(files, method), path) == errno.EINVAL


@given(path=st.lists(st.sampled_from(["..", ".", "a", "..a", "", "\0", "sys"]), max_size=5).map("/".join))
def test_no_path_leads_out_of_the_root(path):
    root = Path("/nonexistent-root")
    try:
        located = RootedFiles(root).locate(path)
    except OSError as error:
        assert error.errno == errno.EINVAL  # noqa: PT017
    else:
        assert Path(os.path.normpath(located)).is_relative_to(root)


class TestAbandonableWrite:
    """hardware.md 1.6.1: `remove` of an mdev in use blocks in the kernel without limit."""

    def test_writes(self, files, tmp_path):
        (tmp_path / "remove").touch()
        files.write_abandonable("remove", "1", 10)
        assert (tmp_path / "remove").read_text() == "1"

    @pytest.mark.parametrize(
        ("path", "expected"), [("absent", errno.ENOENT), ("", errno.EISDIR), ("../x", errno.EINVAL)]
    )
    def test_the_errno_of_the_helper_comes_back(self, files, tmp_path, path, expected):
        assert errno_of(files.write_abandonable, path, "1", 10) == expected

    def test_the_errno_of_the_write_itself_comes_back(self):
        with pytest.raises(OSError) as caught:
            LocalKernel().write_abandonable("dev/full", "1", 10)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")

    def test_a_blocked_write_is_abandoned_and_goes_on_by_itself(self, files, tmp_path):
        os.mkfifo(tmp_path / "remove")  # open(2) of a FIFO without a reader blocks
        with pytest.raises(TimeoutError) as caught:
            files.write_abandonable("remove", "1", 0.1)
        assert caught.value.filename == str(tmp_path / "remove")
        assert (tmp_path / "remove").read_text() == "1"  # this is the reader

    def test_a_file_whose_writer_hangs_gets_no_second_one(self, files, tmp_path):
        """A sick driver must not collect processes in D state; other files are written as ever."""
        os.mkfifo(tmp_path / "remove")
        (tmp_path / "other").touch()
        with pytest.raises(TimeoutError):
            files.write_abandonable("remove", "1", 0.1)
        hanging = helper._abandoned[-1]
        with pytest.raises(TimeoutError, match=f"pid {hanging.pid}"):
            files.write_abandonable("remove", "2", 60)
        files.write_abandonable("other", "3", 60)
        assert (tmp_path / "remove").read_text() == "1"
        while hanging.poll() is None:  # the suite's own timeout ends this
            pass
        (tmp_path / "remove").unlink()
        (tmp_path / "remove").touch()
        files.write_abandonable("remove", "4", 60)
        assert (tmp_path / "remove").read_text() == "4"

    def test_abandoned_helpers_are_reaped(self, files, tmp_path):
        os.mkfifo(tmp_path / "remove")
        with pytest.raises(TimeoutError):
            files.write_abandonable("remove", "1", 0.1)
        process = helper._abandoned[-1]
        (tmp_path / "remove").read_text()
        while process.returncode is None:  # the suite's own timeout ends this
            helper.reap()
        assert process not in helper._abandoned

    def test_the_helper_inherits_no_descriptor(self, tmp_path):
        """A helper in D state must not keep our sockets, locks and database open."""
        with (tmp_path / "ours").open("w") as ours:
            os.set_inheritable(ours.fileno(), True)
            status, answer = helper.run(("/bin/ls", "-l", "/proc/self/fd"), 10)
        assert status == 0
        assert b"ours" not in answer

    def test_the_helper_is_in_a_session_of_its_own(self):
        _, answer = helper.run(("/bin/sh", "-c", "ps -o sid= -p $$; echo $$"), 10)
        session, pid = answer.split()
        assert session == pid

    def test_a_helper_that_dies_is_an_error(self, monkeypatch, files, tmp_path):
        (tmp_path / "remove").touch()
        monkeypatch.setattr(helper, "_BARE_PYTHON", ("/bin/false",))
        assert errno_of(files.write_abandonable, "remove", "1", 10) == errno.ECHILD

    def test_threads_can_write_at_the_same_time(self, files, tmp_path):
        names = [f"remove{number}" for number in range(4)]
        for name in names:
            (tmp_path / name).touch()
        threads = [threading.Thread(target=files.write_abandonable, args=(name, name, 30)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [(tmp_path / name).read_text() for name in names] == names

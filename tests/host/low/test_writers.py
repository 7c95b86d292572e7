"""Processes that write for us, one after the other."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from vgpuctl.host import writers as module
from vgpuctl.host.writers import Writers


@pytest.fixture
def writers(tmp_path):
    made = Writers(tmp_path / "writing")
    yield made
    made.close()


def pid_of_idle(writers: Writers) -> int:
    (process,) = writers._idle
    return process.pid


def test_one_process_makes_one_write_after_the_other(writers, tmp_path):
    (tmp_path / "a").touch()
    writers.write(str(tmp_path / "a"), "first", 30)
    pid = pid_of_idle(writers)
    with pytest.raises(OSError) as caught:
        writers.write(str(tmp_path / "absent"), "x", 30)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(tmp_path / "absent"))
    writers.write(str(tmp_path / "a"), "1234\n", 30)
    assert pid_of_idle(writers) == pid
    assert (tmp_path / "a").read_text() == "1234\n"


@pytest.mark.parametrize("text", ["", " ", "a=1\n12 3\nb", "\N{SNOWMAN}", "x" * 20_000])
def test_any_text_arrives_as_it_is(writers, tmp_path, text):
    (tmp_path / "with\nbreak").touch()
    writers.write(str(tmp_path / "with\nbreak"), text, 30)
    assert (tmp_path / "with\nbreak").read_text() == text


def test_one_that_was_killed_while_it_waited_is_replaced(writers, tmp_path):
    (tmp_path / "a").touch()
    writers.write(str(tmp_path / "a"), "1", 30)
    (process,) = writers._idle
    process.send_signal(signal.SIGKILL)
    process.wait()
    writers.write(str(tmp_path / "a"), "2", 30)
    assert (tmp_path / "a").read_text() == "2"


def test_one_that_was_killed_while_it_wrote_is_told_as_that(writers, tmp_path, monkeypatch):
    """Whoever begins to write meanwhile has seen its end before its own caller has."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "a").touch()
    answer_of = module._answer

    def answer(process, deadline):
        if process is not killed.get("process", process):
            return answer_of(process, deadline)
        killed["process"] = process
        process.kill()
        process.wait()
        writers.write(str(tmp_path / "a"), "1", 30)
        return answer_of(process, deadline)

    killed: dict[str, object] = {}
    monkeypatch.setattr(module, "_answer", answer)
    with pytest.raises(ChildProcessError):
        writers.write(str(tmp_path / "fifo"), "x", 30)
    assert writers._writing == {}


def test_what_a_killed_daemon_has_left_writing_is_waited_for(writers, tmp_path):
    """Else it would appear after the next one has looked, as somebody else's."""
    assert Writers(tmp_path / "writing").wait_for_earlier(0.0), "nobody has written yet"
    os.mkfifo(tmp_path / "slow")
    with pytest.raises(TimeoutError):
        writers.write(str(tmp_path / "slow"), "made", 1.0)
    later = Writers(tmp_path / "writing")
    assert not later.wait_for_earlier(0.1)
    with (tmp_path / "slow").open("rb") as reader:
        assert later.wait_for_earlier(30)
        assert reader.read() == b"made"


def test_without_a_place_for_the_lock_all_is_as_before(tmp_path):
    writers = Writers(tmp_path / "absent/writing")
    (tmp_path / "a").touch()
    writers.write(str(tmp_path / "a"), "1", 30)
    assert (tmp_path / "a").read_text() == "1"
    assert writers.wait_for_earlier(0.0)
    writers.close()


def test_one_that_hangs_is_not_given_more(writers, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "a").touch()
    with pytest.raises(TimeoutError):
        writers.write(str(tmp_path / "fifo"), "1", 0.1)
    assert writers._idle == []
    writers.write(str(tmp_path / "a"), "2", 30)
    assert (tmp_path / "fifo").read_text() == "1"


def test_it_ends_when_we_do(writers, tmp_path):
    (tmp_path / "a").touch()
    writers.write(str(tmp_path / "a"), "1", 30)
    (process,) = writers._idle
    writers.close()
    assert process.wait(30) == 0


def test_it_holds_none_of_our_descriptors(writers, tmp_path):
    (tmp_path / "a").touch()
    with (tmp_path / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        writers.write(str(tmp_path / "a"), "1", 30)
        links = [str(each.readlink()) for each in Path(f"/proc/{pid_of_idle(writers)}/fd").iterdir()]
    assert not [each for each in links if "ours" in each]

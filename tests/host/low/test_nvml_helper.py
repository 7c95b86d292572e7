"""The helper process: real processes that answer, hang, die or talk nonsense."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pytest

from vgpuctl.host.nvml.adapter import HelperNvml, NullNvml, why_not
from vgpuctl.model.fact import Unknown
from vgpuctl.ports.nvml import NvmlHost

EMPTY = json.dumps({"$kind": "NvmlHost", "driver_version": "550.54.16", "gpus": []})
ANSWER = NvmlHost(driver_version="550.54.16", gpus=())


class Scripted:
    """A helper whose n-th process runs the n-th script (the last one again and again)."""

    def __init__(self, directory: Path, *scripts: str) -> None:
        self.directory = directory
        for number, script in enumerate(scripts):
            (directory / f"{number}.sh").write_text(script)
        program = (
            f"cd {directory}; echo $$ >> pids; n=$(($(wc -l < pids) - 1)); "
            f"[ -e $n.sh ] || n={len(scripts) - 1}; . ./$n.sh"
        )
        self.nvml = HelperNvml(("/bin/sh", "-c", program), objection=lambda: None)

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in (self.directory / "pids").read_text().split()]


ANSWERS = f"while read request; do echo '{EMPTY}'; done"


@pytest.fixture
def scripted(tmp_path):
    made = []

    def make(*scripts: str) -> Scripted:
        made.append(Scripted(tmp_path, *scripts))
        return made[-1]

    yield make
    for each in made:
        each.nvml.release()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_real_helper_on_a_host_without_nvml():
    """ecosystem.md B0.4: nvmlInit without a driver raises LibraryNotFound."""
    nvml = HelperNvml(objection=lambda: None)
    try:
        answer = nvml.host(60)
    finally:
        nvml.release()
    if isinstance(answer, Unknown):
        assert answer.reason.startswith("nvmlInit: ")
    else:
        pytest.skip("this host has NVML")


class TestWhyNot:
    @pytest.fixture
    def proc(self, tmp_path: Path) -> Path:
        (tmp_path / "driver/nvidia").mkdir(parents=True)
        (tmp_path / "driver/nvidia/version").touch()
        (tmp_path / "1").mkdir()
        (tmp_path / "1/comm").write_text("systemd\n")
        (tmp_path / "99").mkdir()  # it ended between two looks
        return tmp_path

    def test_a_driver_that_is_loaded_may_be_asked(self, proc):
        assert why_not(proc) is None

    def test_a_driver_that_is_not_loaded_stays_so(self, proc):
        """As root nvmlInit loads it, which somebody may be replacing."""
        (proc / "driver/nvidia/version").unlink()
        assert "not loaded" in str(why_not(proc))

    def test_somebody_elses_sriov_manage_is_left_alone(self, proc):
        """hardware.md 1.5.6: any NVML client makes it fail; `-e ALL` takes one GPU after the other."""
        (proc / "412").mkdir()
        (proc / "412/comm").write_text("sriov-manage\n")
        assert "pid 412" in str(why_not(proc))

    def test_an_objection_starts_no_helper(self, tmp_path):
        nvml = HelperNvml((str(tmp_path / "absent"),), objection=lambda: "not now")
        assert nvml.host(60) == Unknown("not now")


def test_one_process_answers_many_questions(scripted):
    helper = scripted(ANSWERS)
    assert [helper.nvml.host(60) for _ in range(3)] == [ANSWER] * 3
    assert len(helper.pids) == 1


def test_nothing_is_started_before_the_first_question(scripted):
    helper = scripted(ANSWERS)
    assert not (helper.directory / "pids").exists()


def test_a_helper_that_hangs_is_killed_at_the_deadline_and_the_next_call_starts_afresh(scripted):
    helper = scripted("trap '' TERM; while read request; do while :; do sleep 0.02; done; done", ANSWERS)
    assert helper.nvml.host(0.3) == Unknown("NVML did not answer within 0.3 s")
    assert not is_alive(helper.pids[0])
    assert helper.nvml.host(60) == ANSWER
    assert len(helper.pids) == 2


def test_half_an_answer_is_none(scripted):
    helper = scripted("read request; printf '{\"driver'; read request")
    assert isinstance(helper.nvml.host(0.3), Unknown)


def test_a_helper_that_dies_is_told_and_replaced(scripted):
    helper = scripted("read request; kill -SEGV $$", ANSWERS)
    assert helper.nvml.host(60) == Unknown("the NVML helper ended (exit status -11)")
    assert helper.nvml.host(60) == ANSWER


def test_a_helper_that_died_between_two_questions_is_replaced(scripted):
    helper = scripted(f"read request; echo '{EMPTY}'; exit 0", ANSWERS)
    assert helper.nvml.host(60) == ANSWER
    while is_alive(helper.pids[0]) and Path(f"/proc/{helper.pids[0]}/stat").read_text().split()[2] != "Z":
        pass
    assert helper.nvml.host(60) == ANSWER
    assert len(helper.pids) == 2


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", "{}", '{"$kind": "NvmlHost", "driver_version": "1", "gpus": [{}]}']
)
def test_nonsense_is_unknown(scripted, line):
    answer = scripted(f"while read request; do echo '{line}'; done").nvml.host(60)
    assert isinstance(answer, Unknown)
    assert "cannot be understood" in answer.reason


def test_a_helper_that_cannot_be_started(tmp_path):
    answer = HelperNvml((str(tmp_path / "absent"),), objection=lambda: None).host(60)
    assert answer == Unknown("the NVML helper cannot be asked: No such file or directory")


def test_release_waits_until_the_helper_is_gone(scripted):
    """hardware.md 1.5.6: sriov-manage fails while any NVML client lives."""
    helper = scripted(f"{ANSWERS}; echo left > left")
    helper.nvml.host(60)
    helper.nvml.release()
    assert not is_alive(helper.pids[0])
    assert (helper.directory / "left").read_text() == "left\n"  # it left by itself, it was not killed
    assert helper.nvml.host(60) == ANSWER


def test_release_ends_one_that_does_not_leave(monkeypatch, scripted):
    monkeypatch.setattr("vgpuctl.host.nvml.adapter._LEAVE_TIMEOUT_S", 0.1)
    helper = scripted(f"{ANSWERS}; while :; do sleep 0.02; done")
    helper.nvml.host(60)
    helper.nvml.release()
    assert not is_alive(helper.pids[0])


def test_release_of_nothing(scripted):
    helper = scripted(ANSWERS)
    helper.nvml.release()
    assert not (helper.directory / "pids").exists(), "nobody was started for it"


def test_one_that_cannot_be_killed_is_not_joined_by_another(monkeypatch, scripted):
    """A client in D state stays; a sick driver must not collect processes."""
    helper = scripted("read request; while :; do sleep 0.02; done", ANSWERS)
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen.kill", lambda self: None)
        patch.setattr("vgpuctl.host.nvml.adapter._KILL_TIMEOUT_S", 0.05)
        assert isinstance(helper.nvml.host(0.3), Unknown)
    answer = helper.nvml.host(60)
    assert isinstance(answer, Unknown)
    assert f"pid {helper.pids[0]}" in answer.reason
    assert len(helper.pids) == 1
    os.kill(helper.pids[0], 9)
    while isinstance(helper.nvml.host(60), Unknown):
        pass
    assert len(helper.pids) == 2


def test_a_second_caller_does_not_wait_longer_than_it_said(scripted):
    helper = scripted("read request; echo here > here; read request")
    first = threading.Thread(target=helper.nvml.host, args=(60,))
    first.start()
    while not (helper.directory / "here").exists():
        pass
    assert helper.nvml.host(0.05) == Unknown("NVML did not answer within 0.05 s")
    os.kill(helper.pids[0], 9)
    first.join()


def test_what_the_library_prints_does_not_get_between_the_lines(tmp_path):
    """The real helper, over a module pynvml that prints and is not NVIDIA's."""
    (tmp_path / "pynvml.py").write_text("import os\nprint('hello')\nos.system('echo hello')\n")
    root = Path(__file__).parents[3]
    paths = f"import sys; sys.path[:0] = ['{tmp_path}', '{root}']"
    program = f"{paths}; from vgpuctl.host.nvml import helper; helper.main()"
    nvml = HelperNvml((sys.executable, "-c", program), objection=lambda: None)
    try:
        answer = nvml.host(60)
    finally:
        nvml.release()
    assert isinstance(answer, Unknown)
    assert f"{tmp_path}/pynvml.py" in answer.reason


def test_the_null_nvml():
    nvml = NullNvml("no NVML here")
    assert nvml.host(0) == Unknown("no NVML here")
    nvml.release()


class TestStarting:
    """A helper with `--greet` says when it is there: what takes long before that is no driver that hangs."""

    @staticmethod
    def started(directory: Path, script: str) -> HelperNvml:
        program = f"cd {directory}; echo $$ >> pids; {script}"
        return HelperNvml(("/bin/sh", "-c", program, "--greet"), objection=lambda: None)

    def test_a_slow_start_is_waited_for_and_not_killed(self, tmp_path):
        nvml = self.started(tmp_path, f"until [ -e go ]; do sleep 0.01; done; echo '{{}}'; {ANSWERS}")
        try:
            late = nvml.host(0.2)
            assert isinstance(late, Unknown)
            assert "has not started" in late.reason
            (tmp_path / "go").touch()
            assert nvml.host(60) == ANSWER
            assert nvml.host(60) == ANSWER
        finally:
            nvml.release()
        assert len((tmp_path / "pids").read_text().split()) == 1

    def test_one_that_never_starts_is_killed_in_the_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr("vgpuctl.host.nvml.adapter._START_TIMEOUT_S", 0.1)
        nvml = self.started(tmp_path, "exec sleep 600")
        assert "did not start" in str(nvml.host(0.5))
        (pid,) = (tmp_path / "pids").read_text().split()
        assert not is_alive(int(pid))

    def test_one_that_ends_before_it_greets_is_no_hang_either(self, tmp_path):
        nvml = self.started(tmp_path, "exit 3")
        assert "exit status 3" in str(nvml.host(60))

    def test_a_question_that_hangs_after_the_greeting_kills(self, tmp_path):
        nvml = self.started(tmp_path, "echo '{}'; exec sleep 600")
        assert "did not answer" in str(nvml.host(0.5))
        (pid,) = (tmp_path / "pids").read_text().split()
        assert not is_alive(int(pid))

"""sriov-manage, over programs that behave as the real one does; timing is never asserted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vgpuctl.host.kernel import LocalKernel
from vgpuctl.host.sriov import SriovManage, usable_systemd_run
from vgpuctl.ports.kernel import CommandResult

PF = "0000:41:00.0"
RUN_ONE = "import sys; from pathlib import Path; from vgpuctl.host.kernel import LocalKernel; \
LocalKernel(Path(sys.argv[1])).sriov_manage('0000:41:00.0', enable=True, timeout_s=60)"


class Host:
    """A root with a sriov-manage that is a shell script; `$here` is a directory for its traces."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.program = root / "usr/lib/nvidia/sriov-manage"
        self.results = root / "run/vgpuctl/sriov"
        self.pauses: list[float] = []

    def install(self, script: str) -> None:
        self.program.parent.mkdir(parents=True, exist_ok=True)
        self.program.write_text(f"#!/bin/sh\nhere={self.root}\n{script}\n")
        self.program.chmod(0o755)

    def manage(self, systemd_run: str | None = None) -> SriovManage:
        return SriovManage(self.program, self.results, systemd_run=systemd_run, sleep=self.pauses.append)

    def run(self, *, enable: bool = True, timeout_s: float = 60, systemd_run: str | None = None):
        return self.manage(systemd_run).run(PF, enable=enable, timeout_s=timeout_s)

    def trace(self, name: str) -> str:
        path = self.root / name
        return path.read_text() if path.exists() else ""

    def wait_for(self, name: str) -> str:
        while not self.trace(name):  # the suite's own timeout ends this
            pass
        return self.trace(name)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_not_installed(host):
    assert host.run() is None


def test_what_is_run_and_what_comes_back(host):
    host.install('echo "$@" > $here/arguments; echo out; echo err >&2; exit 3')
    assert host.run(enable=True) == CommandResult(3, "out\nerr\n")
    assert host.trace("arguments") == f"-e {PF}\n"
    host.run(enable=False)
    assert host.trace("arguments") == f"-d {PF}\n"


def test_no_result_is_left_behind(host):
    host.install("true")
    host.run()
    assert [path.name for path in host.results.iterdir()] == [f"{PF}.lock"]


def test_the_kernel_port_finds_it_below_its_root(host):
    host.install("echo enabled")
    result = LocalKernel(host.root).sriov_manage(PF, enable=True, timeout_s=60)
    assert result == CommandResult(0, "enabled\n")


def test_a_held_gpu_is_tried_again(host):
    """hardware.md 1.5.6: any NVML client makes it fail with these words; retried 5 times, 1 s apart."""
    host.install(
        "echo x >> $here/tries; [ $(wc -l < $here/tries) -ge 3 ] && exit 0\n"
        'echo "Cannot obtain unbindLock for $2"; exit 1'
    )
    assert host.run() == CommandResult(0, "")
    assert host.pauses == [1.0, 1.0]


def test_a_gpu_that_stays_held_is_given_up_after_five_tries(host):
    host.install('echo x >> $here/tries; echo "Cannot obtain unbindLock for $2"; exit 1')
    assert host.run() == CommandResult(1, f"Cannot obtain unbindLock for {PF}\n")
    assert host.trace("tries") == "x\n" * 5


def test_another_failure_is_not_tried_again(host):
    host.install("echo x >> $here/tries; echo 'No such device'; exit 1")
    assert host.run() == CommandResult(1, "No such device\n")
    assert host.trace("tries") == "x\n"


def test_tries_end_with_the_time(host):
    host.install('echo x >> $here/tries; echo "Cannot obtain unbindLock for $2"; exit 1')
    assert host.run(timeout_s=0.9) == CommandResult(1, f"Cannot obtain unbindLock for {PF}\n")
    assert host.trace("tries") == "x\n"


def test_after_the_time_it_goes_on_by_itself(host):
    """hardware.md 1.5.5: cut off half-way it leaves the PF on pci-pf-stub."""
    host.install(
        "echo started > $here/started; while [ ! -e $here/go ]; do sleep 0.02; done; echo done > $here/ended"
    )
    with pytest.raises(TimeoutError):
        host.run(timeout_s=0.3)
    (host.root / "go").touch()
    assert host.wait_for("ended") == "done\n"
    for _ in range(2):
        host.run()
    assert [path.name for path in host.results.iterdir()] == [f"{PF}.lock"]  # nor is its late result kept


def test_a_killed_daemon_does_not_take_it_along_and_the_next_one_waits(host):
    """A second sriov-manage beside the first would find the PF unbound."""
    host.install(
        "echo x >> $here/started; while [ ! -e $here/go ]; do sleep 0.02; done; echo x >> $here/ended"
    )
    daemon = subprocess.Popen(
        (sys.executable, "-c", RUN_ONE, str(host.root)), start_new_session=True, cwd=Path(__file__).parents[3]
    )
    host.wait_for("started")
    os.killpg(daemon.pid, signal.SIGKILL)
    daemon.wait()

    waits = threading.Event()

    def pause(seconds: float) -> None:
        waits.set()
        (host.root / "go").touch()
        while not host.trace("ended"):
            pass

    second = SriovManage(host.program, host.results, systemd_run=None, sleep=pause)
    assert second.run(PF, enable=True, timeout_s=60) == CommandResult(0, "")
    assert waits.is_set()
    assert host.trace("ended") == "x\nx\n"


def test_another_one_that_does_not_end_is_a_timeout(host):
    host.install("echo x >> $here/tries; while [ ! -e $here/go ]; do sleep 0.02; done; echo x >> $here/ended")
    with pytest.raises(TimeoutError):
        host.run(timeout_s=0.2)
    with pytest.raises(TimeoutError, match="previous sriov-manage"):
        host.run(timeout_s=0.9)
    assert host.trace("tries") == "x\n"
    (host.root / "go").touch()
    host.wait_for("ended")


def test_another_pf_does_not_wait(host):
    host.install(
        f"case $2 in {PF}) while [ ! -e $here/go ]; do sleep 0.02; done; echo x > $here/ended;; esac"
    )
    with pytest.raises(TimeoutError):
        host.run(timeout_s=0.2)
    assert host.manage().run("0000:61:00.0", enable=True, timeout_s=60) == CommandResult(0, "")
    (host.root / "go").touch()
    host.wait_for("ended")


def test_a_killed_runner_is_an_error(host):
    host.install("kill -9 $PPID")
    with pytest.raises(ChildProcessError):
        host.run()


class TestSystemd:
    """A unit of its own survives `systemctl restart vgpuctl`, which kills the daemon's cgroup."""

    @pytest.fixture
    def systemd_run(self, tmp_path: Path) -> str:
        """A systemd-run that starts the unit as the manager would, apart from its caller."""
        program = tmp_path / "systemd-run"
        program.write_text(
            f'#!/bin/sh\nwhile [ "$1" != -- ]; do echo "$1" >> {tmp_path}/options; shift; done; shift\n'
            'setsid "$@" < /dev/null > /dev/null 2>&1 &\n'
        )
        program.chmod(0o755)
        return str(program)

    def test_runs_in_a_unit(self, host, systemd_run):
        host.install("echo enabled; exit 0")
        assert host.run(systemd_run=systemd_run) == CommandResult(0, "enabled\n")
        assert "--unit=vgpuctl-sriov-manage-0000-41-00.0-" in host.trace("options")
        assert "--collect" in host.trace("options")
        assert re.search(r"--description=\S+sriov-manage -e 0000:41:00.0, for vgpuctl", host.trace("options"))

    def test_without_a_working_systemd_it_is_detached(self, host, tmp_path):
        broken = tmp_path / "systemd-run"
        broken.write_text("#!/bin/sh\nexit 1\n")
        broken.chmod(0o755)
        host.install("echo enabled")
        assert host.run(systemd_run=str(broken)) == CommandResult(0, "enabled\n")

    @pytest.mark.root
    @pytest.mark.skipif(
        usable_systemd_run() is None or os.geteuid() != 0, reason="systemd does not run this machine"
    )
    def test_the_real_one(self, host):
        host.install("cat /proc/self/cgroup")
        result = host.run(systemd_run=usable_systemd_run())
        assert result is not None
        assert "vgpuctl-sriov-manage-" in result.output

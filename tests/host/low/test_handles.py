"""Open handles, of real processes that hold real files.

They live in a PID namespace of their own: a container's pid 1 may be unreadable even for root, and
then the right answer about the whole machine is Unknown.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vgpuctl.host.handles import ProcHandles, domain_of
from vgpuctl.model.fact import Unknown
from vgpuctl.model.gpu import Holder

NODES = ("vfio/vfio", "vfio/12", "vfio/devices/vfio3", "nvidia0", "nvidiactl", "nvidia-uvm", "null")
PROGRAM = Path(__file__).with_name("holding_processes.py")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a PID namespace needs root")
class TestRealProcesses:
    @pytest.fixture
    def dev(self, tmp_path: Path) -> Path:
        for node in NODES:
            (tmp_path / "dev" / node).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "dev" / node).touch()
        return tmp_path / "dev"

    @staticmethod
    def see(dev: Path, *processes: dict, **more) -> dict:
        spec = json.dumps({"processes": processes, **more})
        command = (
            "unshare",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            sys.executable,
            PROGRAM,
            dev,
            spec,
        )
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[3])},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def test_who_holds_what(self, dev):
        seen = self.see(
            dev,
            {"nodes": ["vfio/12", "vfio/devices/vfio3"]},
            {"nodes": ["vfio/12", "nvidia0"]},
            {"nodes": []},
        )
        assert seen == {
            "/dev/vfio/12": [[0, "sh", None], [1, "sh", None]],
            "/dev/vfio/devices/vfio3": [[0, "sh", None]],
            "/dev/nvidia0": [[1, "sh", None]],
        }

    def test_twice_open_is_held_once(self, dev):
        assert self.see(dev, {"nodes": ["vfio/12", "vfio/12"]}) == {"/dev/vfio/12": [[0, "sh", None]]}

    def test_what_is_no_device(self, dev):
        """The VFIO container, nvidiactl and nvidia-uvm do not keep a GPU in use by themselves."""
        assert self.see(dev, {"nodes": ["vfio/vfio", "nvidiactl", "nvidia-uvm", "null"]}) == {}

    def test_who_only_names_a_node_does_not_hold_it(self, dev):
        """udev does, for a moment, whenever a VF appears: a VF is not in use by that."""
        assert self.see(dev, named=["vfio/12", "nvidia0"]) == {}
        assert self.see(dev, {"nodes": ["vfio/12"]}, named=["vfio/12"]) == {"/dev/vfio/12": [[0, "sh", None]]}

    def test_a_node_that_is_gone_is_still_held(self, dev):
        """hardware.md 1.6.1: a device that is being removed waits for its last user."""
        seen = self.see(dev, {"nodes": ["vfio/12"]}, unlink=["vfio/12"])
        assert seen == {"/dev/vfio/12": [[0, "sh", None]]}

    def test_the_domain_stands_in_the_command_line(self, dev):
        name = ["-name", "guest=win11,, second,debug-threads=on"]
        seen = self.see(dev, {"nodes": ["vfio/12"], "arguments": name})
        assert seen == {"/dev/vfio/12": [[0, "sh", "win11, second"]]}

    def test_an_ended_process_that_nobody_waited_for_holds_nothing(self, dev):
        assert self.see(dev, {"nodes": ["vfio/12"], "then": "exit"}) == {}

    @pytest.mark.skipif(platform.machine() != "x86_64", reason="the program names a syscall by its number")
    def test_a_killed_process_that_hangs_in_the_kernel_holds_what_it_held(self, dev):
        """hardware.md 1.4.12: its first thread is gone, and with it everything in /proc/PID/fd."""
        seen = self.see(dev, half_dead=["vfio/12"])
        assert [each[0] for each in seen["/dev/vfio/12"]] == [0]

    def test_one_unreadable_process_makes_the_whole_answer_unknown(self, dev):
        """DESIGN: an unreadable /proc/PID/fd counts as busy; it may be the holder."""
        seen = self.see(dev, {"nodes": ["vfio/12"]}, user=65534)
        assert seen == {"unknown": "the open files of process 1 cannot be read: Permission denied"}


class TestProc:
    """What the real /proc shows only by chance, over a tree of links."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for pid in (1, 40, 300):
            (tmp_path / f"proc/{pid}/fd").mkdir(parents=True)
            (tmp_path / f"proc/{pid}/task/{pid}").mkdir(parents=True)
            (tmp_path / f"proc/{pid}/comm").write_text("qemu-system-x86\n")
            (tmp_path / f"proc/{pid}/cmdline").write_bytes(b"qemu\0-name\0guest=desk,process=qemu:desk\0")
        (tmp_path / "proc/self").mkdir()
        (tmp_path / "proc/meminfo").touch()
        return tmp_path

    def test_holders_come_in_the_order_of_the_pids(self, root):
        for pid in (300, 40):
            (root / f"proc/{pid}/fd/7").symlink_to(root / "dev/vfio/noiommu-3")
        assert ProcHandles(root).holders() == {
            "/dev/vfio/noiommu-3": (
                Holder(40, "qemu-system-x86", "desk"),
                Holder(300, "qemu-system-x86", "desk"),
            )
        }

    def test_a_process_that_vanishes_is_no_holder_and_no_error(self, root):
        (root / "proc/40/fd/7").symlink_to(root / "dev/vfio/3")
        (root / "proc/40/comm").unlink()
        (root / "proc/300/fd").rmdir()
        assert ProcHandles(root).holders() == {}

    def test_a_descriptor_that_is_no_node(self, root):
        (root / "proc/40/fd/0").symlink_to("socket:[1234]")
        (root / "proc/40/fd/1").symlink_to(root / "dev/vfio/12x")
        (root / "proc/40/fd/2").symlink_to(root / "development/vfio/12")
        assert ProcHandles(root).holders() == {}

    def test_a_proc_that_hides_processes_is_unknown(self, root):
        """With hidepid=2 the others are not even listed: nobody would seem to hold anything."""
        (root / "proc/1").rename(root / "proc/x1")
        seen = ProcHandles(root).holders()
        assert isinstance(seen, Unknown)
        assert "pid 1" in seen.reason

    def test_no_proc_at_all(self, tmp_path):
        assert isinstance(ProcHandles(tmp_path).holders(), Unknown)


@pytest.mark.parametrize(
    ("arguments", "domain"),
    [
        (["qemu", "-name", "guest=a"], "a"),
        (["qemu", "-name", "guest=a=b,debug-threads=on"], "a=b"),
        (["qemu", "-name", "debug-threads=on,guest=a,,b"], "a,b"),
        (["qemu", "-name", "by-hand"], None),
        (["qemu", "-name"], None),
        (["qemu", "-device", "guest=a"], None),
        ([], None),
    ],
)
def test_domain_of(arguments, domain):
    assert domain_of(arguments) == domain

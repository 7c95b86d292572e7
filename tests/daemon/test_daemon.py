"""The daemon as a real process, on a simulated host, with libvirt's test driver."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vgpuctl.client.client import Client
from vgpuctl.errors import DaemonUnreachable, InvalidInput, RevisionGone

pytestmark = pytest.mark.slow

CREATE = {"action": "create-vgpu", "type": "L40S-8Q", "name": "one"}
PATIENCE_S = 60


@dataclass
class Daemon:
    """One daemon's directory, and the process that runs in it."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None
    systemd: socket.socket = field(init=False)
    arguments: list[str] = field(default_factory=lambda: ["--simulate", "l40s:sriov-mdev"])
    program: tuple[str, str] = ("-m", "vgpuctl.daemon")

    def __post_init__(self) -> None:
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.bind(str(self.directory / "notify"))
        self.systemd.settimeout(PATIENCE_S)
        (self.directory / "vgpuctl.toml").touch()

    @property
    def socket(self) -> Path:
        return self.directory / "s"

    def start(self, *, pass_socket: socket.socket | None = None, **environ: str) -> None:
        self.launch(pass_socket=pass_socket, **environ)
        self.hear("READY=1")

    def launch(self, *, pass_socket: socket.socket | None = None, **environ: str) -> None:
        command = [sys.executable, *self.program, *self.arguments]
        command += ["--libvirt", "test:///default", "--state-dir", str(self.directory / "state")]
        command += ["--socket", str(self.socket), "--config", str(self.directory / "vgpuctl.toml")]
        environ = {**os.environ, "NOTIFY_SOCKET": str(self.directory / "notify"), **environ}
        fds = []
        if pass_socket is not None:
            # As systemd does it: descriptor 3, and the pid that it is meant for.
            shell = 'exec 3<&"$0"; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
            command = ["bash", "-c", shell, str(pass_socket.fileno()), *command]
            fds = [pass_socket.fileno()]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environ, stderr=log, pass_fds=fds)

    def hear(self, line: str) -> list[str]:
        """Wait until the daemon has told systemd so; all that it told, up to that."""
        told: list[str] = []
        while line not in told:
            told += self.systemd.recv(4096).decode().splitlines()
        return told

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    @property
    def client(self) -> Client:
        return Client(str(self.socket))

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "log").read_text().splitlines()]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.log() if each["event"] == event]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that the tests of this module share; each leaves it serving."""
    with daemon_in(tmp_path_factory.mktemp("d")) as made:
        made.start()
        yield made


@contextlib.contextmanager
def daemon_in(directory: Path) -> Iterator[Daemon]:
    """A daemon of its own, which is not running yet, and is not afterwards."""
    made = Daemon(directory)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.wait()
        made.systemd.close()


def until(happened: Callable[[], Any]) -> Any:
    """What `happened` says, once it says something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := happened()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


def vgpus(daemon: Daemon) -> list[tuple[str, str]]:
    return [(each["name"], each["state"]) for each in daemon.client.get("/v1/vgpus")]


def test_it_serves_a_simulated_host(daemon: Daemon) -> None:
    host = daemon.client.get("/v1/host")
    assert (host["simulated"], host["gpus"], host["libvirt_uri"]) == (True, 1, "test:///default")
    assert daemon.client.get("/v1")["role"] == "operate"
    assert {each["name"] for each in daemon.client.get("/v1/profiles")}


def test_a_vgpu_survives_kill_9_and_a_restart(daemon: Daemon) -> None:
    made = daemon.client.post("/v1/operations", CREATE, wait=PATIENCE_S)
    assert made["state"] == "succeeded"
    (admitted,) = daemon.logged("operation admitted")
    assert (admitted["operation"], admitted["uid"]) == (made["id"], os.getuid())
    assert all(each["operation"] for each in daemon.logged("step done"))
    assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
    assert daemon.socket.exists(), "nobody could take it away"
    before = os.umask(0)
    try:
        daemon.start()
    finally:
        os.umask(before)
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    assert "Umask:\t0022\n" in status, "what it makes as root is nobody else's to write"
    assert vgpus(daemon) == [("one", "present")]


@pytest.fixture
def lossy(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose only vGPU was lost in a boot, and stands on a GPU that answers nothing; not running."""
    with daemon_in(tmp_path) as made:
        made.start()
        made.client.post("/v1/operations", CREATE, wait=PATIENCE_S)
        made.client.post("/v1/sim/fail", {"what": "gpu", "gpu": "0000:41:00.0", "errno": "EIO"})
        made.client.post("/v1/sim/reboot", {})
        made.end(signal.SIGKILL)
        yield made


def test_ready_is_said_after_the_first_restore_and_what_is_missing_is_named(lossy: Daemon) -> None:
    (lossy.directory / "vgpuctl.toml").write_text("wait_for_gpus_s = 2\n")
    lossy.launch()
    told = lossy.hear("READY=1")
    assert told[0].startswith("EXTEND_TIMEOUT_USEC=3")
    assert told[-1].endswith("; 1 vGPUs missing")
    (missing,) = lossy.logged("a vGPU is missing")
    assert (missing["vgpu"], missing["level"]) == ("one", "warning")
    assert "0000:41:00.0" in missing["reason"]
    lossy.client.post("/v1/sim/heal", {})
    lossy.end(signal.SIGKILL)
    lossy.launch()
    assert "missing" not in lossy.hear("READY=1")[-1]
    assert vgpus(lossy) == [("one", "present")]
    lossy.end()


def test_while_it_waits_it_serves_and_can_be_stopped(lossy: Daemon) -> None:
    (lossy.directory / "vgpuctl.toml").write_text("wait_for_gpus_s = 3600\n")
    lossy.launch()
    until(lambda: len(lossy.logged("serving")) == 2)
    assert [name for name, _ in vgpus(lossy)] == ["one"]
    assert lossy.process is not None
    lossy.process.send_signal(signal.SIGHUP)
    until(lambda: lossy.logged("configuration reloaded"))
    assert lossy.end() == 0
    told = lossy.hear("STOPPING=1")
    assert not {"READY=1", "RELOADING=1"} & {*told}


def test_a_second_daemon_is_refused(daemon: Daemon) -> None:
    def second(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vgpuctl.daemon", "--simulate", "t4", *arguments]
        return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_S)

    state, other = str(daemon.directory / "state"), str(daemon.directory / "other")
    ended = second("--state-dir", other, "--socket", str(daemon.socket))
    assert (ended.returncode, "another daemon answers" in ended.stderr) == (4, True)
    assert not Path(other).exists()
    ended = second("--state-dir", state, "--socket", str(daemon.directory / "s2"))
    assert (ended.returncode, "another daemon (pid" in ended.stderr) == (4, True)
    assert "hint: " in ended.stderr
    assert daemon.client.get("/v1")["api"] == "v1"


def test_reload_takes_profiles_and_a_bad_configuration_changes_nothing(daemon: Daemon) -> None:
    profiles = daemon.directory / "profiles"
    profiles.mkdir()
    (profiles / "p.yaml").write_text("apiVersion: vgpuctl/v1\nkind: Profile\nname: fresh\ntypes: [L40S-8Q]\n")
    configuration = daemon.directory / "vgpuctl.toml"
    assert daemon.process is not None
    assert daemon.client.get("/v1/host")["repair"] == "auto"
    configuration.write_text(
        f'profiles_dir = "{profiles}"\nsocket = "/elsewhere"\nlog_level = "debug"\nrepair = "never"\n'
        "wait_for_gpus_s = 5\n"
    )
    daemon.process.send_signal(signal.SIGHUP)
    daemon.hear("RELOADING=1")
    daemon.hear("READY=1")
    assert daemon.client.get("/v1/profiles/fresh")["types"] == ["L40S-8Q"]
    assert until(lambda: daemon.logged("request")), "the level is debug now"
    assert daemon.client.get("/v1/host")["repair"] == "never"
    (told,) = daemon.logged("some settings need a restart")
    assert told["settings"] == ["wait_for_gpus_s"], "the socket is on the command line, which wins"
    configuration.write_text('profiles_dirs = "x"\n')
    daemon.process.send_signal(signal.SIGHUP)
    daemon.hear("RELOADING=1")
    daemon.hear("READY=1")
    assert daemon.logged("configuration not reloaded; the old one stays")
    assert daemon.client.get("/v1/profiles/fresh")["name"] == "fresh"
    configuration.write_text("")


def test_a_body_that_is_too_large_is_refused_in_words(daemon: Daemon) -> None:
    """A server that hangs up on a client in the middle of sending leaves it without the answer."""
    with pytest.raises(InvalidInput, match="a body has at most"):
        daemon.client.post("/v1/plans", {"action": "apply", "source": "x" * 6_000_000})


def test_simulation_controls_reach_the_simulated_host(daemon: Daemon) -> None:
    before = daemon.client.get("/v1/host")["boot_id"]
    with pytest.raises(InvalidInput):
        daemon.client.post("/v1/sim/explode", {})
    daemon.client.post("/v1/sim/reboot", {})
    assert daemon.client.get("/v1/host")["boot_id"] != before


def test_a_stream_goes_on_while_others_are_served_and_ends_with_the_daemon(daemon: Daemon) -> None:
    seen: list[dict[str, Any]] = []
    ended = threading.Event()

    def follow() -> None:
        with contextlib.suppress(DaemonUnreachable):
            for event in daemon.client.stream("/v1/events", follow=1, since=0):
                seen.append(event)  # noqa: PERF402 -- seen as they come
        ended.set()

    watcher = threading.Thread(target=follow, daemon=True)
    watcher.start()
    until(lambda: seen)
    daemon.client.post("/v1/operations", {"action": "delete-vgpu", "vgpu": "one"}, wait=PATIENCE_S)
    until(lambda: any(each["kind"] == "operation-ended" or "ended" in each["kind"] for each in seen))
    assert [each["revision"] for each in seen] == sorted(each["revision"] for each in seen)
    assert daemon.end() == 0
    assert ended.wait(PATIENCE_S)
    assert not daemon.socket.exists()
    daemon.hear("STOPPING=1")
    assert daemon.log()[-1]["event"] == "stopped"
    daemon.start()


def test_a_socket_of_systemds_is_served_with_credentials(daemon: Daemon) -> None:
    """ecosystem.md B0.6: as AF_INET its requests would carry no credentials, and be denied."""
    daemon.end()
    passed = socket.socket(socket.AF_UNIX)
    passed.bind(str(daemon.socket))
    passed.listen()
    daemon.start(pass_socket=passed)
    passed.close()
    assert daemon.client.get("/v1")["role"] == "operate"
    assert daemon.end(signal.SIGINT) == 0
    assert daemon.socket.exists()
    daemon.socket.unlink()
    daemon.start()


def test_the_watchdog_hears_from_us(daemon: Daemon) -> None:
    daemon.end()
    daemon.start(WATCHDOG_USEC="200000")
    daemon.hear("WATCHDOG=1")


def broken(member: str) -> tuple[str, str]:
    """A daemon's program in which that method of that class fails."""
    module, name, method = member.split(":")
    return "-c", (
        f"import {module} as module\n"
        "def fail(_self): raise RuntimeError('broken')\n"
        f"module.{name}.{method} = fail\n"
        "from vgpuctl.daemon.__main__ import main\n"
        "main()\n"
    )


def test_one_that_serves_no_more_is_not_said_to_be_well(tmp_path: Path) -> None:
    with daemon_in(tmp_path) as daemon:
        daemon.program = broken("vgpuctl.daemon.server:UnixServer:serve")
        daemon.start(WATCHDOG_USEC="200000")
        daemon.systemd.settimeout(2)
        with pytest.raises(TimeoutError):
            daemon.hear("WATCHDOG=1")


def test_one_that_fails_once_it_serves_ends(tmp_path: Path) -> None:
    """Else the server's threads would keep it, with nobody who listens to signals."""
    with daemon_in(tmp_path) as daemon:
        daemon.program = broken("vgpuctl.daemon.main:Readiness:start")
        daemon.launch()
        assert daemon.process is not None
        assert daemon.process.wait(PATIENCE_S) == 1
        assert not daemon.socket.exists()


def test_what_is_wrong_with_the_start_is_said(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('sockt = "x"\nlog_level = "loud"\n')
    command = [sys.executable, "-m", "vgpuctl.daemon", "--config", str(tmp_path / "c.toml")]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_S)
    assert ended.returncode == 2
    assert 'sockt: unknown key; did you mean "socket"?' in ended.stderr
    assert "log_level: must be" in ended.stderr


def test_a_revision_of_the_future_is_no_error(daemon: Daemon) -> None:
    with contextlib.suppress(RevisionGone):
        assert daemon.client.get("/v1/events", since=10**9) == []


def test_a_wrong_option_is_told_as_the_user_gave_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vgpuctl", "daemon", "--nonsense"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: vgpuctl daemon ")


@pytest.mark.parametrize("option", ["--state-dir", "--socket", "--config", "--root"])
def test_an_empty_path_is_not_the_current_directory(option: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "vgpuctl.daemon", "--simulate", "t4", option, ""],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2
    assert f"'{option}': it is empty" in done.stderr
    assert not list(tmp_path.iterdir())

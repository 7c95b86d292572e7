"""NVIDIA's sriov-manage, run outside of the daemon's life.

Cut off half-way it leaves the PF on pci-pf-stub without VFs, and NVML no longer lists the card
(hardware.md 1.5, cubecos issue 1459).  So it runs in a systemd unit of its own, or, without systemd, in
a session of its own; its exit status comes back through a file.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_result,
    stop_after_attempt,
    stop_before_delay,
    wait_fixed,
)

from vgpuctl.host import helper
from vgpuctl.ports.kernel import CommandResult

_BUSY = "Cannot obtain unbindLock"
"""The words of sriov-manage when somebody has the GPU open (hardware.md 1.5)."""
_ATTEMPTS = 5
_PAUSE_S = 1.0
_POLL_S = 0.02
_SYSTEMD_RUN_TIMEOUT_S = 10.0


def usable_systemd_run() -> str | None:
    """The path of systemd-run, None where systemd is not the running manager (sd_booted(3))."""
    return shutil.which("systemd-run") if Path("/run/systemd/system").is_dir() else None


class SriovManage:
    """The installed sriov-manage; `directory` takes the results, and a lock per PF.

    Without `systemd_run` it is started as a detached process.
    """

    def __init__(
        self,
        program: Path,
        directory: Path,
        *,
        systemd_run: str | None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._program = program
        self._directory = directory
        self._systemd_run = systemd_run
        self._sleep = sleep

    def run(self, address: str, *, enable: bool, timeout_s: float) -> CommandResult | None:
        """Turn a PF's VFs on or off; None where the program is not installed.

        A PF that somebody holds open is tried 5 times, 1 s apart; one whose previous sriov-manage
        still runs (started before a restart of the daemon) is waited for.  Raises TimeoutError after
        `timeout_s`; what was started goes on.
        """
        if not os.access(self._program, os.X_OK):
            return None
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = (str(self._program), "-e" if enable else "-d", address)
        deadline = time.monotonic() + timeout_s
        while_running = Retrying(
            retry=retry_if_result(lambda result: result is None),
            stop=stop_before_delay(timeout_s),
            wait=wait_fixed(_PAUSE_S),
            sleep=self._sleep,
            retry_error_callback=lambda _: _give_up(address, timeout_s),
        )
        while_busy = Retrying(
            retry=retry_if_result(lambda result: _BUSY in result.output),
            stop=stop_after_attempt(_ATTEMPTS) | stop_before_delay(timeout_s),
            wait=wait_fixed(_PAUSE_S),
            sleep=self._sleep,
            retry_error_callback=_last_result,
        )
        return while_busy(lambda: while_running(self._attempt, address, command, deadline))

    def _attempt(self, address: str, command: tuple[str, ...], deadline: float) -> CommandResult | None:
        """Run it once; None when a previous one still holds the PF's lock."""
        for left in self._directory.glob(f"{address}.*.json"):
            left.unlink(missing_ok=True)  # nobody waits for it any more
        result = self._directory / f"{address}.{uuid4().hex}.json"
        process = self._start(
            address,
            helper.script("sriov_runner.py", str(self._directory / f"{address}.lock"), str(result), *command),
        )
        try:
            while not result.exists():
                if process is not None and process.poll() is not None and not result.exists():
                    raise OSError(errno.ECHILD, "sriov-manage was killed", command[0])
                if time.monotonic() >= deadline:
                    raise TimeoutError(errno.ETIMEDOUT, "sriov-manage is still running", command[0])
                time.sleep(_POLL_S)
        finally:
            if process is not None:
                helper.abandon(process)
        answer = json.loads(result.read_text())
        result.unlink(missing_ok=True)
        return CommandResult(**answer) if answer else None

    def _start(self, address: str, command: tuple[str, ...]) -> subprocess.Popen[bytes] | None:
        """Start the runner: the detached process, or None when it is a systemd unit."""
        if self._systemd_run is not None:
            unit = f"vgpuctl-sriov-manage-{address.replace(':', '-')}-{uuid4().hex[:8]}"
            what = f"--description={' '.join(command[-3:])}, for vgpuctl"
            options = ("--quiet", "--collect", f"--unit={unit}", what, "--property=KillMode=mixed", "--")
            status, _ = helper.run((self._systemd_run, *options, *command), _SYSTEMD_RUN_TIMEOUT_S)
            if status == 0:
                return None
        return helper.start(command, piped=False)


def _last_result(state: RetryCallState) -> CommandResult:
    assert state.outcome is not None
    result: CommandResult = state.outcome.result()
    return result


def _give_up(address: str, timeout_s: float) -> None:
    raise TimeoutError(
        errno.ETIMEDOUT, f"a previous sriov-manage for {address} is still running after {timeout_s:g} s"
    )

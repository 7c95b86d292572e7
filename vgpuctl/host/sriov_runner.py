"""Stand-alone script: run sriov-manage under the PF's lock and leave its result in a file.

    sriov_runner.py LOCK RESULT PROGRAM ARGUMENT...

The result is a JSON object with `exit_status` and `output`, or null when another one holds the lock.
Run by `vgpuctl.host.sriov` with a bare interpreter: it imports nothing of vgpuctl.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile


def run_locked(lock: str, command: list[str]) -> dict[str, object] | None:
    """Run `command` while holding `lock`; None when somebody else holds it.

    The program inherits the lock: as long as a child of it lives, another one does not start.
    """
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    with tempfile.TemporaryFile() as output:
        # A file, not a pipe: a grandchild that keeps the output open must not hold up the answer.
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(held,), check=False
        )
        output.seek(0)
        text = output.read().decode(errors="replace")
    return {"exit_status": ended.returncode, "output": text}


def leave(result: str, answer: dict[str, object] | None) -> None:
    """Write the result so that a reader finds either nothing or all of it."""
    part = f"{result}.part"
    with open(part, "w", encoding="utf-8") as file:  # noqa: PTH123  # pathlib doubles the start time
        json.dump(answer, file)
    os.rename(part, result)  # noqa: PTH104


if __name__ == "__main__":
    leave(sys.argv[2], run_locked(sys.argv[1], sys.argv[3:]))

"""Program: hold files open in real processes, and print what ProcHandles sees of them.

    holding_processes.py DEV {"processes": [{"nodes", "then", "arguments"}], "unlink": [...], "user": uid}

Runs as pid 1 of a PID namespace, with an O_PATH descriptor of each node of "named".  A holder is printed
as the number of its process in the list.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from vgpuctl.host.handles import ProcHandles
from vgpuctl.model.fact import Unknown

WAIT = "read line"
HALF_DEAD = """
import ctypes, sys, threading
held = open(sys.argv[1])
threading.Thread(target=lambda: (print("ready", flush=True), sys.stdin.read())).start()
ctypes.CDLL(None).syscall(60)  # exit(2): this thread alone
"""


def start(dev: Path, nodes: list[str], then: str = WAIT, arguments: list[str] | None = None) -> int:
    opened = " ".join(f"{3 + number}<>{dev / node}" for number, node in enumerate(nodes))
    script = f"exec {opened}; echo ready; {then}" if nodes else f"echo ready; {then}"
    child = subprocess.Popen(
        ("sh", "-c", script, "sh", *(arguments or [])), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    if then == "exit":
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return child.pid


def start_half_dead(dev: Path, node: str) -> int:
    """A process whose first thread has ended while another one lives."""
    child = subprocess.Popen(
        (sys.executable, "-c", HALF_DEAD, dev / node), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    while "Z" not in Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2]:
        pass
    return child.pid


def report(dev: Path, pids: list[int]) -> None:
    seen = ProcHandles(dev=dev).holders()
    if isinstance(seen, Unknown):
        answer = {"unknown": seen.reason}
    else:
        answer = {
            node: [[pids.index(h.pid), h.command, h.domain] for h in holders]
            for node, holders in seen.items()
        }
    print(json.dumps(answer), flush=True)


def main() -> None:
    dev, spec = Path(sys.argv[1]), json.loads(sys.argv[2])
    pids = [start(dev, **process) for process in spec["processes"]]
    pids += [start_half_dead(dev, node) for node in spec.get("half_dead", ())]
    for node in spec.get("named", ()):
        os.open(dev / node, os.O_PATH)
    for node in spec.get("unlink", ()):
        (dev / node).unlink()
    if "user" not in spec:
        report(dev, pids)
    elif os.fork() == 0:
        os.setgid(spec["user"])
        os.setuid(spec["user"])
        report(dev, pids)
        os._exit(0)
    else:
        os.wait()


if __name__ == "__main__":
    main()

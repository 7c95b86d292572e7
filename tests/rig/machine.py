"""A guest as a running machine: started from its saved state, asked to run commands, rebooted, stopped.

It has no network.  Commands go over a virtio serial port to an agent in the guest, files over a disk.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.rig.commands import LIBRARIES, of_tree
from tests.rig.guests import Guest

_APPEND: Final = (
    "console=ttyS0 root=/dev/vda rw quiet mitigations=off nokaslr audit=0 selinux=0 "
    "no_timer_check tsc=reliable random.trust_cpu=on systemd.show_status=0 net.ifnames=0 nmi_watchdog=0 "
    "rcupdate.rcu_cpu_stall_suppress=1 init_on_alloc=0"
)
_PAYLOAD_BYTES: Final = 256 << 20
_BOOT_S: Final = 300.0
_RESUME_S: Final = 120.0
# What a test of libvirt would else wait for at its first use: modules, QEMU's capabilities, bytecode.
_WARM_UP: Final = (
    "modprobe -a vfio vfio_iommu_type1 mdev vfio_pci; systemctl start libvirtd; virsh -q version; "
    "virsh domcapabilities --virttype qemu >/dev/null; virsh domcapabilities --virttype kvm >/dev/null; "
    "python3 -m compileall -q /usr/local/lib/python3*/dist-packages; "
    "python3 -m pytest --version; systemctl --failed --no-legend; sync"
)


class MachineError(Exception):
    """The machine does not do what it should; the text has the end of its console."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a machine is made of: the tree whose QEMU emulates it, the image it boots."""

    emulator: Path
    image: Path


class Machine:
    """One running guest; see `resumed` and `save`."""

    def __init__(
        self, guest: Guest, hardware: Hardware, directory: Path, disk: Path, *, incoming: Path | None
    ) -> None:
        """Start QEMU on `disk`; from the saved state `incoming`, else from the kernel of the image."""
        self.guest = guest
        self.directory = directory
        self._numbers = itertools.count(1)
        self._replies: dict[int, dict[str, Any]] = {}
        self._replied = threading.Condition()
        self._asking = threading.Lock()
        self._hung_up = False
        self.payload = directory / "payload.img"
        for path in (self.payload,):
            if not path.exists():
                path.touch()
            os.truncate(path, _PAYLOAD_BYTES)
        self._process = subprocess.Popen(
            _command(guest, hardware, directory, disk, incoming),
            env={**os.environ, "QEMU_MODULE_DIR": os.fspath(hardware.emulator / LIBRARIES / "qemu")},
            stdin=subprocess.DEVNULL,
            stdout=(directory / "qemu.log").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._monitor = _Monitor(self._connected("monitor"))
            self._agent = self._connected("agent")
            self.reports = self._connected("reports")
            threading.Thread(target=self._listen, name="rig agent", daemon=True).start()
            self._wait_until_running(_RESUME_S if incoming else _BOOT_S, saved=incoming is not None)
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def save(guest: Guest, hardware: Hardware, path: Path) -> None:
        """Boot once, warm up, and leave `disk.qcow2` and `state.zst` of the running machine in `path`."""
        disk = path / "disk.qcow2"
        _image_over(hardware.image / "root.img", "raw", disk)
        with tempfile.TemporaryDirectory() as work:
            machine = Machine(guest, hardware, Path(work), disk, incoming=None)
            try:
                status, output = machine.sh(_WARM_UP, timeout_s=_BOOT_S)
                (path / "warm-up.log").write_text(output)
                if status:
                    raise machine.failure(f"warming up ended with {status}: {output}")
                machine._migrate_to(path / "state.zst")
            finally:
                machine.stop()

    @classmethod
    def resumed(
        cls, guest: Guest, hardware: Hardware, golden: Path, directory: Path, payload: Path | None
    ) -> Machine:
        """A machine from the saved state, on a disk of its own below `directory`.

        `payload` is a tar archive that the guest finds as /dev/vdb.
        """
        directory.mkdir(parents=True, exist_ok=True)
        if payload is not None:
            shutil.copy(payload, directory / "payload.img")
        disk = directory / "disk.qcow2"
        disk.unlink(missing_ok=True)
        _image_over(golden / "disk.qcow2", "qcow2", disk)
        machine = cls(guest, hardware, directory, disk, incoming=golden / "state.zst")
        machine.must(f"date -s @{time.time():.0f}; echo 3 > /proc/sys/vm/drop_caches")
        return machine

    def sh(self, command: str, *, timeout_s: float = 60.0, stdin: bytes = b"") -> tuple[int, str]:
        """Exit status and output (both streams) of a shell command in the guest; 124 when it took longer."""
        reply = self._ask(
            {"sh": command, "timeout": timeout_s, "stdin": base64.b64encode(stdin).decode()}, timeout_s + 30
        )
        return reply["rc"], base64.b64decode(reply["out"]).decode(errors="replace")

    def must(self, command: str, *, timeout_s: float = 60.0, stdin: bytes = b"") -> str:
        """The output of a command that has to succeed."""
        status, output = self.sh(command, timeout_s=timeout_s, stdin=stdin)
        if status:
            raise self.failure(f"{command!r} ended with {status}:\n{output}")
        return output

    def reboot(self, *, hard: bool = False) -> None:
        """Boot again and wait for the agent; `hard` is the reset button, without a shutdown."""
        before = self.must("cat /proc/sys/kernel/random/boot_id")
        if hard:
            self._monitor.do("system_reset")
        else:
            self._last_word("systemctl reboot")
        deadline = time.monotonic() + _BOOT_S
        while True:
            self._wait_for_agent(deadline)
            if self._last_word("cat /proc/sys/kernel/random/boot_id") not in (None, before):
                return
            if time.monotonic() > deadline:
                raise self.failure("it did not boot again")
            time.sleep(0.5)

    def _last_word(self, command: str) -> str | None:
        """What a command prints; None from a guest that goes down before it can say so."""
        try:
            status, output = self.sh(command, timeout_s=15)
        except TimeoutError:
            return None
        return output if status == 0 else None

    def stop(self) -> None:
        """End QEMU and what waits for it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    @property
    def is_running(self) -> bool:
        """Whether QEMU is there."""
        return self._process.poll() is None

    def answers_within(self, timeout_s: float) -> bool:
        """Whether the guest's agent still says something."""
        try:
            self._ask({"ping": 1}, timeout_s)
        except (TimeoutError, MachineError):
            return False
        return True

    def processors(self) -> str:
        """Where its processors stand, as QEMU tells: of a guest that says nothing any more."""
        return str(self._monitor.do("human-monitor-command", **{"command-line": "info registers -a"}))

    def failure(self, text: str) -> MachineError:
        """An error with the end of the guest's console and of what QEMU said."""
        ends = [text]
        for name in ("console.log", "qemu.log"):
            path = self.directory / name
            if path.exists() and path.stat().st_size:
                ends.append(f"--- {name}\n{path.read_text(errors='replace')[-3000:]}")
        return MachineError("\n".join(ends))

    def _connected(self, name: str) -> socket.socket:
        path = self.directory / f"{name}.sock"
        deadline = time.monotonic() + 30
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(os.fspath(path))
            except OSError as error:
                connection.close()
                if not self.is_running or time.monotonic() > deadline:
                    raise self.failure(f"QEMU does not answer: {error}") from error
                time.sleep(0.05)
            else:
                return connection

    def _wait_until_running(self, timeout_s: float, *, saved: bool) -> None:
        deadline = time.monotonic() + timeout_s
        # It was saved stopped, so it comes back stopped.
        while saved and (state := self._monitor.do("query-status")["status"]) != "running":
            if state == "paused":
                self._monitor.do("cont")
            elif time.monotonic() > deadline or not self.is_running:
                raise self.failure(f"it does not come back ({state})")
            else:
                time.sleep(0.05)
        self._wait_for_agent(deadline)

    def _wait_for_agent(self, deadline: float) -> None:
        while True:
            try:
                self._ask({"ping": 1}, 3.0)
            except TimeoutError as error:
                if time.monotonic() > deadline or not self.is_running:
                    raise self.failure("its agent does not answer") from error
            else:
                return

    def _ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        number = next(self._numbers)
        try:
            with self._asking:
                self._agent.sendall((json.dumps({"id": number, **request}) + "\n").encode())
        except OSError as error:
            raise self.failure(f"the machine is gone: {error}") from error
        with self._replied:
            self._replied.wait_for(lambda: number in self._replies or self._hung_up, timeout_s)
            if number in self._replies:
                return self._replies.pop(number)
        if self._hung_up:
            raise self.failure("the machine ended before it answered")
        raise TimeoutError(f"the guest did not answer within {timeout_s:g} s")

    def _listen(self) -> None:
        for line in _lines(self._agent):
            try:
                reply = json.loads(line)
            except ValueError:
                continue  # the rest of a line from before the machine was saved
            with self._replied:
                self._replies[reply["id"]] = reply
                self._replied.notify_all()
        with self._replied:
            self._hung_up = True
            self._replied.notify_all()

    def _migrate_to(self, file: Path) -> None:
        self._monitor.do("migrate-set-parameters", **{"max-bandwidth": 10 << 30})
        self._monitor.do("stop")
        self._monitor.do("migrate", uri=f"exec:zstd -q -3 -T2 > {file}")
        while (state := self._monitor.do("query-migrate")["status"]) != "completed":
            if state in ("failed", "cancelled"):
                raise self.failure(f"saving the machine: {state}")
            time.sleep(0.2)


class _Monitor:
    """QEMU's machine protocol."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = _lines(connection)
        next(self._lines)
        self.do("qmp_capabilities")

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one command."""
        self._connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        for line in self._lines:
            reply = json.loads(line)
            if "error" in reply:
                raise MachineError(f"QEMU refuses {command}: {reply['error']['desc']}")
            if "return" in reply:
                answer: dict[str, Any] = reply["return"]
                return answer
        raise MachineError(f"QEMU ended at {command}")


def _lines(connection: socket.socket) -> Iterator[bytes]:
    """The lines that arrive, until the other side is gone."""
    text = b""
    while True:
        try:
            chunk = connection.recv(1 << 16)
        except OSError:
            return
        if not chunk:
            return
        *lines, text = (text + chunk).split(b"\n")
        yield from lines


def _image_over(below: Path, kind: str, disk: Path) -> None:
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", below.resolve(), "-F", kind, disk], check=True
    )


def _emulator(tree: Path) -> tuple[str, ...]:
    """The QEMU of another Debian's tree, with that tree's firmware."""
    share = tree / "usr" / "share"
    return (
        *of_tree(tree, "usr/bin/qemu-system-x86_64"),
        *("-L", f"{share}/qemu", "-L", f"{share}/seabios"),
    )


def _command(
    guest: Guest, hardware: Hardware, directory: Path, disk: Path, incoming: Path | None
) -> list[str]:
    image = hardware.image

    def drive(number: int, file: Path, kind: str) -> tuple[str, ...]:
        return (
            "-drive",
            f"file={file},if=none,id=d{number},format={kind},cache=unsafe",
            "-device",
            f"virtio-blk-pci,drive=d{number}",
        )

    def channel(name: str) -> tuple[str, ...]:
        return (
            "-chardev",
            f"socket,id={name},path={directory / name}.sock,server=on,wait=off",
            "-device",
            f"virtserialport,chardev={name},name=rig.{name}",
        )

    return [
        # A run that is killed takes its machine along.
        *("setpriv", "--pdeathsig", "KILL", *_emulator(hardware.emulator)),
        *("-name", f"rig-{guest.name}", "-nodefaults", "-display", "none"),
        # Page tables of five levels are a quarter more to walk, at each miss of the emulated TLB.
        *("-machine", "pc-q35-7.2,smm=off", "-accel", "tcg,thread=multi", "-cpu", "max,la57=off"),
        # One processor: with two, code that Linux patches while it runs (a static key, as when libvirt makes
        # a cpuset) can be met half patched by the other, and the guest panics on an int3.
        *("-smp", "1", "-m", str(guest.mib)),
        *("-kernel", f"{image}/vmlinuz", "-initrd", f"{image}/initrd.img", "-append", _APPEND),
        *drive(0, disk, "qcow2"),
        *drive(1, directory / "payload.img", "raw"),
        *("-device", "virtio-serial-pci", *channel("agent"), *channel("reports")),
        *("-device", "virtio-rng-pci", "-nic", "none"),
        *("-serial", f"file:{directory / 'console.log'}"),
        *("-qmp", f"unix:{directory / 'monitor.sock'},server=on,wait=off"),
        *(("-incoming", f"exec:zstd -dc {incoming}") if incoming else ()),
    ]

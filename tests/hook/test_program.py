"""The hook as a process: each operation that libvirt calls, with the daemon up, down, slow, and killed."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.hook import SOURCE, call, domain, install, mdev_hostdev, vf_hostdev

VGPU, DOMAIN = UUID(int=7, version=4), UUID(int=9, version=4)
VF = "0000:41:00.4"
OURS = domain("win1", DOMAIN, mdev_hostdev(VGPU))
ON_A_VF = domain("win1", DOMAIN, vf_hostdev(VGPU))
PLAIN = domain("win1", DOMAIN)
PREPARE = ("win1", "prepare", "begin", "-")
RELEASE = ("win1", "release", "end", "shutdown")
OTHERS = [
    ("win1", "start", "begin", "-"),
    ("win1", "started", "begin", "-"),
    ("win1", "stopped", "end", "-"),
    RELEASE,
    ("win1", "reconnect", "begin", "-"),
    ("win1", "attach", "begin", "-"),
    ("win1", "migrate", "begin", "-"),
    ("win1", "restore", "begin", "-"),
    ("win1", "what libvirt calls one day", "begin", "-"),
    ("win1",),
]


class Place:
    """What the hook sees of a host, and a daemon that answers as a test wants."""

    def __init__(self, directory: Path) -> None:
        self.run = directory / "hook"
        self.sys = directory / "sys"
        self.saved = directory / "save"
        self.run.mkdir()
        (self.sys / "bus/mdev/devices").mkdir(parents=True)
        self.saved.mkdir()
        self.proc = directory / "proc"
        (self.proc / "sys/kernel/random").mkdir(parents=True)
        (self.proc / "sys/kernel/random/boot_id").write_text("this boot\n")
        self.open_by(1, "/dev/null")
        self.asked: list[dict[str, Any]] = []
        self.hook = self.install()

    def install(self, **constants: object) -> Path:
        paths = {"RUN": self.run, "SYS": self.sys, "SAVED": self.saved, "PROC": self.proc}
        constants |= {name: str(path) for name, path in paths.items()}
        return install(self.run.parent / "vgpuctl", **constants)

    def call(self, *arguments: str, xml: str = OURS) -> subprocess.CompletedProcess[str]:
        return call(self.hook, *arguments, xml=xml)

    @contextlib.contextmanager
    def daemon(self, answer: Callable[[dict[str, Any]], bytes | None]) -> Iterator[None]:
        """Answer on the hook's socket; None is to hang up without a word."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.run / "sock"))
        listening.listen()
        listening.settimeout(30)

        def serve() -> None:
            while True:
                try:
                    link, _ = listening.accept()
                except OSError:
                    return
                with link:
                    body = _body(link)
                    self.asked.append(body)
                    said = answer(body)
                    if said is not None:
                        link.sendall(said)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
            server.join(10)
            (self.run / "sock").unlink()

    def make_mdev(self, uuid: UUID, type_id: int = 222) -> None:
        device = self.sys / "bus/mdev/devices" / str(uuid)
        device.mkdir()
        (device / "mdev_type").symlink_to(f"../nvidia-{type_id}")
        (device / "iommu_group").symlink_to("../../kernel/iommu_groups/987654")

    def open_by(self, pid: int, *nodes: str, thread: int | None = None) -> None:
        """A process, one of whose threads has these open."""
        fds = self.proc / str(pid) / "task" / str(thread or pid) / "fd"
        fds.mkdir(parents=True)
        for number, node in enumerate(nodes):
            (fds / str(number)).symlink_to(node)

    def make_vf(self, type_id: int) -> None:
        device = self.sys / "bus/pci/devices" / VF / "nvidia"
        device.mkdir(parents=True)
        (device / "current_vgpu_type").write_text(f"{type_id}\n")

    def book(self, type_id: int = 222, vf: str | None = None, boot_id: str | None = None) -> None:
        boot_id = boot_id or "this boot"
        vgpus = {str(VGPU): {"type_id": type_id, "vf": vf}}
        (self.run / "book").write_text(json.dumps({"boot_id": boot_id, "vgpus": vgpus}))


def _body(link: socket.socket) -> dict[str, Any]:
    received = b""
    while b"\r\n\r\n" not in received:
        received += link.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += link.recv(65536)
    found: dict[str, Any] = json.loads(body)
    return found


def said(value: Any, status: str = "200 OK") -> bytes:
    body = json.dumps(value).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def place() -> Iterator[Place]:
    # Not pytest's directory: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="vgpuctl-hook-") as directory:
        yield Place(Path(directory))


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("xml", [OURS, PLAIN, "no XML at all"], ids=["ours", "plain", "broken"])
@pytest.mark.parametrize("arguments", OTHERS, ids=lambda each: " ".join(each[1:3]))
def test_whatever_may_not_be_refused_ends_well_and_prints_nothing(place: Place, arguments: Any, xml: str):
    """hardware.md T4: a failing `reconnect` hook kills the guest; what `migrate` prints becomes its XML."""
    assert outcome(place.call(*arguments, xml=xml)) == (0, "", "")
    with place.daemon(lambda _: said({"allowed": False, "why": "no"})):
        assert outcome(place.call(*arguments, xml=xml)) == (0, "", "")
    assert [each["operation"] for each in place.asked] == ["release"] * (arguments == RELEASE and xml is OURS)


def test_a_domain_without_our_alias_passes_without_a_question(place: Place):
    foreign = domain("win1", DOMAIN, mdev_hostdev(VGPU).replace("ua-vgpuctl-", "ua-"))
    on_another_device = domain(
        "win1", DOMAIN, f"<input type='tablet' bus='usb'><alias name='ua-vgpuctl-{VGPU}'/></input>"
    )
    with place.daemon(lambda _: said({"allowed": False, "why": "no"})):
        for xml in (PLAIN, foreign, on_another_device):
            assert outcome(place.call(*PREPARE, xml=xml)) == (0, "", "")
    assert place.asked == []


def test_what_the_daemon_is_asked(place: Place):
    with place.daemon(lambda _: said({"allowed": True})):
        xml = domain("win1", DOMAIN, mdev_hostdev(VGPU), vf_hostdev(UUID(int=8)))
        assert outcome(place.call(*PREPARE, xml=xml)) == (0, "", "")
        assert outcome(place.call(*RELEASE, xml=xml)) == (0, "", "")
    start, release = place.asked
    assert start["vgpus"] == [
        {"vgpu": str(VGPU), "mdev": str(VGPU), "vf": None},
        {"vgpu": str(UUID(int=8)), "mdev": None, "vf": VF},
    ]
    assert (start["domain"], start["uuid"], start["operation"]) == ("win1", str(DOMAIN), "prepare")
    assert (release["operation"], release["token"], release["saved"]) == ("release", start["token"], False)
    assert len(start["token"]) == 32


def test_a_refusal_is_one_sentence(place: Place):
    with place.daemon(lambda _: said({"allowed": False, "why": "vGPU a is not free:\ndomain b has it"})):
        done = outcome(place.call(*PREPARE))
    assert done == (1, "", "vgpuctl: vGPU a is not free: domain b has it\n")


def test_each_start_has_a_token_of_its_own_until_it_is_released(place: Place):
    note = place.run / "starts" / str(DOMAIN)
    with place.daemon(lambda _: said({"allowed": True})):
        place.call(*PREPARE)
        first = json.loads(note.read_text())
        place.call(*PREPARE)
        second = json.loads(note.read_text())
        place.call(*RELEASE)
    assert first["token"] != second["token"]
    assert [each["token"] for each in place.asked] == [first["token"], second["token"], second["token"]]
    assert not note.exists()


def test_a_managed_save_image_is_told_and_its_start_is_not_forgotten(place: Place):
    with place.daemon(lambda _: said({"allowed": True})):
        place.call(*PREPARE)
        (place.saved / "win1.save").touch()
        place.call("win1", "release", "end", "saved")
    assert place.asked[-1]["saved"] is True
    assert (place.run / "starts" / str(DOMAIN)).exists()


# -- without a daemon -------------------------------------------------------------------------------


def no_answer(_body: Any) -> bytes | None:
    return None


def unavailable(_body: Any) -> bytes | None:
    return said({"code": "unavailable"}, "503 Service Unavailable")


def broken(_body: Any) -> bytes | None:
    return b"HTTP/1.1 200 OK\r\n\r\nnot JSON"


@pytest.mark.parametrize("answer", [None, no_answer, unavailable, broken])
def test_exactly_our_mdev_and_free_is_enough(place: Place, answer: Any):
    with place.daemon(answer) if answer else contextlib.nullcontext():
        code, _, told = outcome(place.call(*PREPARE))
        assert code == 1
        assert told == (
            f"vgpuctl: its daemon does not run, and vGPU {VGPU} is not there; systemctl start vgpuctl, "
            "then start the domain again\n"
        )
        place.make_mdev(VGPU)
        assert outcome(place.call(*PREPARE)) == (0, "", "")


def test_an_mdev_under_another_ones_alias_is_not_ours(place: Place):
    place.make_mdev(VGPU)
    code, _, told = outcome(place.call(*PREPARE, xml=domain("win1", DOMAIN, mdev_hostdev(VGPU, uuid4()))))
    assert (code, "under the alias of vGPU" in told) == (1, True)


def test_an_mdev_of_another_type_is_not_it(place: Place):
    place.make_mdev(VGPU, type_id=223)
    place.book(type_id=222)
    code, _, told = outcome(place.call(*PREPARE))
    assert (code, "another type" in told) == (1, True)
    place.book(type_id=222, boot_id="of another boot")
    assert place.call(*PREPARE).returncode == 0


@pytest.mark.parametrize(
    ("type_id", "book", "code"),
    [
        (222, {"vf": VF}, 0),
        (223, {"vf": VF}, 1),
        (0, {"vf": VF}, 1),
        (222, {"vf": "0000:41:00.5"}, 1),
        (222, {"vf": VF, "boot_id": "of another boot"}, 1),
        (222, None, 1),
    ],
)
def test_a_vf_is_ours_only_by_the_book_of_this_boot(place: Place, type_id: int, book: Any, code: int):
    place.make_vf(type_id)
    if book is not None:
        place.book(**book)
    done = place.call(*PREPARE, xml=ON_A_VF)
    assert (done.returncode, done.stderr != "") == (code, code == 1), done.stderr


def test_what_libvirt_itself_gives_away_needs_nothing_of_us(place: Place):
    assert place.call(*PREPARE, xml=domain("win1", DOMAIN, vf_hostdev(VGPU, managed="yes"))).returncode == 0


def test_who_was_started_with_it_is_named(place: Place):
    place.make_mdev(VGPU)
    assert place.call(*PREPARE).returncode == 0
    other = domain("win2", UUID(int=10), mdev_hostdev(VGPU))
    code, _, told = outcome(place.call("win2", "prepare", "begin", "-", xml=other))
    assert (code, "domain win1 was started with vGPU" in told) == (1, True)
    place.call(*RELEASE)
    assert place.call("win2", "prepare", "begin", "-", xml=other).returncode == 0


def test_a_group_that_cannot_be_read_is_not_no_group(place: Place):
    place.make_mdev(VGPU)
    group = place.sys / "bus/mdev/devices" / str(VGPU) / "iommu_group"
    group.unlink()
    assert place.call(*PREPARE).returncode == 0
    place.call(*RELEASE)
    group.write_text("no link")
    code, _, told = outcome(place.call(*PREPARE))
    assert (code, "by which group" in told) == (1, True), told


@pytest.mark.parametrize("thread", [4242, 4243])
def test_who_has_it_open_is_named(place: Place, thread: int):
    """hardware.md T9, 1.4.12: open handles are looked at, also those of a QEMU that hangs in its end."""
    place.make_mdev(VGPU)
    place.open_by(4242, thread=4242) if thread != 4242 else None
    place.open_by(4242, "/dev/vfio/987654 (deleted)", thread=thread)
    code, _, told = outcome(place.call(*PREPARE))
    assert (code, told) == (1, f"vgpuctl: process 4242 has vGPU {VGPU} open\n")


def test_what_cannot_be_read_counts_as_busy(place: Place):
    place.make_mdev(VGPU)
    (place.proc / "77/task/77/fd").mkdir(parents=True)
    (place.proc / "77/task/77/fd/0").touch()  # no link: readlink fails, as it does for want of rights
    code, _, told = outcome(place.call(*PREPARE))
    assert (code, f"whether process 77 has vGPU {VGPU} open cannot be read" in told) == (1, True)


# -- slow, and killed -------------------------------------------------------------------------------


def test_a_daemon_that_does_not_answer_in_time_holds_nobody_up(place: Place):
    """hardware.md T4: libvirt has no limit for a hook, so that this one has one of its own."""
    place.install(PREPARE_S=5.0, ANSWER_S=0.2, RELEASE_S=1.2)
    done = threading.Event()

    def mute(_body: Any) -> bytes | None:
        done.wait(20)
        return None

    with place.daemon(mute):
        code, _, told = outcome(place.call(*PREPARE))
        assert (code, "its daemon does not run" in told) == (1, True)
        place.make_mdev(VGPU)
        assert place.call(*PREPARE).returncode == 0, "what it needs is there"
        assert outcome(place.call(*RELEASE)) == (0, "", "")
        done.set()


def test_a_kernel_that_hangs_holds_nobody_up(place: Place):
    """Its child is left behind: it has no descriptor for whose end libvirt would wait."""
    place.install(PREPARE_S=0.5)
    os.mkfifo(place.run / "book")  # opening it waits for a writer, as a hung file does
    code, _, told = outcome(place.call(*PREPARE))
    assert (code, told) == (
        1,
        "vgpuctl: its hook did not come to an end within 0.5 s; see journalctl -u vgpuctl\n",
    )


def test_a_hook_that_is_killed_leaves_its_token_for_the_release(place: Place):
    asked, done = threading.Event(), threading.Event()

    def slow(body: dict[str, Any]) -> bytes | None:
        asked.set()
        if body["operation"] == "prepare":
            done.wait(20)
        return said({"allowed": True})

    with place.daemon(slow):
        process = subprocess.Popen(
            [place.hook, *PREPARE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        process.stdin.write(OURS.encode())
        process.stdin.close()
        assert asked.wait(20)
        process.send_signal(signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL
        done.set()
        assert outcome(place.call(*RELEASE)) == (0, "", "")
    assert place.asked[-1]["token"] == place.asked[0]["token"]


# -- whether it is called ---------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [*OTHERS, PREPARE], ids=lambda each: " ".join(each[1:3]))
def test_every_call_gives_the_nonce_back(place: Place, arguments: Any):
    place.call(*arguments, xml=PLAIN)
    assert not (place.run / "seen").exists()
    (place.run / "nonce").write_text("abc")
    place.call(*arguments, xml=PLAIN)
    assert (place.run / "seen").read_text() == "abc"


def test_it_loads_nothing_for_what_is_none_of_its_business(place: Place):
    """libvirt waits: a start of any domain costs one small interpreter."""
    text = place.hook.read_text().replace(
        "sys.exit(main(sys.argv))", "code = main(sys.argv); print(*sorted(sys.modules)); sys.exit(code)"
    )
    place.hook.write_text(text)
    loaded = set(place.call(*PREPARE, xml=PLAIN).stdout.split())
    assert not loaded & {"json", "socket", "xml", "select", "subprocess", "pathlib", "re", "typing"}


@pytest.mark.parametrize(
    ("operation", "program", "status"),
    [
        ("prepare begin", "sys.exit(1)", 1),
        ("prepare begin", "sys.exit(0)", 0),
        ("prepare begin", "os.kill(os.getpid(), 9)", 137),
        ("reconnect begin", "sys.exit(1)", 0),
        ("release end", "os.kill(os.getpid(), 9)", 0),
        ("start begin", "raise ValueError", 0),
        ("prepare begin", None, 0),
        ("reconnect begin", None, 0),
    ],
)
def test_what_libvirt_calls_refuses_nothing_but_a_start(
    tmp_path: Path, operation: str, program: str | None, status: int
):
    """libvirt kills a running guest whose `reconnect` hook fails, whatever the reason."""
    place = tmp_path / "qemu_hook.py"
    if program is not None:
        place.write_text(f"import os, sys\nprint(sys.stdin.read(), sys.argv[1:])\n{program}\n")
    done = call(calling(tmp_path / "hook", place), "win1", *operation.split(), "-", xml="<domain/>")
    assert done.returncode == status
    if program is not None and "kill" not in program:
        assert done.stdout == f"<domain/> {['win1', *operation.split(), '-']}\n"


@pytest.mark.parametrize("operation", ["prepare", "reconnect"])
def test_an_interpreter_that_may_not_be_run_refuses_nothing(tmp_path: Path, operation: str):
    """As under AppArmor, where libvirtd's profile did not let a program below /usr/lib be run."""
    program, python = tmp_path / "qemu_hook.py", tmp_path / "python3"
    program.touch()
    python.touch(mode=0o644)
    hook = calling(tmp_path / "hook", program)
    hook.write_text(hook.read_text().replace("/usr/bin/python3", str(python)))
    assert call(hook, "win1", operation, "begin", "-", xml="<domain/>").returncode == 0


def calling(hook: Path, program: Path) -> Path:
    """What libvirt calls, as it is installed, but for where the program is."""
    text = (SOURCE.parent / "libvirt-hook").read_text()
    assert "/usr/lib/vgpuctl/qemu_hook.py" in text
    hook.write_text(text.replace("/usr/lib/vgpuctl/qemu_hook.py", str(program)))
    hook.chmod(0o755)
    return hook


def test_it_runs_where_vgpuctl_does_not():
    """Any Python from 3.9 on, without the site's packages and without this project."""
    text = SOURCE.read_text()
    ast.parse(text, feature_version=(3, 9))
    assert text.splitlines()[0] == "#!/usr/bin/python3 -IS"
    imported = {
        line.split()[1] for line in text.splitlines() if line.lstrip().startswith(("import ", "from "))
    }
    assert imported == {"__future__", "os", "signal", "sys", "select", "xml.etree", "json", "socket"}
    assert os.access(SOURCE, os.X_OK)

"""What a module does while the daemon that it asks is being restarted."""

from __future__ import annotations

import importlib.util
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SOURCE = (
    Path(__file__).parents[2] / "ansible/ansible_collections/vgpuctl/vgpuctl/plugins/module_utils/daemon.py"
)
WELL = (200, b"{}")
STOPPING = (503, b'{"code": "unavailable", "detail": "the daemon is stopping"}')
HANGS_UP = None


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("daemon_of_the_collection", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    monkeypatch.setattr(found.time, "sleep", lambda _seconds: None)
    return found


@contextmanager
def answering(path: Path, answers: list[tuple[int, bytes] | None]) -> Iterator[None]:
    """A server at `path` that answers each request by the next of `answers`; None hangs up."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while (line := self.rfile.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            self.rfile.read(length)
            if (answer := answers.pop(0)) is not None:
                status, body = answer
                self.wfile.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))

    with socketserver.UnixStreamServer(str(path), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def test_what_only_reads_is_asked_again(module: Any, tmp_path: Path) -> None:
    answers = [STOPPING, HANGS_UP, WELL, HANGS_UP, WELL]
    with answering(tmp_path / "s", answers):
        daemon = module.Daemon(str(tmp_path / "s"))
        assert daemon.get("gpus") == {}
        assert daemon.plan({}) == {}
    assert not answers


def test_what_may_have_been_heard_and_changes_something_is_not(module: Any, tmp_path: Path) -> None:
    answers = [STOPPING, HANGS_UP, WELL]
    with answering(tmp_path / "s", answers), pytest.raises(module.HungUp):
        module.Daemon(str(tmp_path / "s"))._ask("POST", "/v1/operations", {})
    assert answers == [WELL]


def test_one_that_is_not_there_is_told_at_once(module: Any, tmp_path: Path) -> None:
    with pytest.raises(module.HungUp, match="does not answer"):
        module.Daemon(str(tmp_path / "s")).get("gpus")


def test_nobody_is_waited_for_for_ever(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_GRACE_S", 0.0)
    answers = [STOPPING, WELL]
    with answering(tmp_path / "s", answers), pytest.raises(module.Problem, match="is stopping"):
        module.Daemon(str(tmp_path / "s")).get("gpus")

"""The pytest plugin of the rig: a test marked `rig` just runs in there.

On the host such tests are collected as all others are, then run by a pytest of the guest's own, and their
reports are shown as if they had run here; the guest works while the host runs its own tests.  In the
guest the same plugin sends the reports.  A test that has to see its guest boot runs on the host, with
the fixture `machine`, by another pytest beside the first.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.rig.guests import TRIXIE
from tests.support.marks import takes_all

INSIDE: Final = os.environ.get("VGPUCTL_RIG")
"""The name of the guest that we are in, None on the host."""
REPORTS: Final = "VGPUCTL_RIG_REPORTS"
"""The environment's name for the file to which a pytest beside another sends its reports."""
_TOOLS: Final = "qemu-img setpriv mmdebstrap mke2fs cpio zstd xz modprobe depmod busybox strip apt-get git"
_BESIDE: Final = "machines"
"""The part of the tests that have machines to themselves."""
_BOOT: Final = 12
"""As many other tests take as long as one with a machine of its own."""
_ALL: Final = "all"
_LOGS_S: Final = 120.0


def unavailable() -> str | None:
    """Why the rig cannot run on this machine; None where it can."""
    if platform.machine() != "x86_64":
        return f"the rig's guests are x86-64 machines, this is {platform.machine()}"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [each for each in _TOOLS.split() if shutil.which(each, path=path) is None]
    if missing:
        return f"the rig needs {', '.join(missing)}: scripts/setup --rig installs them"
    if os.geteuid() != 0:
        return "the rig is built as root"
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Be the half that shows reports or the one that sends them."""
    if INSIDE is not None:
        config.pluginmanager.register(Sender(config, Path("/dev/virtio-ports/rig.reports")), "rig-sender")
    elif reports := os.environ.get(REPORTS):
        config.pluginmanager.register(Sender(config, Path(reports)), "rig-sender")
    else:
        config.pluginmanager.register(OnHost(config), "rig-on-host")


@pytest.fixture
def nvsim() -> Iterator[Any]:
    """The simulated cards of the guest; taken out again after the test."""
    from tests.rig.simulated import Nvsim

    found = Nvsim()
    found.unload()
    yield found
    found.unload()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A guest of the module's own, with vgpuctl installed."""
    from tests.rig.run import one_machine

    with one_machine(TRIXIE, tmp_path_factory.mktemp("rig") / "machine") as found:
        yield found


class OnHost:
    """Collects here, runs there."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._runs: dict[tuple[str, str], Any] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Tests that run elsewhere are shown last."""
        for item in items:
            if _runs_of(item):
                item.add_marker(pytest.mark.timeout(0), append=False)
        items.sort(key=lambda item: bool(_runs_of(item)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[None]:
        """Start the guests before the first test."""
        ids: dict[tuple[str, str], list[str]] = {}
        for item in session.items:
            for key in _runs_of(item):
                ids.setdefault(key, []).append(item.nodeid)
        if not self._config.option.collectonly and ids and unavailable() is None:
            from tests.rig.run import GuestRun, MachineRun

            last: Any = None
            # The longest first: one that begins last is waited for while a processor has nothing to do.
            for (guest, part), names in sorted(ids.items(), key=_length, reverse=True):
                options, name = _passed_on(self._config), f"{guest}-{part}"
                if part == _BESIDE:
                    last = MachineRun(names, options, name=name, after=last)
                else:
                    last = GuestRun(guest, names, options, name=name, after=last)
                self._runs[guest, part] = last
                last.start()
        try:
            result = yield
            for run in self._runs.values():
                run.join(_LOGS_S)
            return result
        finally:
            for run in self._runs.values():
                run.stop()

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Show what was said elsewhere of a test that runs there."""
        if not _runs_of(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _reports(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        if why := unavailable():
            yield _verdict(item, why, failed=os.environ.get("CI") == "true")
            return
        runs = _runs_of(item)
        for guest, part in runs:
            answer = self._runs[guest, part].reports_of(item.nodeid)
            if isinstance(answer, str):
                yield _verdict(item, f"{guest}: {answer}", failed=True)
                continue
            for data in answer:
                report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
                if len(runs) > 1:
                    path, line, name = report.location
                    report.location = (path, line, f"{name} in {guest}")
                yield report

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A guest whose kernel complained has failed, whatever its tests say."""
        if any(run.complaints for run in self._runs.values()) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show those complaints, and which machines were replaced."""
        for (guest, _), run in self._runs.items():
            for line in run.replaced:
                terminalreporter.line(f"a machine was replaced: {line}", yellow=True)
            for line in run.complaints:
                terminalreporter.line(f"the kernel of {guest} complained: {line}", red=True)


class Sender:
    """Sends what happens to the pytest that shows it."""

    def __init__(self, config: pytest.Config, port: Path) -> None:
        self._config = config
        self._port = port.open("wb", buffering=0)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self._send({"started": nodeid})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        self._send(
            {"report": self._config.hook.pytest_report_to_serializable(config=self._config, report=report)}
        )

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """That was all of it."""
        self._send({"finished": nodeid})

    def _send(self, message: dict[str, Any]) -> None:
        data = (json.dumps(message) + "\n").encode()
        while data:
            data = data[self._port.write(data) or 0 :]


def _guests_of(item: pytest.Item) -> tuple[str, ...]:
    """The guests in which a test runs: those that its mark names, TRIXIE when it names none.

    Where not all runs, the first of them.
    """
    mark = item.get_closest_marker("rig")
    if mark is None:
        return ()
    guests: tuple[str, ...] = mark.args or (TRIXIE,)
    return guests if takes_all(item.config) else guests[:1]


def _runs_of(item: pytest.Item) -> tuple[tuple[str, str], ...]:
    """The runs in which a test is, by guest and part; none for one that runs here.

    The tests of one directory have a machine of the main guest to themselves, beside those of another;
    the few of the old guest share one.
    """
    if "machine" in getattr(item, "fixturenames", ()):
        return ((TRIXIE, _BESIDE),)
    return tuple((guest, item.path.parent.name if guest == TRIXIE else _ALL) for guest in _guests_of(item))


def _length(run: tuple[tuple[str, str], list[str]]) -> int:
    """How long a run of tests takes, in tests."""
    (_, part), names = run
    return len(names) * (_BOOT if part == _BESIDE else 1)


def _passed_on(config: pytest.Config) -> list[str]:
    return ["-x"] if config.getoption("maxfail") == 1 else []


def _verdict(item: pytest.Item, why: str, *, failed: bool) -> pytest.TestReport:
    path, line, _ = item.location
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="failed" if failed else "skipped",
        longrepr=why if failed else (path, (line or 0) + 1, f"Skipped: {why}"),
        when="setup",
    )

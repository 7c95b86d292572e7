"""The pytest plugin of the rig: a test marked `rig` just runs in there.

On the host such tests are collected as all others are, then run by a pytest of the guest's own, and their
reports are shown as if they had run here; the guest works while the host runs its own tests.  In the
guest the same plugin sends the reports.  A test that has to see its guest boot runs on the host, with
the fixture `machine`.
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

INSIDE: Final = os.environ.get("VGPUCTL_RIG")
"""The name of the guest that we are in, None on the host."""
_TOOLS: Final = "qemu-img setpriv mmdebstrap mke2fs cpio zstd xz modprobe depmod busybox strip apt-get git"
_MACHINE_S: Final = 3600
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
    """Be the host's half or the guest's."""
    if INSIDE is None:
        config.pluginmanager.register(OnHost(config), "rig-on-host")
    else:
        config.pluginmanager.register(InGuest(config), "rig-in-guest")


@pytest.fixture
def nvsim() -> Iterator[Any]:
    """The simulated cards of the guest; taken out again after the test."""
    from tests.rig.simulated import Nvsim

    found = Nvsim()
    found.unload()
    yield found
    found.unload()


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A guest of the test's own, with vgpuctl installed; TRIXIE, or what it is parametrised with."""
    if why := unavailable():
        _cannot(why)
    from tests.rig.run import one_machine

    with one_machine(getattr(request, "param", TRIXIE), tmp_path / "machine") as found:
        yield found


def _cannot(why: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


class OnHost:
    """Collects here, runs there."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._runs: dict[tuple[str, str], Any] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Tests that have a machine to themselves come late, those in the rig last."""
        for item in items:
            if _guests_of(item):
                item.add_marker(pytest.mark.timeout(0), append=False)
            elif _has_machine(item):
                item.add_marker(pytest.mark.timeout(_MACHINE_S), append=False)
        items.sort(key=lambda item: (bool(_guests_of(item)), _has_machine(item)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[None]:
        """Start the guests before the first test."""
        ids: dict[tuple[str, str], list[str]] = {}
        for item in session.items:
            for guest in _guests_of(item):
                ids.setdefault((guest, _part_of(item)), []).append(item.nodeid)
        if not self._config.option.collectonly and ids and unavailable() is None:
            from tests.rig.run import GuestRun

            last = None
            # The longest first: one that begins last is waited for while a processor has nothing to do.
            for (guest, part), names in sorted(ids.items(), key=lambda each: -len(each[1])):
                last = GuestRun(guest, names, _passed_on(self._config), name=f"{guest}-{part}", after=last)
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
        """Show what the guests said of a test of theirs."""
        if not _guests_of(item):
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
        guests = _guests_of(item)
        for guest in guests:
            answer = self._runs[guest, _part_of(item)].reports_of(item.nodeid)
            if isinstance(answer, str):
                yield _verdict(item, f"{guest}: {answer}", failed=True)
                continue
            for data in answer:
                report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
                if len(guests) > 1:
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


class InGuest:
    """Sends what happens to the host."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._port = Path("/dev/virtio-ports/rig.reports").open("wb", buffering=0)  # noqa: SIM115

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
    """The guests in which a test runs: those that its mark names, TRIXIE when it names none."""
    mark = item.get_closest_marker("rig")
    if mark is None:
        return ()
    return mark.args or (TRIXIE,)


def _part_of(item: pytest.Item) -> str:
    """The tests of one directory have a machine to themselves, beside those of another."""
    return item.path.parent.name


def _has_machine(item: pytest.Item) -> bool:
    return "machine" in getattr(item, "fixturenames", ())


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

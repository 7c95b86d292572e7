"""The host's half of the plugin: where it cannot run, and how a guest's reports are shown."""

from __future__ import annotations

import pytest

from tests.rig import plugin, run

TESTS = """
import pytest

@pytest.mark.rig("bookworm", "trixie")
def test_in_both(): raise RuntimeError("never run on the host")

@pytest.mark.rig
def test_passes(): raise RuntimeError("never run on the host")

def test_here(): pass
"""


class Answers:
    """Stands for a guest: every test passes in trixie and fails in bookworm."""

    def __init__(self, guest, ids, options, name, after=None):
        self.guest, self.ids, self.options, self.after = guest, ids, options, after
        self.complaints, self.replaced = [], []

    def start(self):
        pass

    def join(self, timeout):
        pass

    def stop(self):
        pass

    def reports_of(self, nodeid):
        assert nodeid in self.ids
        return [self._report(nodeid, when) for when in ("setup", "call", "teardown")]

    def _report(self, nodeid, when):
        fails = self.guest == "bookworm" and when == "call"
        report = pytest.TestReport(
            nodeid,
            ("test_it.py", 1, "test"),
            {},
            "failed" if fails else "passed",
            "boom" if fails else None,
            when,
        )
        return {"$report_type": "TestReport", **report._to_json()}


class Silent(Answers):
    def reports_of(self, nodeid):
        return "the guest's pytest ended with 3"


@pytest.fixture
def project(pytester, monkeypatch):
    pytester.makepyfile(test_it=TESTS)
    pytester.makeconftest("def pytest_configure(config): config.addinivalue_line('markers', 'rig(*guests)')")
    monkeypatch.setattr(plugin, "INSIDE", None)
    monkeypatch.setattr(run, "GuestRun", Answers)
    monkeypatch.setattr(plugin, "unavailable", lambda: None)
    monkeypatch.delenv("CI", raising=False)
    return lambda *arguments: pytester.runpytest_inprocess(
        "-p", "tests.rig.plugin", "-p", "no:cacheprovider", *arguments
    )


def test_a_guests_reports_are_shown_as_ours(project):
    result = project("-v")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*test in bookworm*", "boom"])


def test_where_not_all_runs_a_test_is_in_its_first_guest(project, pytester):
    with (pytester.path / "conftest.py").open("a") as conftest:
        conftest.write("\ndef pytest_addoption(parser): parser.addoption('--thorough', action='store_true')")
    project().assert_outcomes(passed=2, failed=1)
    project("--thorough").assert_outcomes(passed=3, failed=1)


def test_what_runs_here_runs_first(project):
    lines = [each for each in project("-v").outlines if "test_it.py::" in each and "%]" in each]
    assert "test_here" in lines[0]


def test_the_longest_part_begins_first(project, monkeypatch):
    begun = []

    class Noted(Answers):
        def start(self):
            begun.append(self)

    monkeypatch.setattr(run, "GuestRun", Noted)
    project("--deselect", "test_it.py::test_here")
    assert [(each.guest, len(each.ids)) for each in begun] == [("trixie", 2), ("bookworm", 1)]
    assert [each.after for each in begun] == [None, begun[0]]


def test_a_test_with_a_machine_of_its_own_runs_beside(project, pytester, monkeypatch):
    pytester.makepyfile(
        test_it=f"{TESTS}\ndef test_boots(machine): raise RuntimeError('never run by this one')"
    )
    begun = []

    def beside(ids, options, *, name, after):
        begun.append((ids, name, after))
        return Answers("trixie", ids, options, name, after)

    monkeypatch.setattr(run, "MachineRun", beside)
    result = project("-v", "--deselect", "test_it.py::test_in_both")
    result.assert_outcomes(passed=3, deselected=1)
    assert begun == [(["test_it.py::test_boots"], "trixie-machines", None)], "a boot is longer than a test"


def test_a_guest_that_ends_early_fails_its_tests(project, monkeypatch):
    monkeypatch.setattr(run, "GuestRun", Silent)
    project().assert_outcomes(passed=1, errors=3)


def test_a_kernel_that_complained_fails_the_run(project, monkeypatch):
    class Complaining(Answers):
        def __init__(self, *arguments, **names):
            super().__init__(*arguments, **names)
            self.complaints = ["BUG: unable to handle page fault"]

    monkeypatch.setattr(run, "GuestRun", Complaining)
    result = project("-k", "passes")
    result.assert_outcomes(passed=1, deselected=2)
    result.stdout.fnmatch_lines(["the kernel of trixie complained: BUG: unable*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_without_the_means_a_laptop_skips_and_says_why(project, monkeypatch):
    monkeypatch.setattr(plugin, "unavailable", lambda: "the rig needs mmdebstrap")
    result = project("-rs")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["*the rig needs mmdebstrap*"])


def test_without_the_means_ci_fails(project, monkeypatch):
    monkeypatch.setattr(plugin, "unavailable", lambda: "the rig needs mmdebstrap")
    monkeypatch.setenv("CI", "true")
    project().assert_outcomes(passed=1, errors=2)


def test_only_collecting_starts_no_guest(project, monkeypatch):
    monkeypatch.setattr(run, "GuestRun", None)
    assert project("--collect-only", "-q").ret == 0


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(plugin.platform, "machine", lambda: "x86_64")
    assert "mmdebstrap" in plugin.unavailable()
    assert "scripts/setup --rig" in plugin.unavailable()
